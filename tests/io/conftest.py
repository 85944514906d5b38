"""Files without permission, also where the tests run as root."""

import os
import tempfile
from pathlib import Path

import pytest

_NOBODY = 65534


@pytest.fixture
def open_folder():
    """A folder that any user may enter and write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.fixture
def as_nobody(open_folder):
    """Run the test without root's right to everything; the test must ask for `open_folder` before this."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
