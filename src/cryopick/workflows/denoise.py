"""Write denoised micrographs into a folder: by any denoiser, several at a time, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, InputError, RunFolderError, SettingsError
from cryopick.geometry.units import Length
from cryopick.io.coordinates.names import without_extension
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.folder_lock import LOCK_FILES, locked_folder
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.inputs.search import shown
from cryopick.io.inputs.sources import MicrographSource, find_micrographs, read_source
from cryopick.pickers.denoisers import Denoiser, find_denoiser
from cryopick.types import Micrograph

SETTINGS = "denoise.json"
"""What a folder of denoised micrographs says of how they were made."""
ImageKind = Literal["mrc", "tif", "png"]
KINDS: tuple[ImageKind, ...] = ("mrc", "tif", "png")
_EQUAL_SCALES = 0.002
"""Rows and columns shrunk by the same factor, up to whole pixels."""


@dataclass(frozen=True, kw_only=True)
class DenoiseSummary:
    """What a call came to.

    Parameters
    ----------
    micrographs, made : in the folder in the end, and of these by this call
    failed : why, by name
    warnings : sentences for the user
    """

    folder: Path
    micrographs: int
    made: int
    failed: dict[str, str]
    seconds: float
    warnings: tuple[str, ...] = ()


def denoise(
    micrographs: Sequence[str | Path],
    output: Path | str,
    *,
    method: str,
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    kind: ImageKind = "mrc",
    workers: int = 1,
    on_done: Callable[[str], None] | None = None,
) -> DenoiseSummary:
    """Denoise micrographs into files of the same names in `output`; the same call again makes only what is missing.

    Pixel sizes are kept, or grow where the denoiser shrinks the image. One micrograph that cannot be read does not
    stop the others.

    Parameters
    ----------
    micrographs : anything that `cryopick pick` takes
    method : a denoiser; see `cryopick.pickers.denoisers.denoisers`
    diameter : of a particle, for the methods that need it
    pixel_size_angstrom : above what files say
    kind : "mrc" holds the values as float32 with the pixel size; "tif" and "png" hold 8 bits and no pixel size
    workers : micrographs at a time; each takes about ten times the size of its pixels in memory
    on_done : called with each name as it is finished

    Raises
    ------
    SettingsError
        If the method is unknown, or the diameter is missing or not looked at.
    InputError
        If there are no micrographs.
    RunFolderError
        If the folder holds something else, other settings, or the micrographs themselves.
    """
    denoiser = find_denoiser(method)
    if kind not in KINDS:
        raise SettingsError(f"images of kind {kind!r} are not written; known: {', '.join(KINDS)}")
    if workers < 1:
        raise SettingsError(f"workers is {workers}, expected 1 or more")
    if denoiser.needs_diameter and diameter is None:
        raise SettingsError(f"method {method!r} needs the particle diameter: give --diameter (180A, 108px)")
    if not denoiser.needs_diameter and diameter is not None:
        raise SettingsError(f"method {method!r} does not look at the particle diameter; leave --diameter out")
    started, folder = time.monotonic(), Path(output)
    sources = find_micrographs(micrographs, exclude_folders=[folder])
    if not sources:
        raise InputError("no micrographs to denoise")
    paths = {source.name: folder / f"{without_extension(source.name)}.{kind}" for source in sources}
    _refuse_to_overwrite_sources(sources, paths)
    settings = {
        "method": method,
        "diameter": None if diameter is None else str(diameter),
        "pixel_size_angstrom": pixel_size_angstrom,
        "kind": kind,
        "shift_xy_px": list(denoiser.shift_xy_px),
    }
    job = _Job(denoiser, diameter, pixel_size_angstrom, kind)
    failed: dict[str, str] = {}
    doubted: dict[str, list[str]] = {}
    with _held_folder(folder, settings):
        missing = [source for source in sources if not _is_made(source, paths[source.name])]
        with ThreadPoolExecutor(workers) as pool:  # OpenCV and numpy work outside the interpreter's lock
            futures = {pool.submit(job.run, source, paths[source.name]): source for source in missing}
            try:
                for future in as_completed(futures):
                    name = futures[future].name
                    _note(future, name, failed, doubted)
                    if on_done is not None:
                        on_done(name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return DenoiseSummary(
        folder=folder,
        micrographs=len(sources) - len(failed),
        made=len(missing) - len(failed),
        failed=failed,
        seconds=time.monotonic() - started,
        warnings=tuple(f"{doubt} ({shown(sorted(names))})" for doubt, names in doubted.items()),
    )


@dataclass(frozen=True)
class _Job:
    """What is done with every micrograph."""

    denoiser: Denoiser
    diameter: Length | None
    pixel_size_angstrom: float | None
    kind: ImageKind

    def run(self, source: MicrographSource, path: Path) -> list[str]:
        """Write one; gives what the user should know of it."""
        micrograph = read_source(source, pixel_size_angstrom=self.pixel_size_angstrom)
        angstrom = micrograph.pixel_size_angstrom
        diameter_px = None if self.diameter is None else self.diameter.middle_px(angstrom)
        result = self.denoiser(micrograph.pixels, diameter_px=diameter_px)
        factors = [new / old for new, old in zip(result.shape, micrograph.pixels.shape, strict=True)]
        doubts = list(micrograph.warnings)
        if not np.isfinite(result).any() or np.nanmin(result) == np.nanmax(result):
            doubts.append("all pixels are equal, or no numbers; was the file written to its end?")
        if angstrom is not None and abs(factors[0] / factors[1] - 1) > _EQUAL_SCALES:
            doubts.append(
                "rows and columns are shrunk differently, so that there is no one pixel size, and none is written"
            )
            angstrom = None
        elif angstrom is not None:
            angstrom = angstrom / float(np.sqrt(factors[0] * factors[1]))
        made = Micrograph(_as_written(result, self.kind), source.name, pixel_size_angstrom=angstrom)
        write_micrograph(path, made, dtype="float32" if self.kind == "mrc" else "uint8")
        return doubts


def _as_written(result: NDArray[Any], kind: ImageKind) -> NDArray[np.float32]:
    """Floating values as they are into MRC files, and as 0 to 255 into the others."""
    if result.dtype == np.uint8 or kind == "mrc":
        return np.asarray(result, np.float32)
    return np.asarray(np.rint(255 * np.clip(result, 0.0, 1.0)), np.float32)


def _note(future: Future[list[str]], name: str, failed: dict[str, str], doubted: dict[str, list[str]]) -> None:
    try:
        doubts = future.result()
    except RunFolderError:
        raise
    except (CryopickError, MemoryError) as error:
        failed[name] = str(error) or "out of memory"
        return
    for doubt in doubts:
        doubted.setdefault(doubt, []).append(name)


def _is_made(source: MicrographSource, path: Path) -> bool:
    """Whether a result is there that is no older than its micrograph."""
    try:
        return path.stat().st_mtime >= source.path.stat().st_mtime
    except OSError:
        return False


def _refuse_to_overwrite_sources(sources: Sequence[MicrographSource], paths: dict[str, Path]) -> None:
    own = {source.path.resolve() for source in sources}
    for path in paths.values():
        if path.resolve() in own:
            raise RunFolderError(f"{path}: is a micrograph to be denoised; choose another folder with -o")


@contextmanager
def _held_folder(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Hold the folder for these settings.

    Raises
    ------
    RunFolderError
        If it holds something else, or micrographs denoised otherwise.
    """
    with locked_folder(folder):
        path = folder / SETTINGS
        if path.is_file():
            _compare(path, settings)
        elif any(one.name not in LOCK_FILES for one in folder.iterdir()):
            raise RunFolderError(
                f"{folder}: holds other files and no {SETTINGS}; choose a new folder for the denoised micrographs "
                "with -o"
            )
        else:
            write_text_atomic(path, json.dumps({"about": "cryopick denoise", **settings}, indent=1) + "\n")
        yield


def _compare(path: Path, settings: dict[str, Any]) -> None:
    stored = read_json_object(path, what="settings of cryopick denoise")
    differing = [
        f"{name} was {stored.get(name)}, is {value}" for name, value in settings.items() if stored.get(name) != value
    ]
    if differing:
        raise RunFolderError(
            f"{path.parent}: its micrographs were denoised otherwise ({'; '.join(differing)}); choose another folder "
            "with -o"
        )
