"""What holds for all tests."""

import os

from hypothesis import HealthCheck, settings

# A busy machine makes single examples slow; that says nothing about the code.
settings.register_profile("cryopick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cryopick")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers fill the cores; more threads in each, which torch starts by itself, would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
