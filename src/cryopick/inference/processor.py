"""Which numbers this CPU multiplies fast, as it says itself."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

INT8_UNITS = frozenset({"avx512_vnni", "avx_vnni"})
"""What Linux calls instructions that multiply 8-bit integers and add into 32 bits, so that nothing is cut off."""
BFLOAT16_UNITS = frozenset({"avx512_bf16", "amx_bf16"})


def multiplies_int8() -> bool:
    """Whether 8-bit integers are multiplied exactly and fast (VNNI)."""
    return bool(INT8_UNITS & cpu_flags())


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 is multiplied, not emulated."""
    return bool(BFLOAT16_UNITS & cpu_flags())


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """What the CPU can, in Linux's words; empty where nobody says, as on other systems."""
    lines = _cpu_lines("flags")
    return frozenset(lines[0].split()) if lines else frozenset()


def cpu_model() -> str:
    """What the CPU calls itself; `unknown` where nobody says."""
    named = [" ".join(line.split()) for line in _cpu_lines("model name")]
    return next(filter(None, [*named, platform.processor(), platform.machine()]), "unknown")


def _cpu_lines(name: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == name]
