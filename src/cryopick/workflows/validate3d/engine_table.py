"""All engines by name."""

from __future__ import annotations

from cryopick.errors import SettingsError
from cryopick.workflows.validate3d.engines import EmbeddedEngine, Engine, KnownEngine
from cryopick.workflows.validate3d.relion import RelionEngine

DEFAULT_ENGINE = "embedded"
ENGINES: dict[str, Engine] = {one.name: one for one in (KnownEngine(), EmbeddedEngine(), RelionEngine())}
ELSEWHERE = {"cryosparc": "cryoSPARC extracts and reconstructs by itself: `cryopick cryosparc RUN --maps FOLDER`"}
"""Names that are asked for, and where what they mean is."""


def engine_named(name: str) -> Engine:
    """The engine; an unknown name raises `SettingsError` listing the known ones."""
    if name in ELSEWHERE:
        raise SettingsError(f"engine {name!r}: {ELSEWHERE[name]}")
    if name not in ENGINES:
        raise SettingsError(f"engine {name!r} is unknown; known: {', '.join(ENGINES)}")
    return ENGINES[name]
