"""Sessions that tests follow: a clock that they move, who picks without a process, folders file by file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryopick.runs.following.options import WatchOptions
from cryopick.runs.one import PickWorker
from cryopick.runs.settings import PickSettings
from cryopick.runs.workers import Workforce
from cryopick.scale.executor import entry_of
from cryopick.scale.places import open_executor
from cryopick.types import Micrograph
from cryopick.workflows.watch import Watch

NOT_COMPARED = ("run.log", "command.txt", ".lock", ".owner")
TIMES = ("seconds", "started", "ended", "inode")


class FakeClock:
    """Time passes only in pauses, and then what was planned for it happens."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.plans: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Plan something for so many seconds after the beginning."""
        self.plans.append((1000.0 + seconds, len(self.plans), action))
        self.plans.sort(key=lambda plan: plan[:2])

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += max(seconds, 0.01)
        while self.plans and self.plans[0][0] <= self.time:
            self.plans.pop(0)[2]()


class InThisProcess(Workforce):
    """A workforce without processes."""

    def open(self, plan, *, tasks):
        del tasks
        return open_executor(entry=entry_of(PickWorker), state=plan)


def follow(
    given: Path,
    output: str | Path,
    settings: PickSettings,
    *,
    clock: FakeClock | None = None,
    heard: list | None = None,
    **options,
) -> tuple[Watch, list]:
    """Follow a session in this process to its end; gives what was heard of it."""
    options = {"poll_s": 2.0, "quiet_s": 4.0, "stop_idle_s": 60.0, "summary_every_s": 40.0, **options}
    session = Watch(
        given, output, settings, WatchOptions(**options), workforce=InThisProcess(), clock=clock or FakeClock()
    )
    heard = [] if heard is None else heard
    session.run(heard.append)
    return session, heard


def told(heard, kind: str) -> list:
    """The events of one kind."""
    return [event for event in heard if event.kind == kind]


def files_of(run: Path) -> dict[str, bytes]:
    """Every file of a final run folder, without durations and times of day."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or path.name in NOT_COMPARED:
            continue
        data = path.read_bytes()
        if name.startswith("records/") or name == "summary.json":
            data = json.dumps({key: value for key, value in json.loads(data).items() if key not in TIMES}).encode()
        if name == "micrographs.star":
            data = _without_seconds(data.decode()).encode()
        found[name] = data
    return found


def _without_seconds(text: str) -> str:
    """A table without its column of durations."""
    column = int(re.search(r"_cryopickSeconds #(\d+)", text).group(1)) - 1
    lines = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > column and not line.startswith(("_", "#", "data_", "loop_")):
            words[column] = "-"
            line = " ".join(words)  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines)


def require_same_run(one: Path, other: Path) -> None:
    """Fail where two run folders differ in a file, and say which."""
    ours, theirs = files_of(one), files_of(other)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def discs(diameter_px: float, *, seed: int, count: int = 4, shape_yx: tuple[int, int] = (96, 112)) -> Micrograph:
    """Dark discs in weak noise; none for a diameter of 0."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 0.3, shape_yx)
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    places = np.array([(28.0, 26.0), (84.0, 26.0), (28.0, 70.0), (84.0, 70.0)])[:count]
    for centre_x, centre_y in places + rng.uniform(-5, 5, (count, 2)):
        if diameter_px:
            pixels[(x - centre_x) ** 2 + (y - centre_y) ** 2 <= (diameter_px / 2) ** 2] -= 1
    return Micrograph(pixels.astype(np.float32), name=f"m{seed}", pixel_size_angstrom=1.5)
