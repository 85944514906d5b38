"""Where the real labelled micrographs lie that are not part of the repository; tests that need them skip without."""

from pathlib import Path

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "real"
