"""The contrast transfer function of each micrograph, from the tables of RELION and cryoSPARC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import FormatError
from cryopick.evaluation.ctf_estimation import Microscope
from cryopick.io.star import StarTable, read_star
from cryopick.processing.ctf import CtfParameters

_OPTICS = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
_EXPOSURE = {
    "voltage_kv": "ctf/accel_kv",
    "spherical_aberration_mm": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "df1": "ctf/df1_A",
    "df2": "ctf/df2_A",
    "angle": "ctf/df_angle_rad",
}


def read_micrograph_optics(path: Path | str) -> dict[str, CtfParameters]:
    """The CTF of each micrograph by its name.

    Parameters
    ----------
    path : RELION's `micrographs_ctf.star`, 3.0 to 5, or the exposures of cryoSPARC (`.cs`) after its CTF estimation

    Raises
    ------
    InputError
        If the file cannot be read.
    FormatError
        If it is no table of micrographs with defocus, voltage, spherical aberration and amplitude contrast.
    """
    path = Path(path)
    return _of_exposures(path) if path.suffix.lower() == ".cs" else _of_star(path)


def read_microscopes(path: Path) -> dict[str, Microscope]:
    """Voltage, spherical aberration and amplitude contrast of each micrograph that a STAR file lists, by its name.

    {} where the file does not say all three.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    tables = read_star(path)
    table = next((one for one in tables.values() if "rlnMicrographName" in one), None)
    if table is None or not len(table):
        return {}
    groups = tables.get("optics", table)
    if any(label not in table and label not in groups for label in _OPTICS.values()):
        return {}
    columns = {name: _optics_column(path, tables, table, label) for name, label in _OPTICS.items()}
    return {
        name: Microscope(**{key: float(values[row]) for key, values in columns.items()})
        for name, row in _first_rows(table).items()
    }


def _of_star(path: Path) -> dict[str, CtfParameters]:
    tables = read_star(path)
    table = next((one for one in tables.values() if "rlnMicrographName" in one), None)
    if table is None or "rlnDefocusU" not in table:
        raise FormatError(
            f"{path}: expected a table of micrographs with rlnMicrographName and rlnDefocusU, as RELION's CtfFind job "
            "writes micrographs_ctf.star"
        )
    rows = _first_rows(table)
    optics = {name: _optics_column(path, tables, table, label) for name, label in _OPTICS.items()}
    u, v = table.floats("rlnDefocusU"), table.floats("rlnDefocusV" if "rlnDefocusV" in table else "rlnDefocusU")
    angle = table.floats("rlnDefocusAngle") if "rlnDefocusAngle" in table else np.zeros(len(table))
    phase = table.floats("rlnPhaseShift") if "rlnPhaseShift" in table else np.zeros(len(table))
    b_factor = table.floats("rlnCtfBfactor") if "rlnCtfBfactor" in table else np.zeros(len(table))
    return {
        name: CtfParameters(
            defocus_u_um=float(u[row]) * 1e-4,
            defocus_v_um=float(v[row]) * 1e-4,
            astigmatism_angle_deg=float(angle[row]),
            phase_shift_deg=float(phase[row]),
            b_factor_angstrom2=float(b_factor[row]),
            **{key: float(values[row]) for key, values in optics.items()},
        )
        for name, row in rows.items()
    }


def _first_rows(table: StarTable) -> dict[str, int]:
    """The first row of each micrograph; tables of particles name one many times."""
    rows: dict[str, int] = {}
    for row, name in enumerate(table.text("rlnMicrographName")):
        rows.setdefault(name, row)
    return rows


def _optics_column(path: Path, tables: dict[str, StarTable], table: StarTable, label: str) -> Any:
    """(n,) a value of each row, its own (3.0) or that of its optics group (3.1 and later)."""
    if label in table:
        return table.floats(label)
    groups = tables.get("optics")
    if groups is None or label not in groups or "rlnOpticsGroup" not in table:
        raise FormatError(f"{path}: says no {label}, neither beside the micrographs nor by optics group; add it")
    known = dict(zip(groups.ints("rlnOpticsGroup").tolist(), groups.floats(label).tolist(), strict=True))
    used = table.ints("rlnOpticsGroup").tolist()
    unknown = sorted(set(used) - set(known))
    if unknown:
        raise FormatError(f"{path}: optics group {unknown[0]} is used but not in data_optics; add it there")
    return np.array([known[group] for group in used])


def _of_exposures(path: Path) -> dict[str, CtfParameters]:
    try:
        table = np.load(path, allow_pickle=False)
        names = [str(one, "utf-8") if isinstance(one, bytes) else str(one) for one in table["micrograph_blob/path"]]
        columns = {key: np.asarray(table[label], np.float64) for key, label in _EXPOSURE.items()}
    except (ValueError, IndexError, TypeError, OSError, EOFError) as error:
        raise FormatError(
            f"{path}: not the exposures of cryoSPARC after CTF estimation ({str(error)[:100]}); expected columns "
            f"micrograph_blob/path and {', '.join(_EXPOSURE.values())}"
        ) from error
    has_phase = "ctf/phase_shift_rad" in (table.dtype.names or ())
    phase = np.asarray(table["ctf/phase_shift_rad"], np.float64) if has_phase else np.zeros(len(names))
    return {
        name: CtfParameters(
            defocus_u_um=float(columns["df1"][row]) * 1e-4,
            defocus_v_um=float(columns["df2"][row]) * 1e-4,
            astigmatism_angle_deg=float(np.degrees(columns["angle"][row])),
            voltage_kv=float(columns["voltage_kv"][row]),
            spherical_aberration_mm=float(columns["spherical_aberration_mm"][row]),
            amplitude_contrast=float(columns["amplitude_contrast"][row]),
            phase_shift_deg=float(np.degrees(phase[row])),
        )
        for row, name in enumerate(names)
    }
