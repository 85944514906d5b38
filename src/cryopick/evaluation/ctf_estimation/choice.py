"""Which estimator of CTFs this machine has."""

from __future__ import annotations

from cryopick.errors import InputError
from cryopick.evaluation.ctf_estimation.ctffind import NAMES, VARIABLE, find_ctffind
from cryopick.evaluation.ctf_estimation.fits import CtfEstimator
from cryopick.evaluation.ctf_estimation.torch_estimation import MODULE, TorchCtfEstimation
from cryopick.extras import install_hint, is_installed


def ctf_estimator() -> CtfEstimator:
    """CTFFIND where it is, else the library where it is installed.

    Raises
    ------
    InputError
        If there is neither, naming the ways.
    SettingsError
        If RELION's variable names what is no program.
    """
    program = find_ctffind()
    if program is not None:
        return program
    if is_installed(MODULE):
        return TorchCtfEstimation()
    raise InputError(
        f"nothing here estimates the CTF of micrographs: put CTFFIND 4 or 5 on the PATH ({', '.join(NAMES)}, or "
        f"${VARIABLE}), or install torch-ctf-estimation ({install_hint('ctf')}), or give a table that another program "
        "made (--ctf micrographs_ctf.star)"
    )
