"""JSON lines on stdout for programs: one object a line, written beside the work, so that no reader holds it up."""

from __future__ import annotations

import io
import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cryopick.cli.process import NobodyListens, Stopped
from cryopick.errors import OutputError

MOST_WAITING = 10_000
"""Lines that wait for a reader; what comes while so many wait is dropped and counted."""
PATIENCE_S = 10.0
"""How long the end of a command waits for a reader that takes nothing; one that reads slowly is waited for."""


def json_line(content: dict[str, Any]) -> str:
    """One object on a line; NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_without_nan(content), allow_nan=False) + "\n"


def print_json(content: dict[str, Any]) -> None:
    """One line of JSON on stdout, at once."""
    sys.stdout.write(json_line(content))
    sys.stdout.flush()


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value


class JsonLines:
    """Writes objects to stdout from a thread of its own.

    A reader that stops reading stops nothing: `most_waiting` lines wait for it, and what comes then is dropped. Where
    lines are missing stands `{"event": "dropped", "count": n}`. A reader that is gone, or a disk that is full, is told
    of once on stderr (unless `warns` is False), and `close` raises it.
    """

    def __init__(self, *, most_waiting: int = MOST_WAITING, patience_s: float = PATIENCE_S, warns: bool = True) -> None:
        self._warns = warns
        self._most_waiting = most_waiting
        self._patience_s = patience_s
        self._write = _raw_writer(sys.stdout)
        self._waiting: deque[str] = deque()
        self._changed = threading.Condition()
        self._progress = 0
        """Bytes that the reader took."""
        self._failure: BaseException | None = None
        self._missing = 0
        """Lines dropped since the last one that was taken."""
        self.dropped = 0
        """Lines dropped in all."""
        self._is_closed = False
        threading.Thread(target=self._run, name="json lines", daemon=True).start()

    def __call__(self, content: dict[str, Any], *, is_kept: bool = False) -> None:
        """Hand over one object; `is_kept` for the last of a run, which waits behind however many others."""
        line = json_line(content)
        with self._changed:
            if self._failure is not None:
                return
            if len(self._waiting) >= self._most_waiting and not is_kept:
                self._missing += 1
                self.dropped += 1
                return
            if self._missing:
                self._waiting.append(json_line({"event": "dropped", "count": self._missing}))
                self._missing = 0
            self._waiting.append(line)
            self._changed.notify_all()

    def close(self, *, is_hurried: bool = False) -> None:
        """Wait until everything is read, or nobody has taken anything for a while, which is told on stderr.

        Raises
        ------
        NobodyListens
            If the reader went away.
        OutputError
            If stdout could not be written.
        """
        patience_s = min(1.0, self._patience_s) if is_hurried else self._patience_s
        progress, since = self._progress, time.monotonic()
        with self._changed:
            while self._waiting and self._failure is None:
                self._changed.wait(0.05)
                if self._progress != progress:
                    progress, since = self._progress, time.monotonic()
                elif time.monotonic() - since > patience_s:
                    break
            unread, self._is_closed = len(self._waiting), True
            self._waiting.clear()
            self._changed.notify_all()
        if self._failure is not None:
            raise self._failure
        if self.dropped or unread:
            _warn(
                f"{self.dropped} JSON lines were dropped while {self._most_waiting:,} waited, and {unread} were left "
                "at the end: nobody read them from stdout"
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._changed.wait()
                line = self._waiting[0]
            try:
                self._write_all(line)
            except BaseException as error:  # handed to the main thread, by `close`
                # first, so that what the main thread says of it stands below
                if self._warns:
                    _warn(f"{str(error) or 'nobody reads stdout any more'}; the run goes on without it")
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                if self._waiting and self._waiting[0] is line:
                    self._waiting.popleft()
                self._changed.notify_all()

    def _write_all(self, line: str) -> None:
        data = line.encode()  # ASCII: `json.dumps` escapes the rest
        while data:
            taken = self._write(data)
            self._progress += taken
            data = data[taken:]
            if data and not taken:  # a pipe that its owner set not to block, and that is full
                time.sleep(0.05)


def _raw_writer(stream: Any) -> Any:
    """A function that writes bytes below the buffer of a real stdout, whose lock a reader that stops would hold."""
    stream.flush()
    raw = getattr(stream.buffer, "raw", None) if type(stream) is io.TextIOWrapper else None
    if raw is not None:
        return raw.write

    def write(data: bytes) -> int:
        stream.write(data.decode())
        stream.flush()
        return len(data)

    return write


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")
    sys.stderr.flush()


@contextmanager
def json_lines(*, is_wanted: bool) -> Iterator[JsonLines | None]:
    """JSON lines for a command that has `--json`, None without it; at the end everything is read, see `close`."""
    if not is_wanted:
        yield None
        return
    lines = JsonLines()
    try:
        yield lines
    except BaseException as error:
        with suppress(OutputError, NobodyListens):  # the error is the news
            lines.close(is_hurried=isinstance(error, Stopped))
        raise
    lines.close()
