"""The library torch-ctf-estimation, which needs PyTorch: one process a micrograph, so that one that dies costs itself.

Of the library are the mean power spectrum and the defocus of its rotational average; the rest is `thon_rings`.

`python -m` of this module takes a file with what is asked, as JSON, and the file for the answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, FormatError
from cryopick.evaluation.ctf_estimation.fits import PIXELS_OF_FINEST, CtfFit, CtfSearch, Microscope, said_last
from cryopick.evaluation.ctf_estimation.thon_rings import fit_rings
from cryopick.evaluation.relion_programs.failures import ProgramFailedError
from cryopick.evaluation.usage import Limits, run_kept
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import read_micrograph
from cryopick.scale.processes import THREAD_VARIABLES, python_command

MODULE = "torch_ctf_estimation"
LEAST_CORRELATION = 0.04
"""Noise alone reaches 0.03 on 1024 x 1024 px (`benchmarks/ctf_estimation.py`), and less on larger micrographs."""
FITTED_PIXEL_ANGSTROM = 3.0
"""To which finer images are binned, for a fraction of the time. On four simulated micrographs defocus was then off by
27 to 77 Å, and by 2 to 34 Å with pixels of 1.5 Å: at 4 Å and 300 kV a period of the rings takes 1,600."""
PATCH_PX = 256
TIME_LIMIT_SECONDS = 1800.0
ASKED, ANSWER, OUT = "asked.json", "answer.json", "said.txt"


@dataclass(frozen=True)
class TorchCtfEstimation:
    """See `CtfEstimator`."""

    @property
    def name(self) -> str:
        return "torch-ctf-estimation"

    @property
    def least_correlation(self) -> float:
        return LEAST_CORRELATION

    def record(self) -> Mapping[str, object]:
        return {"program": self.name, "fitted_pixel_angstrom": FITTED_PIXEL_ANGSTROM, "patch_px": PATCH_PX}

    def estimate(self, image: Path, folder: Path, *, microscope: Microscope, search: CtfSearch) -> CtfFit:
        asked, answer, out = folder / ASKED, folder / ANSWER, folder / OUT
        content = {"image": str(image.absolute()), "microscope": asdict(microscope), "search": asdict(search)}
        write_text_atomic(asked, json.dumps(content) + "\n")
        answer.unlink(missing_ok=True)
        usage = run_kept(
            python_command(__spec__.name, str(asked.absolute()), str(answer.absolute())),
            out=out,
            err=out,
            limits=Limits(time_s=TIME_LIMIT_SECONDS),
            environment=dict.fromkeys(THREAD_VARIABLES, "1"),  # micrographs beside each other fill the cores
        )
        if not answer.is_file():
            why = f"took more than {TIME_LIMIT_SECONDS:g} s" if usage.ended_by else f"failed: {said_last(out)}"
            raise ProgramFailedError(f"{image.name}: {self.name} {why}")
        return CtfFit(**read_json_object(answer, what="a fit of the CTF"))


def fit_of_pixels(pixels: np.ndarray[Any, Any], *, microscope: Microscope, search: CtfSearch) -> CtfFit:
    """Fit a micrograph here and now.

    Parameters
    ----------
    pixels : (h, w) float, as stored; pixels that are no numbers count as the mean

    Raises
    ------
    FormatError
        If the image is even, or no number at all.
    """
    is_finite = np.isfinite(pixels)
    if not is_finite.any() or np.ptp(pixels[is_finite]) == 0:
        raise FormatError("the image is even, so that its spectrum says nothing")
    import torch
    from torch_ctf_estimation import CTFFittingParams, OpticalParams, estimate_ctf

    fitted_angstrom = max(search.pixel_size_angstrom, FITTED_PIXEL_ANGSTROM)
    finest_angstrom = max(search.finest_angstrom, PIXELS_OF_FINEST * fitted_angstrom)
    fitted_search = replace(search, pixel_size_angstrom=fitted_angstrom, finest_angstrom=finest_angstrom)
    filled = np.where(is_finite, pixels, pixels[is_finite].mean()).astype(np.float32)
    spectrum, of_average, _ = estimate_ctf(
        torch.from_numpy(filled),
        OpticalParams(
            pixel_spacing_angstroms=search.pixel_size_angstrom,
            voltage_kev=microscope.voltage_kv,
            spherical_aberration_mm=microscope.spherical_aberration_mm,
            amplitude_contrast_fraction=microscope.amplitude_contrast,
            target_pixel_spacing_angstroms=FITTED_PIXEL_ANGSTROM,
        ),
        CTFFittingParams(
            defocus_grid_resolution=(1, 1, 1),
            frequency_fit_range_angstroms=(search.coarsest_angstrom, finest_angstrom),
            defocus_range_microns=(search.least_defocus_um, search.most_defocus_um),
            patch_sidelength=PATCH_PX,
            n_iterations_2d=1,  # what follows does this better, and in a tenth of the time
        ),
    )
    decay = of_average.ctf_model.envelope_B
    return fit_rings(
        spectrum.detach().cpu().numpy(),
        pixel_size_angstrom=fitted_angstrom,
        start_um=float(of_average.ctf_model.defocus_um),
        decay_angstrom2=0.0 if decay is None else float(decay),
        microscope=microscope,
        search=fitted_search,
    )


def main(asked: Path, answer: Path) -> int:
    """Answer one question; what went wrong is said on stderr."""
    try:
        content = read_json_object(asked, what="what is asked of an estimator")
        micrograph = read_micrograph(content["image"])
        fit = fit_of_pixels(
            micrograph.pixels,
            microscope=Microscope(**content["microscope"]),
            search=CtfSearch(**content["search"]),
        )
    except CryopickError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    write_text_atomic(answer, json.dumps(asdict(fit)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
