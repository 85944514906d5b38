"""`set.json`, which tells of a set of labelled micrographs what its files do not say."""

from __future__ import annotations

SETTINGS_FILE = "set.json"
