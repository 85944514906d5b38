"""The CTF of micrographs as RELION and cryoSPARC write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import CryopickError, FormatError
from cryopick.workflows.validate3d.ctf_tables import read_micrograph_optics

RELION_31 = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
1 300 2.7 0.1
2 200 1.4 0.07

data_micrographs

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnOpticsGroup #5
a.mrc 20000 19000 30 1
b.mrc 15000 15000 0 2

"""
RELION_30 = """
data_

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnPhaseShift #8
a.mrc 20000 19000 30 300 2.7 0.1 90

"""


def test_relion_s_table_is_read_with_each_micrograph_s_optics_group(tmp_path: Path) -> None:
    path = tmp_path / "micrographs_ctf.star"
    path.write_text(RELION_31)
    found = read_micrograph_optics(path)
    assert (found["a.mrc"].defocus_u_um, found["a.mrc"].defocus_v_um) == pytest.approx((2.0, 1.9))
    assert found["a.mrc"].astigmatism_angle_deg == 30
    assert (found["b.mrc"].voltage_kv, found["b.mrc"].spherical_aberration_mm) == (200, 1.4)
    assert found["b.mrc"].b_factor_angstrom2 == 0


def test_older_tables_hold_the_optics_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "old.star"
    path.write_text(RELION_30)
    (one,) = read_micrograph_optics(path).values()
    assert (one.voltage_kv, one.amplitude_contrast, one.phase_shift_deg) == (300, 0.1, 90)


def test_cryosparc_s_exposures_are_read_in_radians(tmp_path: Path) -> None:
    table = np.zeros(
        1,
        dtype=[
            ("micrograph_blob/path", "S40"), ("ctf/accel_kv", "f4"), ("ctf/cs_mm", "f4"), ("ctf/amp_contrast", "f4"),
            ("ctf/df1_A", "f4"), ("ctf/df2_A", "f4"), ("ctf/df_angle_rad", "f4"), ("ctf/phase_shift_rad", "f4"),
        ],
    )  # fmt: skip
    table[0] = (b"J1/motioncorrected/a.mrc", 300, 2.7, 0.1, 21000, 20000, np.pi / 6, 0)
    with (tmp_path / "exposures.cs").open("wb") as stream:
        np.save(stream, table)
    (one,) = read_micrograph_optics(tmp_path / "exposures.cs").values()
    assert one.defocus_u_um == pytest.approx(2.1)
    assert one.astigmatism_angle_deg == pytest.approx(30, abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        RELION_31.replace("_rlnVoltage", "_rlnVolts"),
        RELION_31.replace("0 2\n", "0 3\n"),
        RELION_31.replace("_rlnDefocusU", "_rlnDefocus"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "micrographs_ctf.star"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"rlnVoltage|optics group 3|rlnDefocusU"):
        read_micrograph_optics(path)


def test_a_damaged_file_of_exposures_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "exposures.cs").write_bytes(b"\x93NUMPY\x01\x00v\x00")
    with pytest.raises(CryopickError):
        read_micrograph_optics(tmp_path / "exposures.cs")
