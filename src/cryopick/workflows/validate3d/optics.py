"""Where the CTF of the micrographs comes from: a table, the simulation, an estimate, or, said aloud, nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryopick.errors import InputError
from cryopick.evaluation.ctf_estimation import CtfFit
from cryopick.evaluation.scored_sets import some_names
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.star import make_table, write_star
from cryopick.processing.ctf import CtfParameters
from cryopick.workflows.validate3d.ctf_tables import read_micrograph_optics
from cryopick.workflows.validate3d.picks import Image

RELION_VERSION = 30001
NONE, ESTIMATE = "none", "estimate"
"""What `--ctf` takes besides a file."""


def no_ctf_text(names: Sequence[str]) -> str:
    """What is said where nothing tells the CTF."""
    return (
        f"no CTF is known of {len(names)} micrographs ({some_names(names)}), and a map needs it; give RELION's "
        "micrographs_ctf.star or cryoSPARC's exposures (--ctf FILE), have it estimated (--ctf estimate --voltage 300), "
        "give the simulation (--truth SIM), or, for negative stain, say that nothing is to be corrected (--ctf none)"
    )


def optics_from_file(path: Path, images: Sequence[Image]) -> list[CtfParameters]:
    """The CTF of each image from a table of RELION or cryoSPARC.

    Raises
    ------
    InputError
        If an image is not in the table.
    """
    known = read_micrograph_optics(path)
    found = match_micrograph_names([one.name for one in images], known)
    missing = [one.name for one in images if one.name not in found]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(images)} micrographs are not in it: {some_names(missing)}; it names "
            f"{some_names(known)}; to validate on those alone, give them (--micrographs)"
        )
    return [known[found[one.name]] for one in images]


def write_micrographs_ctf(
    path: Path,
    images: Sequence[Image],
    optics: Sequence[CtfParameters] | None,
    *,
    fits: Sequence[CtfFit] = (),
) -> None:
    """RELION's `micrographs_ctf.star`, its micrographs named `micrographs/NAME` below the validation's folder.

    Without optics the table has no CTF columns, as RELION reads micrographs that are not to be corrected. `fits` add
    how good an estimate is: rlnCtfFigureOfMerit, and rlnCtfMaxResolution where all of them say it.
    """
    groups: list[tuple[float, float, float, float]] = []
    numbers = []
    for number, image in enumerate(images):
        one = None if optics is None else optics[number]
        key = (
            (300.0, 2.7, 0.1, image.pixel_size_angstrom)
            if one is None
            else (one.voltage_kv, one.spherical_aberration_mm, one.amplitude_contrast, image.pixel_size_angstrom)
        )
        if key not in groups:
            groups.append(key)
        numbers.append(groups.index(key) + 1)
    values = np.array(groups)
    tables = [
        make_table(
            "optics",
            {
                "rlnOpticsGroupName": [f"opticsGroup{number + 1}" for number in range(len(groups))],
                "rlnOpticsGroup": np.arange(1, len(groups) + 1),
                "rlnVoltage": values[:, 0],
                "rlnSphericalAberration": values[:, 1],
                "rlnAmplitudeContrast": values[:, 2],
                "rlnMicrographOriginalPixelSize": values[:, 3],
                "rlnMicrographPixelSize": values[:, 3],
            },
        )
    ]
    columns: dict[str, object] = {"rlnMicrographName": [f"micrographs/{linked_name(one)}" for one in images]}
    if optics is not None:
        columns |= {
            "rlnDefocusU": np.array([one.defocus_u_um for one in optics]) * 1e4,
            "rlnDefocusV": np.array([one.defocus_v_um for one in optics]) * 1e4,
            "rlnDefocusAngle": np.array([one.astigmatism_angle_deg for one in optics]),
            "rlnPhaseShift": np.array([one.phase_shift_deg for one in optics]),
            "rlnCtfBfactor": np.array([one.b_factor_angstrom2 for one in optics]),
        }
    if fits:
        columns["rlnCtfFigureOfMerit"] = np.array([one.correlation for one in fits])
        reached = [one.resolution_angstrom for one in fits]
        if None not in reached:
            columns["rlnCtfMaxResolution"] = np.array(reached, dtype=np.float64)
    columns["rlnOpticsGroup"] = np.array(numbers, dtype=np.int64)
    tables.append(make_table("micrographs", columns))  # type: ignore[arg-type]
    write_star(path, tables, version=RELION_VERSION)


def linked_name(image: Image) -> str:
    """The name of a micrograph's link below `micrographs/`: its own with its file's ending."""
    suffix = image.path.suffix
    return image.name if image.name.endswith(suffix) else image.name + suffix
