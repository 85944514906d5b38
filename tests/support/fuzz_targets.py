"""What is fuzzed: a row for every kind of file that cryopick reads. A new reader is one more row."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from cryopick.errors import InputError, OutputError, RunFolderError, SettingsError, TrainingError, WeightsError

Call = Callable[[Path, Random], object]


@dataclass(frozen=True)
class Target:
    """One row.

    Parameters
    ----------
    family : targets that are tried in one process
    make : fills an empty folder with healthy files
    files : the files to damage, by pattern, and the kind of damage (a key of `mutations.KINDS`)
    calls : each is given a path, and random numbers for choices of its own; wrong answers are `AssertionError`s
    is_one_file : the path is the damaged file, which the message of an exception must name; else it is the folder
    documented : exceptions that the calls may raise
    formats : names of `FORMATS` or of image families that the row stands for
    count : cases in the test; slow calls have fewer
    needs : a package without which the row is left out
    """

    name: str
    family: str
    make: Callable[[Path], None]
    files: Mapping[str, str]
    calls: tuple[Call, ...]
    documented: tuple[type[Exception], ...]
    formats: tuple[str, ...] = ()
    is_one_file: bool = False
    count: int = 60
    needs: str = ""


# ------------------------------------------------------------------------------------------------------------- images

_PIXELS = (np.arange(48 * 64).reshape(48, 64) * 7 % 251).astype("u1")
_COLOUR = np.stack([_PIXELS, _PIXELS[::-1], _PIXELS[:, ::-1]], axis=-1)


def _mrc(folder: Path) -> None:
    from cryopick.io.images.mrc import write_mrc

    for dtype in ("int8", "int16", "uint16", "float32", "float16"):
        write_mrc(folder / f"m_{dtype}.mrc", _PIXELS.astype("i2").astype(dtype), pixel_size_angstrom=1.5)
    plain = (folder / "m_int16.mrc").read_bytes()
    header = bytearray(plain[:1024])
    header[92:96] = (256).to_bytes(4, "little")
    (folder / "m_extended.mrc").write_bytes(bytes(header) + b"FEI1" * 64 + plain[1024:])
    header[92:96] = bytes(4)
    header[12:16] = (101).to_bytes(4, "little")
    (folder / "m_4bit.mrc").write_bytes(bytes(header) + _PIXELS[:, :32].tobytes())
    values = np.frombuffer(plain[:1024], "<i4").astype(">i4").tobytes()
    stamp = plain[208:212] + b"\x11\x11\0\0"
    swapped = values[:208] + stamp + values[216:]
    (folder / "m_big_endian.mrc").write_bytes(swapped + _PIXELS.astype(">i2").tobytes())


def _packed_mrc(folder: Path) -> None:
    _mrc(folder)
    for path in sorted(folder.glob("*.mrc")):
        pack, ending = (gzip.compress, "gz") if path.name < "m_f" else (bz2.compress, "bz2")
        path.with_name(f"{path.name}.{ending}").write_bytes(pack(path.read_bytes()))
        path.unlink()


def _tiff(folder: Path) -> None:
    import tifffile

    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "lzw": {"compression": "lzw", "predictor": True},
        "zlib": {"compression": "zlib", "rowsperstrip": 7},
        "zstd": {"compression": "zstd"},
        "jpeg": {"compression": "jpeg"},
        "big": {"bigtiff": True},
        "tiled": {"tile": (16, 16), "compression": "packbits"},
        "big_endian": {"byteorder": ">"},
        "ome": {"ome": True},
    }
    for name, options in kinds.items():
        tifffile.imwrite(folder / f"t_{name}.tif", _PIXELS, **options)
    tifffile.imwrite(folder / "t_float.tif", _PIXELS.astype("f4"))
    tifffile.imwrite(folder / "t_bits.tif", _PIXELS > 100)
    tifffile.imwrite(folder / "t_rgb.tif", _COLOUR, photometric="rgb")
    tifffile.imwrite(folder / "t_stack.tif", np.stack([_PIXELS] * 3), imagej=True)
    tifffile.imwrite(folder / "t_movie.eer", np.stack([_PIXELS] * 3))


def _raster(folder: Path, suffix: str, **kinds: tuple[Any, list[int]]) -> None:
    import cv2

    for name, (pixels, options) in kinds.items():
        cv2.imwrite(str(folder / f"r_{name}{suffix}"), pixels, options)


def _png(folder: Path) -> None:
    import cv2

    wide = _PIXELS.astype("u2") * 200
    alpha = np.concatenate([_COLOUR, _COLOUR[..., :1]], axis=-1)
    bits = [cv2.IMWRITE_PNG_BILEVEL, 1]
    _raster(folder, ".png", grey=(_PIXELS, []), wide=(wide, []), colour=(_COLOUR, []), alpha=(alpha, []))
    _raster(folder, ".png", bits=((_PIXELS > 100).astype("u1") * 255, bits))


def _jpeg(folder: Path) -> None:
    import cv2

    _raster(folder, ".jpg", grey=(_PIXELS, []), colour=(_COLOUR, []))
    _raster(folder, ".jpg", progressive=(_PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]))
    _raster(folder, ".jpg", restart=(_PIXELS, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]))


def probe_and_read(path: Path, random: Random) -> None:
    from cryopick.io.images.micrographs import probe_image, read_micrograph

    info = probe_image(path)
    assert min(info.shape_yx) > 0
    micrograph = read_micrograph(path)
    assert micrograph.shape_yx == info.shape_yx
    assert micrograph.pixels.dtype == np.float32
    size = micrograph.pixel_size_angstrom
    assert size is None or (np.isfinite(size) and size > 0), size


def inspect_file(path: Path, random: Random) -> None:
    from cryopick.workflows.inspect import inspect

    inspect(path)


def read_stack(path: Path, random: Random) -> None:
    from cryopick.io.images.mrc import read_mrc_stack

    assert read_mrc_stack(path)[0].ndim == 3


# -------------------------------------------------------------------------------------------------------- coordinates

_SHAPE_YX = (120, 160)


def _picks() -> list[Any]:
    from cryopick.types import Picks

    picks = []
    for number in (1, 2):
        random = np.random.default_rng(number)
        xy_px = random.uniform(5, 115, (12, 2)).round(2)
        picks.append(
            Picks(
                xy_px=xy_px,
                score=random.uniform(0, 1, 12).astype(np.float32),
                diameter_px=np.full(12, 20, np.float32),
                micrograph_name=f"micrographs/m{number}.mrc",
                shape_yx=_SHAPE_YX,
                pixel_size_angstrom=1.5,
            )
        )
    return picks


def _coordinates(format: str, *, is_folder: bool = False) -> Callable[[Path], None]:
    """Writes two micrographs' picks in a format, where it can hold two."""

    def make(folder: Path) -> None:
        from cryopick.io.coordinates.formats import FORMATS, write_picks

        entry = FORMATS[format]
        picks = _picks()[:1] if entry.is_per_micrograph and not is_folder else _picks()
        target = folder / "picks" if is_folder else folder / f"picks{entry.suffix}"
        if is_folder:
            target.mkdir()
        write_picks(picks, target, format=format, box_px=20, rows="relion")

    return make


def _text_file(name: str, text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(text)

    return make


_RELION_30 = """
data_

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnAutopickFigureOfMerit #4
_rlnDetectorPixelSize #5
_rlnMagnification #6
_rlnAngleRot #7
_rlnAngleTilt #8
_rlnAnglePsi #9
_rlnOriginX #10
_rlnOriginY #11
_rlnImagePixelSize #12
micrographs/m1.mrc 10.5 20.25 0.5 5.0 33333 10 20 30 0.5 -0.5 1.5
micrographs/m1.mrc 30.5 40.25 0.7 5.0 33333 10 20 30 0.5 -0.5 1.5
"micrographs/m 2.mrc" 50.5 60.25 0.9 5.0 33333 10 20 30 0.5 -0.5 1.5

"""
_RELION_31 = """# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnImagePixelSize #4
opticsGroup1 1 1.5 3.0
opticsGroup2 2 1.6 3.0


# version 30001

data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnOpticsGroup #4
_rlnAngleRot #5
_rlnAngleTilt #6
_rlnAnglePsi #7
_rlnOriginXAngst #8
_rlnOriginYAngst #9
_rlnClassNumber #10
MotionCorr/job002/m1.mrc 10.5 20.25 1 10 20 30 0.5 -0.5 1
MotionCorr/job002/m1.mrc 30.5 40.25 1 10 20 30 0.5 -0.5 1
MotionCorr/job002/m2.mrc 50.5 60.25 2 10 20 30 0.5 -0.5 2

"""
_MICROGRAPHS_STAR = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
opticsGroup1 1 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
micrographs/m1.mrc 1
micrographs/m2.mrc 1

"""
_COCO = {
    "images": [
        {"id": 1, "file_name": "m1.mrc", "width": 160, "height": 120},
        {"id": 2, "file_name": "a/m2.mrc", "width": 160, "height": 120},
    ],
    "categories": [{"id": 1, "name": "particle"}, {"id": 2, "name": "uncertain particle"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 20, 20], "score": 0.5, "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [30, 40, 20, 20], "segmentation": [[3, 4, 5, 6, 3, 6]]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [5, 5, 20, 20]},
    ],
}


def _source(folder: Path) -> Path:
    """The coordinate file or folder of a target."""
    return next(path for path in sorted(folder.iterdir()) if path.name.startswith(("picks", "particles")))


def read_coordinates(folder: Path, random: Random) -> None:
    from cryopick.io.coordinates.formats import read_picks

    for picks in read_picks(_source(folder), rows="relion").values():
        assert np.isfinite(picks.xy_px).all()
        assert picks.pixel_size_angstrom is None or 0 < picks.pixel_size_angstrom < np.inf


def read_with_sizes(folder: Path, random: Random) -> None:
    from cryopick.io.coordinates.formats import read_picks

    shapes_yx = dict.fromkeys(("m1", "m2", "picks"), _SHAPE_YX)
    for picks in read_picks(_source(folder), rows="flipped", shapes_yx=shapes_yx, pixel_size_angstrom=1.5).values():
        assert np.isfinite(picks.xy_px).all()


def read_as_labels(folder: Path, random: Random) -> None:
    from cryopick.data.labels import read_labels

    source = _source(folder)
    if source.suffix == ".cs":
        return  # labels are in formats that say where y starts
    for labels in read_labels(source).values():
        assert np.isfinite(labels.xy_px).all()
        assert labels.diameter_px is None or 0 < labels.diameter_px < np.inf


def inspect_coordinates(folder: Path, random: Random) -> None:
    from cryopick.workflows.inspect import inspect

    inspect(_source(folder))


def convert_to_any_format(folder: Path, random: Random) -> None:
    from cryopick.io.coordinates.formats import FORMATS
    from cryopick.workflows.convert import convert

    source = _source(folder)
    is_cs = source.suffix == ".cs"
    to = random.choice(list(FORMATS))
    target = folder / "converted"
    is_one_file = not FORMATS[to].is_per_micrograph and random.random() < 0.5
    target = target.with_suffix(FORMATS[to].suffix) if is_one_file else target
    flip_y = "no" if is_cs else None
    convert(source, target, to=to, flip_y=flip_y, box="20px", cs_rows="relion", pixel_size_angstrom=1.5)


def read_refined(path: Path, random: Random) -> None:
    from cryopick.io.structures.poses import read_poses

    for poses in read_poses(path).values():
        assert np.isfinite(poses.xy_px).all()
        assert np.isfinite(poses.rot_tilt_psi_deg).all()
        assert 0 < poses.pixel_size_angstrom < np.inf


_READ_COORDINATES = (read_coordinates, read_with_sizes, read_as_labels, inspect_coordinates, convert_to_any_format)
_DOCUMENTED_COORDINATES = (InputError, SettingsError, OutputError)


def _coordinate_row(name: str, make: Callable[[Path], None], files: Mapping[str, str], *formats: str) -> Target:
    calls, documented = _READ_COORDINATES, _DOCUMENTED_COORDINATES
    return Target(name, "coordinates", make, files, calls, documented, formats=formats)


# -------------------------------------------------------------------------------------- lists, data sets, simulations


def _two_micrographs(folder: Path) -> None:
    from discs import disc_micrograph

    from cryopick.io.images.micrographs import write_micrograph

    (folder / "micrographs").mkdir()
    for seed, name in enumerate(("m1.mrc", "m2.mrc")):
        write_micrograph(folder / "micrographs" / name, disc_micrograph(name, seed=seed))
        os.utime(folder / "micrographs" / name, ns=(10**18, 10**18))


def _lists(folder: Path) -> None:
    _two_micrographs(folder)
    (folder / "list.txt").write_text("# mine\nmicrographs/m1.mrc\nmicrographs/m2.mrc\n")
    (folder / "micrographs.star").write_text(_MICROGRAPHS_STAR)


def find_listed(folder: Path, random: Random) -> None:
    from cryopick.io.inputs.sources import find_micrographs

    for given in (f"@{folder / 'list.txt'}", str(folder / "micrographs.star")):
        names = [source.name for source in find_micrographs([given])]
        assert len(set(names)) == len(names)
        assert not any(os.path.isabs(name) or ".." in name.split("/") for name in names), names


def _labelled_folder(folder: Path) -> None:
    from cryopick.io.coordinates.formats import write_picks

    _two_micrographs(folder)
    for picks in _picks():
        name = Path(picks.micrograph_name)
        write_picks([picks], folder / "micrographs" / f"{name.stem}.csv", format="csv")
    settings = {"diameter_px": 20, "pixel_size_angstrom": 2.0, "labels": "complete", "protein": "discs"}
    (folder / "micrographs" / "set.json").write_text(json.dumps(settings))


def open_labelled(folder: Path, random: Random) -> None:
    from cryopick.data.datasets import open_dataset

    for item in open_dataset(folder / "micrographs"):
        assert item.diameter_px is None or 0 < item.diameter_px < np.inf
        assert item.pixel_size_angstrom is None or 0 < item.pixel_size_angstrom < np.inf
        assert item.completeness in ("complete", "sparse")


def inspect_labelled(folder: Path, random: Random) -> None:
    from cryopick.workflows.inspect import inspect

    inspect(folder / "micrographs")


def _exclusion_masks(folder: Path) -> None:
    _two_micrographs(folder)
    (folder / "masks").mkdir()
    _raster(folder / "masks", ".png", mask=(_PIXELS, []))
    (folder / "masks" / "r_mask.png").rename(folder / "masks" / "m1.png")


def pick_with_masks(path: Path, random: Random) -> None:
    from cryopick.workflows.pick import pick

    micrograph = path.parents[1] / "micrographs" / "m1.mrc"
    pick(micrograph, "blob", diameter="20px", exclusion_masks=path.parent)


def _simulation(folder: Path) -> None:
    from dataclasses import replace

    from cryopick.simulation.recipe import named_recipe
    from cryopick.simulation.series import SimulationSettings
    from cryopick.workflows.simulate import simulate

    recipe = replace(named_recipe("noise-light"), shape_yx=(256, 256), pixel_size_angstrom=4.0)
    settings = SimulationSettings(recipe=recipe, diameter_angstrom=(120.0, 120.0))
    simulate(folder / "simulation", settings, count=1)


def open_simulation(folder: Path, random: Random) -> None:
    from cryopick.data.datasets import open_dataset

    for item in open_dataset(folder / "simulation"):
        assert item.diameter_px is None or 0 < item.diameter_px < np.inf


def read_simulation_settings(folder: Path, random: Random) -> None:
    from cryopick.simulation.series import read_settings

    read_settings(folder / "simulation")


def finish_simulation(folder: Path, random: Random) -> None:
    from cryopick.simulation.series import read_settings
    from cryopick.workflows.simulate import simulate

    # one that needs no simulating, which takes long: only the tables are made again
    if all(path.is_file() for path in (folder / "simulation" / "truth").glob("*.json")):
        simulate(folder / "simulation", read_settings(folder / "simulation"), count=1)


def _recipes(folder: Path) -> None:
    from cryopick.simulation.published.segmentation_crf import segmentation_crf_recipe
    from cryopick.simulation.recipe import named_recipe, recipe_to_toml

    (folder / "general.toml").write_text(recipe_to_toml(named_recipe("clean")))
    (folder / "published.toml").write_text(recipe_to_toml(segmentation_crf_recipe()))


def read_recipe(folder: Path, random: Random) -> None:
    from cryopick.simulation.recipe_words import recipe_with

    for name in ("general.toml", "published.toml"):
        recipe_with(str(folder / name), defocus="1-2um")


_PDB_LINE = "{:6s}{:5d} {:^4s} ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}{:6.2f}{:6.2f}          {:>2s}\n"


def _structures(folder: Path) -> None:
    import gemmi

    lines = ["HEADER    PROTEIN\n", "CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1\n"]
    lines += ["REMARK 350 BIOMOLECULE: 1\n", "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"]
    lines += [
        f"REMARK 350   BIOMT{row}   {copy}{row == 1:10.6f}{row == 2:10.6f}{row == 3:10.6f}     {move:10.5f}\n"
        for copy, move in ((1, 0.0), (2, 10.0))
        for row in (1, 2, 3)
    ]
    lines += [
        _PDB_LINE.format("ATOM", n, name, n // 4 + 1, n * 1.5, n % 3, n % 5, 1.0, 20.0, name[0])
        for n, name in enumerate(("N", "CA", "C", "O") * 3, start=1)
    ]
    (folder / "s.pdb").write_text("".join([*lines, "END\n"]))
    structure = gemmi.read_structure(str(folder / "s.pdb"))
    structure.setup_entities()
    text = structure.make_mmcif_document().as_string()
    (folder / "s.cif").write_text(text)
    (folder / "s.cif.gz").write_bytes(gzip.compress(text.encode()))


def read_model(path: Path, random: Random) -> None:
    from cryopick.io.structures.structure import read_structure

    for assembly in ("first", "none"):
        model = read_structure(path, assembly=assembly)
        assert len(model) > 0
        assert np.isfinite(model.xyz_angstrom).all()
        assert np.isfinite(model.b_factor_angstrom2).all()
        assert ((model.occupancy > 0) & (model.occupancy <= 1)).all()


def structure_as_potential(path: Path, random: Random) -> None:
    from cryopick.simulation.specimens.specimen import volume_from_structure

    assert np.isfinite(volume_from_structure(path, 4.0).density).all()


def _maps(folder: Path) -> None:
    from cryopick.io.structures.volume import write_volume
    from cryopick.types import Volume

    z, y, x = np.mgrid[:12, :12, :12]
    density = np.exp(-((x - 6) ** 2 + (y - 6) ** 2 + (z - 6) ** 2) / 8).astype(np.float32)
    write_volume(folder / "v.mrc", Volume(density, 4.0))


def read_map(path: Path, random: Random) -> None:
    from cryopick.io.structures.volume import read_volume

    volume = read_volume(path)
    assert 0 < volume.voxel_size_angstrom < np.inf
    assert np.isfinite(volume.density).all()


def map_as_potential(path: Path, random: Random) -> None:
    from cryopick.simulation.specimens.specimen import volume_from_map

    assert np.isfinite(volume_from_map(path).density).all()


# ---------------------------------------------------------------------------------------------------------- run folder


def _run(folder: Path) -> None:
    """A run of the blob picker, which measures the diameter first, its threshold moved."""
    from cryopick.workflows.pick import pick
    from cryopick.workflows.rethreshold import rethreshold

    _two_micrographs(folder)
    (folder / "labels").mkdir()
    for name in ("m1", "m2"):
        (folder / "labels" / f"{name}.csv").write_text("x,y\n35,30\n80,85\n125,40\n")
    settings = {"diameter": "14-30px", "pixel_size_angstrom": 2.0}
    summary = pick(folder / "micrographs", "blob", output=folder / "run", workers=1, **settings)
    for record in (folder / "run" / "records").glob("*.json"):  # or the same seed would damage another digit
        record.write_text(re.sub(r'"seconds": [0-9.e-]+', '"seconds": 0.25', record.read_text()))
    rethreshold(folder / "run", summary.threshold)
    assert (folder / "run" / "prepared.toml").is_file()


_RUN_FILES = {
    "run/records/*.json": "json",
    "run/candidates/*.csv": "text",
    "run/prepared.toml": "toml",
    "run/config.toml": "toml",
    "run/threshold.json": "json",
    "run/summary.json": "json",
    "run/picks/*.star": "text",
    "run/*.star": "text",
}


def move_threshold(folder: Path, random: Random) -> None:
    from cryopick.workflows.rethreshold import rethreshold

    rethreshold(folder / "run", random.choice((None, 0.1, 5.0)))


def resume_run(folder: Path, random: Random) -> None:
    from cryopick.runs.settings import make_settings, read_config
    from cryopick.workflows.pick import pick_to_folder

    settings = make_settings(**read_config(folder / "run" / "config.toml"))
    if settings.picker.name == "blob":  # other pickers take long, and prepare
        pick_to_folder([folder / "micrographs"], folder / "run", settings, workers=1)


def convert_run(folder: Path, random: Random) -> None:
    from cryopick.workflows.convert import convert

    to = random.choice(("star", "box", "cbox", "csv", "coco", "cryosparc", "topaz", "eman-json"))
    source = random.choice((folder / "run", folder / "run" / "autopick.star", folder / "run" / "particles.star"))
    convert(source, folder / "converted", to=to, box="20px", cs_rows="relion")


def inspect_run(folder: Path, random: Random) -> None:
    from cryopick.workflows.inspect import inspect

    inspect(folder / "run")


def evaluate_run(folder: Path, random: Random) -> None:
    from cryopick.workflows.evaluate import evaluate

    evaluate(folder / "run", folder / "labels", diameter="20px")


def learn_from_run(folder: Path, random: Random) -> None:
    from cryopick.data.datasets import open_dataset

    open_dataset(folder / "run", micrographs=[folder / "micrographs"])


def _run_row(call: Call, *, count: int, documented: tuple[type[Exception], ...] = ()) -> Target:
    allowed = (RunFolderError, InputError, SettingsError, *documented)
    return Target(f"run/{call.__name__}", "run", _run, _RUN_FILES, (call,), allowed, count=count)


def _config(folder: Path) -> None:
    (folder / "config.toml").write_text(
        '[run]\npicker = "blob"\npixel_size_angstrom = 1.5\ncontrast = "dark"\nkeep_junk = false\n\n'
        '[selection]\nthreshold = 4.5\nmin_distance = "100A"\n\n[blob]\ndiameter = "150-180A"\n'
    )


def settings_from_config(folder: Path, random: Random) -> None:
    from cryopick.runs.settings import make_settings, read_config

    make_settings(**read_config(folder / "config.toml"))


# ------------------------------------------------------------------------------------------------ weights and training


def _shipped(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from cryopick.io.weights import PACKAGE_WEIGHTS

        _two_micrographs(folder)
        for ending in (".json", ".safetensors"):
            (folder / f"w{ending}").write_bytes((PACKAGE_WEIGHTS / f"{name}{ending}").read_bytes())

    return make


def _fresh(folder: Path, *names: str) -> Path:
    """Links to the files under names not used before, since loaded models are remembered by path."""
    global _fresh_count  # noqa: PLW0603  # a number of its own for every call in the process
    _fresh_count += 1
    place = folder / f"fresh-{_fresh_count}"
    place.mkdir()
    for name in names:
        os.link(folder / name, place / name)
    return place / names[0]


_fresh_count = 0


def load_weights(folder: Path, random: Random) -> None:
    from cryopick.io.weights import load_checkpoint

    load_checkpoint(folder / "w.safetensors")


def _pick_with(picker: str, **settings: Any) -> Call:
    def pick_with_weights(folder: Path, random: Random) -> None:
        from cryopick.workflows.pick import pick

        weights = _fresh(folder, "w.safetensors", "w.json")
        micrograph = folder / "micrographs" / "m1.mrc"
        picks = pick(micrograph, picker, diameter="20px", weights=weights, device="cpu", **settings)
        assert np.isfinite(picks.xy_px).all()

    return pick_with_weights


def _card_row(picker: str, *, count: int, **settings: Any) -> Target:
    calls = (load_weights, _pick_with(picker, **settings))
    files = {"w.json": "json"}
    return Target(f"card/{picker}", "weights", _shipped(picker), files, calls, (WeightsError,), count=count)


def _small_weights(folder: Path) -> None:
    import torch

    from cryopick.io.weights import ModelCard, save_checkpoint

    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3), "n": torch.tensor(5)}
    save_checkpoint(folder / "w.safetensors", tensors, ModelCard(picker="x", architecture={"network": "x", "n": 3}))


def load_small_weights(path: Path, random: Random) -> None:
    from cryopick.io.weights import load_checkpoint, read_tensors

    read_tensors(path.with_name("w.safetensors"))
    load_checkpoint(path.with_name("w.safetensors"), picker="x", architecture={"network": "x", "n": 3})


def _meta_sam(folder: Path) -> None:
    import torch
    from meta_checkpoint import meta_tensors
    from safetensors.torch import save_file

    tensors = meta_tensors()
    torch.save(tensors, folder / "sam.pth")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, folder / "sam.safetensors")


def load_meta_sam(path: Path, random: Random) -> None:
    from cryopick.pickers.cryosegnet.segmenter import load_segmenter

    load_segmenter(str(_fresh(path.parent, path.name)), device="cpu")


def _torch_files(folder: Path) -> None:
    """Checkpoints as other programs make them: weights alone, and a training's whole state."""
    from argparse import Namespace

    import torch

    network, _, optimizer = _toy_networks()
    torch.save(network.state_dict(), folder / "weights.pt")
    state = {
        "model": network.state_dict(), "optimizer": optimizer.state_dict(), "args": Namespace(lr=0.1, names={"a"}),
        "best": np.float64(0.5), "losses": np.arange(6.0).reshape(2, 3), "scale": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    torch.save(state, folder / "state.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)


def read_torch(path: Path, random: Random) -> None:
    from cryopick.io.torch_files import read_torch_file

    read_torch_file(_fresh(path.parent, path.name))


def _sam_folder(folder: Path) -> None:
    from meta_checkpoint import meta_tensors
    from safetensors.torch import save_file

    from cryopick.pickers.cryosegnet.sam_files import load_sam

    save_file(meta_tensors(), folder / "sam.safetensors")
    load_sam(str(folder / "sam.safetensors")).save_pretrained(folder / "sam")
    (folder / "sam.safetensors").unlink()


def load_sam_folder(folder: Path, random: Random) -> None:
    from cryopick.pickers.cryosegnet.segmenter import load_segmenter

    names = sorted(path.name for path in (folder / "sam").iterdir() if path.is_file())
    load_segmenter(str(_fresh(folder / "sam", *names).parent), device="cpu")


def load_own_sam(folder: Path, random: Random) -> None:
    from cryopick.pickers.cryosegnet.segmenter import load_segmenter

    load_segmenter(str(_fresh(folder, "w.safetensors", "w.json")), device="cpu")


def _toy_networks() -> tuple[Any, Any, Any]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    network, average = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3)) for _ in range(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    return network, average, optimizer


_FINGERPRINT = {"picker": "toy", "seed": 3}


def _training(folder: Path) -> None:
    from cryopick.training.state import Progress, save_state

    network, average, optimizer = _toy_networks()
    progress = Progress(step=4, seconds=2.5, best_score=0.5, best_step=2)
    save_state(
        folder / "state.safetensors", progress, model=network, average=average, optimizer=optimizer,
        fingerprint=_FINGERPRINT,
    )  # fmt: skip
    (folder / "loss.csv").write_text("step,loss,learning_rate\n1,0.5,0.001\n2,0.4,0.001\n3,0.3,0.001\n")
    (folder / "config.toml").write_text(
        '[train]\npicker = "general"\npreset = "small"\ndata = "simulation"\n\n'
        "[training]\nsteps = 40\nlearning_rate = 0.001\n"
    )


def resume_training(folder: Path, random: Random) -> None:
    from cryopick.training.state import load_state, read_progress

    network, average, optimizer = _toy_networks()
    progress = read_progress(folder / "state.safetensors", fingerprint=_FINGERPRINT)
    assert isinstance(progress.step, int)
    assert progress.step >= 0
    load_state(
        folder / "state.safetensors", model=network, average=average, optimizer=optimizer, fingerprint=_FINGERPRINT
    )
    assert all(value.shape == p.shape for p, s in optimizer.state.items() for n, value in s.items() if n != "step")


def read_loss_table(folder: Path, random: Random) -> None:
    from cryopick.training.logs import Table

    Table(folder / "loss.csv", keep_to_step=3).append({"step": 4, "loss": 0.2})


def plan_from_config(folder: Path, random: Random) -> None:
    from cryopick.workflows.train import resumed_plan

    resumed_plan(folder, None)


# ----------------------------------------------------------------------------------------------------------- the table

_IMAGES = (probe_and_read, inspect_file)

_ROWS = (
    Target("image/mrc", "images", _mrc, {"*.mrc": "mrc"}, (*_IMAGES, read_stack), (InputError,),
           formats=("MRC",), is_one_file=True, count=250),
    Target("image/packed-mrc", "images", _packed_mrc, {"*.gz": "mrc.gz", "*.bz2": "mrc.bz2"},
           (*_IMAGES, read_stack), (InputError,), formats=("MRC",), is_one_file=True, count=150),
    Target("image/tiff", "images", _tiff, {"*.tif": "tiff", "*.eer": "tiff"}, _IMAGES, (InputError,),
           formats=("TIFF", "EER"), is_one_file=True, count=300),
    Target("image/png", "images", _png, {"*.png": "png"}, _IMAGES, (InputError,),
           formats=("PNG",), is_one_file=True, count=250),
    Target("image/jpeg", "images", _jpeg, {"*.jpg": "bytes"}, _IMAGES, (InputError,),
           formats=("JPEG",), is_one_file=True, count=200),
    _coordinate_row("coordinates/star", _coordinates("star"), {"picks.star": "text"}, "star"),
    _coordinate_row("coordinates/star-list", _coordinates("star", is_folder=True), {"picks/*": "text"}, "star"),
    _coordinate_row("coordinates/star-3.0", _text_file("particles.star", _RELION_30), {"*.star": "text"}, "star"),
    _coordinate_row("coordinates/star-3.1", _text_file("particles.star", _RELION_31), {"*.star": "text"}, "star"),
    _coordinate_row("coordinates/box", _coordinates("box"), {"*.box": "text"}, "box"),
    _coordinate_row("coordinates/cbox", _coordinates("cbox"), {"*.cbox": "text"}, "cbox"),
    _coordinate_row("coordinates/eman-json", _coordinates("eman-json"), {"*.json": "json"}, "eman-json"),
    _coordinate_row("coordinates/topaz", _coordinates("topaz"), {"*.txt": "text"}, "topaz"),
    _coordinate_row("coordinates/coco", _coordinates("coco"), {"*.json": "json"}, "coco"),
    _coordinate_row("coordinates/coco-of-others", _text_file("picks.json", json.dumps(_COCO)), {"*": "json"}, "coco"),
    _coordinate_row("coordinates/csv", _coordinates("csv"), {"*.csv": "text"}, "csv"),
    Target("coordinates/cryoppp", "coordinates", _coordinates("cryoppp"), {"*.csv": "text"}, (read_with_sizes,),
           _DOCUMENTED_COORDINATES, formats=("cryoppp",)),
    _coordinate_row("coordinates/cs", _coordinates("cryosparc"), {"*.cs": "npy"}, "cryosparc"),
    _coordinate_row("coordinates/folder", _coordinates("csv", is_folder=True), {"picks/*.csv": "text"}, "csv"),
    Target("poses/3.0", "tables", _text_file("particles.star", _RELION_30), {"*.star": "text"}, (read_refined,),
           (InputError, SettingsError), is_one_file=True, count=150),
    Target("poses/3.1", "tables", _text_file("particles.star", _RELION_31), {"*.star": "text"}, (read_refined,),
           (InputError, SettingsError), is_one_file=True, count=150),
    Target("lists", "tables", _lists, {"list.txt": "text", "micrographs.star": "text"}, (find_listed,),
           (InputError,), count=150),
    Target("labelled-folder", "tables", _labelled_folder,
           {"*/set.json": "json", "*/*.csv": "text"}, (open_labelled, inspect_labelled),
           (InputError, SettingsError), count=60),
    Target("exclusion-masks", "tables", _exclusion_masks, {"masks/*": "png"}, (pick_with_masks,), (InputError,),
           is_one_file=True, count=40),
    Target("simulation", "tables", _simulation,
           {"*/simulation.json": "json", "*/recipe.toml": "toml", "*/truth/*.json": "json", "*/set.json": "json",
            "*/truth/*.star": "text", "*/micrographs/*.csv": "text", "*/particles.star": "text"},
           (open_simulation, read_simulation_settings, finish_simulation),
           (InputError, SettingsError, RunFolderError), count=40),
    Target("recipes", "tables", _recipes, {"*.toml": "toml"}, (read_recipe,), (InputError, SettingsError), count=150),
    Target("structures", "tables", _structures, {"s.pdb": "text", "s.cif": "text", "s.cif.gz": "text.gz"},
           (read_model, structure_as_potential), (InputError, SettingsError), is_one_file=True, count=150),
    Target("maps", "tables", _maps, {"v.mrc": "mrc"}, (read_map, map_as_potential),
           (InputError, SettingsError), is_one_file=True, count=150),
    Target("config", "tables", _config, {"config.toml": "toml"}, (settings_from_config,), (InputError, SettingsError),
           count=150),
    _run_row(move_threshold, count=40),
    _run_row(resume_run, count=40),
    _run_row(convert_run, count=60),
    _run_row(inspect_run, count=60),
    _run_row(evaluate_run, count=30),
    _run_row(learn_from_run, count=40),
    Target("weights", "weights", _small_weights, {"w.json": "json", "w.safetensors": "safetensors"},
           (load_small_weights,), (WeightsError,), is_one_file=True, count=150),
    _card_row("general", count=8),
    _card_row("cryotransformer", count=6),
    _card_row("cryoemmae", count=6),
    _card_row("segmentation-crf", count=6),
    _card_row("cryosegnet", count=6, segmenter="none"),
    Target("training", "weights", _training,
           {"state.safetensors": "safetensors", "loss.csv": "text", "config.toml": "toml"},
           (resume_training, read_loss_table, plan_from_config),
           (WeightsError, RunFolderError, InputError, SettingsError, TrainingError), count=60),
    Target("torch files", "weights", _torch_files, {"weights.pt": "zip", "state.pth": "zip", "old.pth": "bytes"},
           (read_torch,), (WeightsError,), is_one_file=True, count=120),
    Target("sam/files", "sam", _meta_sam, {"*.safetensors": "safetensors", "sam.pth": "zip", "old.pt": "bytes"},
           (load_meta_sam,), (WeightsError,), is_one_file=True, count=24, needs="transformers"),
    Target("sam/folder", "sam", _sam_folder, {"sam/config.json": "json", "sam/*.safetensors": "safetensors"},
           (load_sam_folder,), (WeightsError,), count=8, needs="transformers"),
    Target("sam/own", "sam", _shipped("cryosegnet_sam"), {"w.json": "json"}, (load_own_sam,), (WeightsError,),
           count=5, needs="transformers"),
)  # fmt: skip

TARGETS: dict[str, Target] = {row.name: row for row in _ROWS}
FAMILIES = tuple(dict.fromkeys(row.family for row in _ROWS))
