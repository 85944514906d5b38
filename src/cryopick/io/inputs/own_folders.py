"""What cryopick itself wrote into a folder, so that a search for micrographs does not take it for input."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class _Output:
    """What one command leaves in its output folder.

    Parameters
    ----------
    what : in the words of a user
    has : names that are all there
    has_one : names of which at least one is there
    wrote : patterns of the names that hold pictures or tables and no micrographs of the user
    """

    what: str
    has: tuple[str, ...]
    has_one: tuple[str, ...]
    wrote: tuple[str, ...]


_RUN_PARTS = ("picks", "candidates", "records", "images", "model")
_OUTPUTS = (
    _Output("a picking run", ("config.toml",), ("records", "candidates", "run.log", "summary.json"), _RUN_PARTS),
    _Output(
        "a training",
        ("config.toml",),
        ("split.json", "loss.csv"),
        ("loss.png", "loss.csv", "validation.csv", "tensorboard"),
    ),
    _Output("simulated micrographs", ("simulation.json",), ("recipe.toml", "truth"), ("masks", "truth")),
    _Output("labels", ("labels.json",), ("masks", "instances"), ("masks", "instances", "ignore", "boxes")),
    _Output(
        "an evaluation",
        ("evaluation.json",),
        ("evaluation.md",),
        ("curve.png", "calibration.png", "curve.csv", "micrographs.csv", "evaluation.json"),
    ),
    _Output("a comparison", ("comparison.json",), ("comparison.md",), ("particles.csv", "comparison.json")),
    _Output(
        "a benchmark",
        ("benchmark.json",),
        ("benchmark.md",),
        ("scores.png", "curves-*.png", "runs", "benchmark.csv", "benchmark.json"),
    ),
)


def own_parts(names: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Of the names in one folder those that cryopick wrote there, and what they are of; ("", ()) where none.

    A user's own files beside them, as with `pick . -o .`, are none of them.
    """
    what: list[str] = []
    wrote: dict[str, None] = {}
    for output in _OUTPUTS:
        if all(name in names for name in output.has) and any(name in names for name in output.has_one):
            parts = [name for name in names if any(fnmatch(name, pattern) for pattern in output.wrote)]
            if parts:
                what.append(output.what)
                wrote |= dict.fromkeys(parts)
    return " and ".join(what), tuple(wrote)
