"""Simulated micrographs, in the order the electrons meet things."""

SIMULATION_VERSION = 1
"""Raised when the same settings and seed give other crops than before, so that kept crops of an older simulation are
never taken for those of today's; `tests/simulation/test_version.py` tells when it is due."""
