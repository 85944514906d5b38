"""What a training run writes to be looked at: CSV tables, TensorBoard events and the loss curves as a picture."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cryopick.errors import RunFolderError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_TABLE, VALIDATION_TABLE, PICTURE, EVENTS = "loss.csv", "validation.csv", "loss.png", "tensorboard"
logger = logging.getLogger(__name__)


class Monitor(Protocol):
    """Is told how a training run goes; the command line draws its progress bar with one. Must be picklable."""

    def prepared(self, made: int, crops: int) -> None:
        """Called before `started`, while crops to learn from are made; the last call has `made == crops`."""
        ...

    def started(self, *, step: int, steps: int) -> None: ...

    def stepped(self, *, step: int, losses: Mapping[str, float]) -> None:
        """Called once every `log_every` steps with the mean losses since the last call."""
        ...

    def validated(self, *, step: int, scores: Mapping[str, float], is_best: bool) -> None: ...

    def stopped(self, *, step: int, reason: str) -> None: ...


def tell_doing(monitor: Monitor, text: str) -> None:
    """Say what takes more than a few seconds, to a monitor that has `doing(text)`; those of version 0.1 have not."""
    doing = getattr(monitor, "doing", None)
    if doing is not None:
        doing(text)


class LoggingMonitor:
    """Reports through `logging`."""

    def doing(self, text: str) -> None:
        logger.info("%s …", text)

    def prepared(self, made: int, crops: int) -> None:
        logger.debug("%d of %d simulated crops", made, crops)

    def started(self, *, step: int, steps: int) -> None:
        logger.info("training from step %d to %d", step, steps)

    def stepped(self, *, step: int, losses: Mapping[str, float]) -> None:
        logger.debug("step %d: %s", step, _join(losses))

    def validated(self, *, step: int, scores: Mapping[str, float], is_best: bool) -> None:
        logger.info("step %d: %s%s", step, _join(scores), " (best so far)" if is_best else "")

    def stopped(self, *, step: int, reason: str) -> None:
        logger.info("stopped at step %d: %s", step, reason)


def _join(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


class Table:
    """A CSV file that grows row by row. Rows after `keep_to_step` belong to a lost part of the run and are dropped.

    A damaged file is set aside under another name, with a warning, and the table begun again: training can do without.
    """

    def __init__(self, path: Path, *, keep_to_step: int) -> None:
        self.path = path
        try:
            rows = read_table(path)
        except RunFolderError as error:
            aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
            try:
                path.replace(aside)
            except OSError as blocked:
                raise RunFolderError(f"{error}; delete it and resume") from blocked
            logger.warning("%s; it is kept as %s, and the table begins anew", error, aside.name)
            rows = []
        self.rows = [row for row in rows if row["step"] <= keep_to_step]
        self._columns: list[str] = list(self.rows[0]) if self.rows else []
        if path.exists():
            self._write(self.rows, mode="w")

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row. A column that the rows before it lack is added to the table; what a row lacks is NaN."""
        new = [name for name in row if name not in self._columns]
        self._columns += new
        plain = {name: float(row.get(name, math.nan)) for name in self._columns}
        self.rows = [{**dict.fromkeys(new, math.nan), **earlier} for earlier in self.rows] if new else self.rows
        self.rows.append(plain)
        if new:
            self._write(self.rows, mode="w")
        else:
            self._write([plain], mode="a")

    def _write(self, rows: Sequence[Mapping[str, float]], *, mode: str) -> None:
        try:
            with self.path.open(mode, newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                if mode == "w" and self._columns:
                    writer.writerow(self._columns)
                writer.writerows([f"{row[name]:.9g}" for name in self._columns] for row in rows)
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be written ({error.strerror}); free space and resume") from error


def read_table(path: Path) -> list[dict[str, float]]:
    """Rows of a table; a last line torn by a kill is left out. A missing or empty file has none.

    Raises
    ------
    RunFolderError
        When it is not a table with a column `step`, or cannot be read.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunFolderError(f"{path}: damaged, expected a table of comma-separated numbers ({error})") from error
    if lines and ("step" not in lines[0] or len(set(lines[0])) < len(lines[0])):
        raise RunFolderError(f"{path}: damaged, its first line is no list of different columns with `step` among them")
    rows = []
    for line in lines[1:]:
        if len(line) == len(lines[0]):
            try:
                rows.append({name: float(text) for name, text in zip(lines[0], line, strict=True)})
            except ValueError:
                continue  # torn inside a number
    return rows


class RunLogs:
    """The tables, events and picture of one training folder."""

    def __init__(self, folder: Path, *, start_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.loss = Table(folder / LOSS_TABLE, keep_to_step=start_step)
        self.validation = Table(folder / VALIDATION_TABLE, keep_to_step=start_step)
        self.events = _event_writer(folder / EVENTS, purge_step=start_step + 1 if start_step else None)

    def losses(self, step: int, values: Mapping[str, float], **columns: float) -> None:
        self.loss.append({"step": step, **columns, **values})
        self._scalars("train", {**columns, **values}, step)

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        self.validation.append({"step": step, **values})
        self._scalars("validation", values, step)

    def _scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(f"{part}/{name}", value, step)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()

    def draw(self) -> None:
        draw_curves(self.loss.rows, self.validation.rows, self.folder / PICTURE)


def _event_writer(folder: Path, *, purge_step: int | None) -> Any:
    """TensorBoard's writer, or None where TensorBoard is not installed; the tables and the picture hold the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning(
            "tensorboard is not installed, so no events are written for it; %s, %s and %s show the same",
            *(LOSS_TABLE, VALIDATION_TABLE, PICTURE),
        )
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)


def draw_curves(loss: Sequence[Mapping[str, float]], validation: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and validation scores against the step, side by side, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(left, loss, skip=("step", "learning_rate", "seconds"), title="training loss")
    _curves(right, validation, skip=("step",), title="validation")
    if loss and all(row.get("loss", 0.0) > 0 for row in loss):
        left.set_yscale("log")
    figure.savefig(path, dpi=100)


def _curves(axes: Axes, rows: Sequence[Mapping[str, float]], *, skip: tuple[str, ...], title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    steps, marker = [row["step"] for row in rows], "." if len(rows) < 40 else ""
    for name in [name for name in (rows[0] if rows else {}) if name not in skip]:
        axes.plot(steps, [row[name] for row in rows], label=name, marker=marker)
    if rows:
        axes.legend(fontsize="small")
