"""The words of RELION's command lines, as pure functions: paths and sizes in, a list of words out.

Every path is relative to the project folder. Lengths are in Å where the name says so; RELION's own units of each option
stand beside it. Options differ between versions 3.1, 4 and 5 where that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryopick.errors import SettingsError
from cryopick.evaluation.relion_programs.installation import Relion

MASK_DIAMETERS = 1.15
"""Diameter of the circular mask around particles, in particle diameters."""
PADDING = 1
"""Of references in Fourier space; 2 costs several times the time and memory, for maps far finer than those here."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How a refinement computes; nothing of it changes what is asked for.

    Attributes
    ----------
    threads : of each process
    pool : particles handed to a thread at once
    is_preread : the whole stack is read into memory first
    scratch : folder of a local disk to which the stack is copied; empty is none
    is_network_disk : processes read in turn
    gpus : as RELION names them ("0:1"), or None for none
    """

    threads: int = 1
    pool: int = 30
    is_preread: bool = True
    scratch: str = ""
    is_network_disk: bool = False
    gpus: str | None = None

    def words(self) -> list[str]:
        words = ["--j", str(self.threads), "--pool", str(self.pool), "--dont_combine_weights_via_disc"]
        words += ["--scratch_dir", self.scratch] if self.scratch else []
        words += ["--preread_images"] if self.is_preread and not self.scratch else []
        words += ["--no_parallel_disc_io"] if self.is_network_disk else []
        words += ["--gpu", self.gpus] if self.gpus is not None else []
        return words


def extract(
    relion: Relion,
    *,
    micrographs: str,
    picks_folder: str,
    suffix: str,
    folder: str,
    box_px: int,
    scaled_px: int,
    background_radius_px: int | None,
    coordinate_list: str | None = None,
    is_inverted: bool = True,
) -> list[str]:
    """Boxes around picks, cut, scaled, normalised, protein bright: FOLDER/particles.star.

    Parameters
    ----------
    micrographs : `micrographs_ctf.star`
    picks_folder, suffix : coordinates of the micrograph `a/b.mrc` are PICKS_FOLDER/a/bSUFFIX
    coordinate_list : STAR of micrographs and their coordinate files, which versions 4 and 5 take instead
    box_px, scaled_px : size of the box in the micrograph, and to what it is scaled; both even
    background_radius_px : in pixels of the scaled box, outside of which is background, made 0 with deviation 1;
        None leaves the values as they are
    """
    for name, value in (("box", box_px), ("scaled box", scaled_px)):
        if value < 2 or value % 2:
            raise SettingsError(f"{name} is {value} px; RELION's boxes have an even number of pixels")
    if background_radius_px is not None and not 0 < background_radius_px <= scaled_px // 2:
        raise SettingsError(
            f"background radius is {background_radius_px} px; expected more than the particle's and at most half the "
            f"scaled box, {scaled_px // 2} px"
        )
    if coordinate_list is not None and relion.version != "3.1":
        coordinates = ["--coord_list", coordinate_list]
    else:
        coordinates = ["--coord_dir", _folder(picks_folder), "--coord_suffix", suffix]
    words = [relion.path("relion_preprocess"), "--i", micrographs, *coordinates, "--extract"]
    words += ["--extract_size", str(box_px)]
    words += ["--norm", "--bg_radius", str(background_radius_px)] if background_radius_px is not None else []
    words += ["--scale", str(scaled_px)] if scaled_px != box_px else []
    words += ["--invert_contrast"] if is_inverted else []
    return [*words, "--part_dir", _folder(folder), "--part_star", f"{_folder(folder)}particles.star"]


def class_2d(
    relion: Relion,
    *,
    particles: str,
    folder: str,
    classes: int,
    diameter_angstrom: float,
    iterations: int,
    seed: int,
    computing: Computing,
    is_ctf_corrected: bool = True,
    psi_step_deg: float = 15.0,
    offset_range_px: float = 3.0,
    offset_step_px: float = 2.0,
) -> list[str]:
    """Class averages by expectation maximisation: FOLDER/run_itNNN_*."""
    words = [relion.path("relion_refine"), "--i", particles, "--o", f"{_folder(folder)}run"]
    words += ["--iter", str(iterations), "--K", str(classes), "--tau2_fudge", "2"]
    words += _image_model(diameter_angstrom, is_ctf_corrected)
    words += ["--psi_step", _number(psi_step_deg), "--offset_range", _number(offset_range_px)]
    words += ["--offset_step", _number(offset_step_px)]
    return [*words, *_run_words(folder, seed, computing)]


def initial_model(
    relion: Relion,
    *,
    particles: str,
    folder: str,
    diameter_angstrom: float,
    symmetry: str,
    seed: int,
    computing: Computing,
    is_ctf_corrected: bool = True,
    iterations: tuple[int, int, int] = (50, 200, 50),
    subsets: tuple[int, int] = (100, 300),
    resolutions_angstrom: tuple[float, float],
    write_every: int = 10,
    healpix_order: int = 1,
    offset_range_px: float = 6.0,
    offset_step_px: float = 2.0,
) -> list[str]:
    """A first map without any reference, by RELION's stochastic gradient descent: FOLDER/run_itNNN_class001.mrc.

    Version 4 calls it `--grad`, counts iterations together, and has other names for the rest.

    Parameters
    ----------
    iterations : coarse, between and fine
    subsets : particles of an iteration, at first and at the end
    resolutions_angstrom : at first and at the end
    """
    words = [relion.path("relion_refine"), "--i", particles, "--o", f"{_folder(folder)}run", "--denovo_3dref"]
    words += ["--K", "1", "--sym", symmetry, *_image_model(diameter_angstrom, is_ctf_corrected)]
    words += ["--healpix_order", str(healpix_order), "--offset_range", _number(offset_range_px)]
    words += ["--offset_step", _number(offset_step_px)]
    first, last = (_number(one) for one in resolutions_angstrom)
    if relion.version == "3.1":
        words += ["--sgd", "--sgd_ini_iter", str(iterations[0]), "--sgd_inbetween_iter", str(iterations[1])]
        words += ["--sgd_fin_iter", str(iterations[2]), "--sgd_write_iter", str(write_every)]
        words += ["--sgd_ini_resol", first, "--sgd_fin_resol", last]
        words += ["--sgd_ini_subset", str(subsets[0]), "--sgd_fin_subset", str(subsets[1])]
    else:
        total = sum(iterations)
        words += ["--grad", "--iter", str(total), "--grad_write_iter", str(write_every)]
        words += ["--grad_ini_frac", _number(iterations[0] / total), "--grad_fin_frac", _number(iterations[2] / total)]
        words += ["--grad_ini_resol", first, "--grad_fin_resol", last]
        words += ["--grad_ini_subset", str(subsets[0]), "--grad_fin_subset", str(subsets[1])]
    return [*words, *_run_words(folder, seed, computing)]


def auto_refine(
    relion: Relion,
    *,
    particles: str,
    folder: str,
    reference: str,
    diameter_angstrom: float,
    low_pass_angstrom: float,
    symmetry: str,
    seed: int,
    computing: Computing,
    is_ctf_corrected: bool = True,
    low_resol_join_halves_angstrom: float = 40.0,
    healpix_order: int = 2,
    local_healpix_order: int = 4,
    offset_range_px: float = 5.0,
    offset_step_px: float = 2.0,
    is_on_scale: bool = False,
    is_quick: bool = False,
    most_iterations: int | None = None,
) -> list[str]:
    """Refinement of two half sets, to be started by `mpi_command`: FOLDER/run_*.

    Half sets are those of the column rlnRandomSubset where the particles have it.

    Parameters
    ----------
    reference : map of the particles' pixel and box; RELION ends otherwise, see `resampled_map`
    low_pass_angstrom : of the reference, in the first iteration
    low_resol_join_halves_angstrom : to which the half sets share what they find, so that their maps stay aligned
    is_on_scale : the reference has the particles' grey scale; otherwise the first iteration correlates only
    is_quick : angles are refined by the resolution alone; with some hundred particles it ends too early
    most_iterations : after which it stops without having converged, and without its last step
    """
    words = [relion.path("relion_refine_mpi"), "--i", particles, "--o", f"{_folder(folder)}run"]
    words += ["--auto_refine", "--split_random_halves", "--ref", reference, "--ini_high", _number(low_pass_angstrom)]
    words += [] if is_on_scale else ["--firstiter_cc"]
    words += ["--sym", symmetry, *_image_model(diameter_angstrom, is_ctf_corrected)]
    words += ["--healpix_order", str(healpix_order), "--auto_local_healpix_order", str(local_healpix_order)]
    words += ["--offset_range", _number(offset_range_px), "--offset_step", _number(offset_step_px)]
    words += ["--low_resol_join_halves", _number(low_resol_join_halves_angstrom)]
    words += ["--auto_ignore_angles", "--auto_resol_angles"] if is_quick else []
    words += ["--auto_iter_max", str(most_iterations)] if most_iterations is not None else []
    return [*words, *_run_words(folder, seed, computing)]


def continued(
    relion: Relion,
    *,
    optimiser: str,
    folder: str,
    computing: Computing,
    is_mpi: bool = False,
    iterations: int | None = None,
) -> list[str]:
    """A run goes on from an iteration; it keeps its settings, so nothing but the way of computing is said.

    Parameters
    ----------
    optimiser : of the iteration, see `newest_iteration`
    iterations : in the end, for classifications
    """
    program = relion.path("relion_refine_mpi" if is_mpi else "relion_refine")
    words = [program, "--continue", optimiser, "--o", f"{_folder(folder)}run"]
    words += ["--iter", str(iterations)] if iterations is not None else []
    return [*words, *computing.words(), "--pipeline_control", _folder(folder)]


def reconstruct(
    relion: Relion,
    *,
    particles: str,
    output: str,
    symmetry: str = "C1",
    half: int | None = None,
    pixel_size_angstrom: float | None = None,
    is_ctf_corrected: bool = True,
) -> list[str]:
    """A map from particles whose angles are known; of half set 1 or 2, or of all."""
    words = [relion.path("relion_reconstruct"), "--i", particles, "--o", output, "--sym", symmetry]
    words += ["--ctf"] if is_ctf_corrected else []
    words += ["--angpix", _number(pixel_size_angstrom)] if pixel_size_angstrom is not None else []
    return words + (["--subset", str(half)] if half is not None else [])


def mask_create(
    relion: Relion,
    *,
    volume: str,
    output: str,
    threshold: float,
    low_pass_angstrom: float,
    pixel_size_angstrom: float,
    extend_px: int = 2,
    soft_edge_px: int = 4,
    threads: int = 1,
) -> list[str]:
    """A soft mask around what exceeds a density."""
    words = [relion.path("relion_mask_create"), "--i", volume, "--o", output]
    words += ["--lowpass", _number(low_pass_angstrom), "--angpix", _number(pixel_size_angstrom)]
    words += ["--ini_threshold", _number(threshold), "--extend_inimask", str(extend_px)]
    return [*words, "--width_soft_edge", str(soft_edge_px), "--j", str(threads)]


def postprocess(
    relion: Relion, *, half1: str, half2: str, mask: str, pixel_size_angstrom: float, folder: str, seed: int = 1
) -> list[str]:
    """Two unfiltered half maps within a mask: FOLDER/post.star with all FSC curves.

    The output must lie in a folder: RELION writes a PDF into OUTPUT/.. and fails where there is none.
    """
    words = [relion.path("relion_postprocess"), "--i", half1, "--i2", half2, "--mask", mask]
    words += ["--angpix", _number(pixel_size_angstrom), "--random_seed", str(seed)]
    return [*words, "--o", f"{_folder(folder)}post"]


def local_resolution(
    relion: Relion,
    *,
    half1: str,
    half2: str,
    mask: str,
    pixel_size_angstrom: float,
    folder: str,
    diameter_angstrom: float,
    finest_angstrom: float,
) -> list[str]:
    """The resolution around each place: FOLDER/locres_locres.mrc, in Å.

    RELION's defaults are for maps finer than 10 Å; sampling, the sphere in which shells are compared, the coarsest
    value and the start of the random phases follow the particle here.

    Parameters
    ----------
    finest_angstrom : Nyquist of the map
    """
    words = [relion.path("relion_postprocess"), "--i", half1, "--i2", half2, "--mask", mask, "--locres"]
    words += ["--angpix", _number(pixel_size_angstrom), "--o", f"{_folder(folder)}locres"]
    sampling = max(diameter_angstrom / 8, 2 * pixel_size_angstrom)
    words += ["--locres_sampling", _number(sampling), "--locres_maskrad", _number(diameter_angstrom / 4)]
    words += ["--locres_edgwidth", _number(3 * pixel_size_angstrom)]
    words += [
        "--locres_randomize_at",
        _number(2.5 * finest_angstrom),
        "--locres_minres",
        _number(diameter_angstrom / 3),
    ]
    return words


def resampled_map(
    relion: Relion,
    *,
    volume: str,
    output: str,
    box_px: int | None = None,
    pixel_size_angstrom: float | None = None,
) -> list[str]:
    """A map in another box, or at another pixel size; one at a time, box first, since RELION rounds boxes to even."""
    if (box_px is None) == (pixel_size_angstrom is None):
        raise SettingsError("a map is given either a new box or a new pixel size by one command")
    words = [relion.path("relion_image_handler"), "--i", volume, "--o", output]
    if box_px is not None:
        return [*words, "--new_box", str(box_px)]
    assert pixel_size_angstrom is not None
    return [*words, "--rescale_angpix", _number(pixel_size_angstrom)]


def log_picker(program: str, options: Sequence[tuple[str, str]]) -> list[str]:
    """RELION's picker by the Laplacian of Gaussian."""
    return [program, "--LoG", *(word for pair in options for word in pair)]


def _image_model(diameter_angstrom: float, is_ctf_corrected: bool) -> list[str]:
    words = ["--particle_diameter", _number(MASK_DIAMETERS * diameter_angstrom)]
    words += ["--ctf"] if is_ctf_corrected else []
    words += ["--flatten_solvent", "--zero_mask", "--oversampling", "1", "--norm", "--scale"]
    return [*words, "--pad", str(PADDING)]


def _run_words(folder: str, seed: int, computing: Computing) -> list[str]:
    return [*computing.words(), "--random_seed", str(seed), "--pipeline_control", _folder(folder)]


def _folder(name: str) -> str:
    return name if name.endswith("/") else f"{name}/"


def _number(value: float) -> str:
    """Six digits, which RELION's own files have."""
    return f"{value:.6g}"
