"""How a training run is shown: a progress bar on a terminal, a few lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from cryopick.cli.loudness import is_quiet, say_progress


class ConsoleMonitor:
    """A `cryopick.training.logs.Monitor`; the bar is made at the first call, so that the object can be pickled."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._steps = 0
        self._next_line = 0

    def doing(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(f"{text} …", markup=False, highlight=False)
        else:
            say_progress(f"{text} …")

    def prepared(self, made: int, crops: int) -> None:
        if sys.stderr.isatty() and not is_quiet():
            if self._bar is None:
                self._bar = _make_bar()
                self._bar.start()
                self._task = self._bar.add_task("images prepared", total=crops, loss="")
            self._bar.update(self._task, completed=made)
            if made == crops:
                self._bar.stop()
                self._bar = None  # that of the training follows, perhaps in another process
        elif made >= self._next_line or made == crops:
            self._next_line = made + max(1, crops // 20)
            say_progress(f"{made} of {crops} images prepared")

    def started(self, *, step: int, steps: int) -> None:
        self._steps, self._next_line = steps, step
        if sys.stderr.isatty() and not is_quiet():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("training", total=steps, completed=step, loss="")
        elif step:
            say_progress(f"resuming at step {step} of {steps}")

    def stepped(self, *, step: int, losses: Mapping[str, float]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=f"loss {losses['loss']:.4g}")
        elif step >= self._next_line:
            self._next_line = step + max(1, self._steps // 20)
            say_progress(f"step {step} of {self._steps}: loss {losses['loss']:.4g}")

    def validated(self, *, step: int, scores: Mapping[str, float], is_best: bool) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        text = f"validation at step {step}: {shown}{' (best so far)' if is_best else ''}"
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say_progress(text)

    def stopped(self, *, step: int, reason: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
            self._bar.stop()
        else:
            say_progress(f"{reason} at step {step}")


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=Console(stderr=True),
    )
