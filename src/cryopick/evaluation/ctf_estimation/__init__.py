"""The CTF of micrographs, estimated by programs of others: what is asked, what they answer, and which answers hold.

- `fits`: what is searched, what a fit says, and why one is refused
- `ctffind`: CTFFIND 4 or 5, a program on the PATH
- `torch_estimation`: the Python library torch-ctf-estimation, in a process of its own
- `thon_rings`: astigmatism from a power spectrum
- `choice`: which of them this machine has
"""

from cryopick.evaluation.ctf_estimation.choice import ctf_estimator
from cryopick.evaluation.ctf_estimation.fits import CtfEstimator, CtfFit, CtfSearch, Microscope, refusal, search_for

__all__ = [
    "CtfEstimator",
    "CtfFit",
    "CtfSearch",
    "Microscope",
    "ctf_estimator",
    "refusal",
    "search_for",
]
