"""CTFFIND 4 and 5: found, asked as its questions come, and its table read.

The program asks for one answer after another on its standard input. Versions differ in the questions at the end only
(sample tilt from 4.1.15 on, sample thickness from 5 on), and "no" is right for each, so that one list of answers serves
all. The questions are those of cisTEM's `ctffind.cpp`; RELION (`ctffind_runner.cpp`) answers the same ones.

References
----------
Rohou and Grigorieff, CTFFIND4, J. Struct. Biol. 192 (2015).
Elferich et al., CTFFIND5, eLife 13 (2024).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.evaluation.ctf_estimation.fits import CtfFit, CtfSearch, Microscope, said_last
from cryopick.evaluation.relion_programs.failures import ProgramFailedError
from cryopick.evaluation.usage import NOT_STARTED, TIME_LIMIT, Limits, run_kept
from cryopick.io.files.text import read_text
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.mrc import compression_of, read_mrc_header, write_mrc
from cryopick.scale.processes import THREAD_VARIABLES

NAMES = ("ctffind", "ctffind4", "ctffind5")
VARIABLE = "RELION_CTFFIND_EXECUTABLE"
"""By which RELION is told where the program is."""
LEAST_CORRELATION = 0.03
"""The specification's; CTFFIND's own scores of good micrographs are several times this, and of noise below."""
SPECTRUM_PX = 512
ASTIGMATISM_ANGSTROM = 100.0
"""That is tolerated without a penalty (RELION's `--dAst`)."""
TIME_LIMIT_SECONDS = 1800.0
"""For one micrograph, which takes seconds."""
_PLAIN_MODES = (1, 2)
"""Of MRC files that every version reads alike: signed words and floats."""
IMAGE, DIAGNOSTIC, TABLE, ANSWERS, OUT = "micrograph.mrc", "spectrum.mrc", "spectrum.txt", "answers.txt", "said.txt"


@dataclass(frozen=True)
class Ctffind:
    """The program at a path; see `CtfEstimator`."""

    program: str

    @property
    def name(self) -> str:
        return f"CTFFIND ({self.program})"

    @property
    def least_correlation(self) -> float:
        return LEAST_CORRELATION

    def record(self) -> Mapping[str, object]:
        return {"program": self.program, "spectrum_px": SPECTRUM_PX, "astigmatism_angstrom": ASTIGMATISM_ANGSTROM}

    def estimate(self, image: Path, folder: Path, *, microscope: Microscope, search: CtfSearch) -> CtfFit:
        own = folder / IMAGE
        try:
            _as_plain_mrc(image, own)
            return self._estimate(image, folder, microscope=microscope, search=search)
        finally:
            own.unlink(missing_ok=True)

    def _estimate(self, image: Path, folder: Path, *, microscope: Microscope, search: CtfSearch) -> CtfFit:
        (folder / ANSWERS).write_text("\n".join(answers(microscope, search)) + "\n", encoding="utf-8")
        (folder / TABLE).unlink(missing_ok=True)
        out = folder / OUT
        usage = run_kept(
            ["sh", "-c", f'exec "$0" < {ANSWERS}', self.program],
            out=out,
            err=out,
            cwd=folder,
            limits=Limits(time_s=TIME_LIMIT_SECONDS),
            environment=dict.fromkeys(THREAD_VARIABLES, "1"),  # micrographs beside each other fill the cores
        )
        if usage.ended_by == TIME_LIMIT:
            raise ProgramFailedError(f"{image.name}: {self.program} took more than {TIME_LIMIT_SECONDS:g} s", "time")
        if usage.exit_code == NOT_STARTED or not os.access(self.program, os.X_OK):
            raise ProgramFailedError(f"{self.program}: cannot be started", "path")
        if not (folder / TABLE).is_file():
            raise ProgramFailedError(
                f"{image.name}: {self.program} ended with status {usage.exit_code} and wrote no table: {said_last(out)}"
            )
        try:
            return read_table(folder / TABLE)
        except (FormatError, InputError) as error:
            raise ProgramFailedError(f"{image.name}: {error}", "tables") from error


def find_ctffind(*, search_path: str | None = None, environment: Mapping[str, str] | None = None) -> Ctffind | None:
    """The program that RELION's variable names, or else one on the PATH; None where there is none.

    Raises
    ------
    SettingsError
        If the variable names what is no program.
    """
    told = (os.environ if environment is None else environment).get(VARIABLE, "")
    if told:
        path = shutil.which(told, path=search_path)
        if path is None:
            raise SettingsError(f"${VARIABLE} is {told}, which is no program; correct it, or unset it")
        return Ctffind(os.path.abspath(path))
    found = (shutil.which(name, path=search_path) for name in NAMES)
    path = next((one for one in found if one is not None), None)
    return None if path is None else Ctffind(os.path.abspath(path))


def answers(microscope: Microscope, search: CtfSearch) -> Sequence[str]:
    """What CTFFIND is told, one line a question, for the image `micrograph.mrc` of the folder that it runs in."""
    return (
        IMAGE,  # input image
        DIAGNOSTIC,  # output; the table has its name and .txt
        f"{search.pixel_size_angstrom:.6g}",  # Å
        f"{microscope.voltage_kv:.6g}",  # kV
        f"{microscope.spherical_aberration_mm:.6g}",  # mm
        f"{microscope.amplitude_contrast:.6g}",
        str(SPECTRUM_PX),
        f"{search.coarsest_angstrom:.6g}",  # Å
        f"{search.finest_angstrom:.6g}",
        f"{search.least_defocus_um * 1e4:.6g}",  # Å
        f"{search.most_defocus_um * 1e4:.6g}",
        f"{search.step_um * 1e4:.6g}",
        "no",  # is the astigmatism known?
        "yes",  # a slower, more exhaustive search? RELION's default, more accurate before 4.1.14
        "yes",  # a restraint on astigmatism?
        f"{ASTIGMATISM_ANGSTROM:.6g}",  # Å
        "no",  # an additional phase shift?
        "no",  # sample tilt? (4.1.15 and later; before: expert options)
        "no",  # sample thickness? (5 and later)
        "no",  # expert options?
    )


def read_table(path: Path) -> CtfFit:
    """The fit in CTFFIND's table of one micrograph: lines of comment, then one row.

    Its columns: number; defocus 1 and 2 in Å; azimuth in degrees; phase shift in rad; correlation; spacing in Å to
    which rings were fitted, `inf` where none was. CTFFIND 5 adds tilt and thickness, which are not read.

    Raises
    ------
    FormatError
        If it is no such table.
    """
    rows = [line.split() for line in read_text(path, what="CTFFIND's table").splitlines()]
    rows = [row for row in rows if row and not row[0].startswith("#")]
    try:
        (row,) = rows
        defocus_1, defocus_2, azimuth, phase, correlation, resolution = map(float, row[1:7])
    except ValueError as error:
        raise FormatError(
            f"{path.name}: expected one row of seven numbers or more (CTFFIND 4 or 5), got {len(rows)} rows"
            + (f", the first {' '.join(rows[0])[:80]!r}" if rows else "")
        ) from error
    return CtfFit(
        defocus_u_um=defocus_1 * 1e-4,
        defocus_v_um=defocus_2 * 1e-4,
        astigmatism_angle_deg=azimuth,
        phase_shift_deg=math.degrees(phase),
        correlation=correlation,
        resolution_angstrom=resolution,
    )


def _as_plain_mrc(image: Path, target: Path) -> None:
    """The image under a name that no program trips over: a link where CTFFIND reads it as we do, else a copy."""
    target.unlink(missing_ok=True)
    if image.suffix.lower() == ".mrc" and compression_of(image) is None:
        header = read_mrc_header(image)
        if header.mode in _PLAIN_MODES and header.shape_zyx[0] == 1:
            target.symlink_to(image.resolve())
            return
    micrograph = read_micrograph(image)
    write_mrc(target, micrograph.pixels, pixel_size_angstrom=micrograph.pixel_size_angstrom)
