"""One worker process: how it is started and spoken to, and what it runs itself.

Workers are started as `python -P -m` this module and speak pickles over their standard streams. So nothing is forked
(CUDA and thread pools survive), the user's script needs no `__main__` guard, and workers of a killed parent read the
end of their input and leave.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from threading import Condition, Thread
from typing import IO, Any

from cryopick.scale.executor import worker_class
from cryopick.scale.processes import end_process, import_path, start_python

START_LIMIT_SECONDS = 1800.0
"""For a worker to become ready: on a busy machine with a slow disk imports alone take minutes."""
_LEAVING_SECONDS = 30.0
"""For a worker without work to end by itself."""
_TICK_SECONDS = 1.0


class DiedError(Exception):
    """A worker closed its streams."""


class TooSlowError(Exception):
    """A worker said nothing within the time limit."""


class WorkerProcess:
    """A worker process: messages go in and come out; what it prints is passed on once it has started.

    Parameters
    ----------
    changed : is told of every message
    threads : for the libraries in it, unless the environment says how many
    environment : variables that only this worker has
    """

    def __init__(self, *, changed: Condition, threads: int, environment: Mapping[str, str]) -> None:
        self._changed = changed
        self.process: subprocess.Popen[bytes] = start_python(
            __spec__.name,
            threads=threads,
            environment=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        self._to_worker: IO[bytes] = self.process.stdin
        self._messages: deque[bytes | None] = deque()
        self._printed: deque[str] = deque(maxlen=20)
        self._is_ready = False
        self.is_idle = False
        """Ready and without an item, so that it may be left to end by itself."""
        Thread(target=self._read_messages, daemon=True).start()
        self._printing = Thread(target=self._read_prints, daemon=True)
        self._printing.start()

    def greet(self, entry: str, state: bytes) -> None:
        """Send what every item needs and wait until the worker has made itself ready."""
        self.send(pickle.dumps((import_path().last, entry)))
        self.send(state)
        clock = Clock(START_LIMIT_SECONDS)
        with self._changed:
            while self.message() is None:
                clock.wait(self._changed)
            self._is_ready = self.is_idle = True

    def send(self, data: bytes) -> None:
        try:
            _send_bytes(self._to_worker, data)
        except OSError as error:
            raise DiedError from error

    def message(self) -> bytes | None:
        """The next message that has come, if one has; called with `changed` held."""
        if not self._messages:
            return None
        if self._messages[0] is None:
            raise DiedError
        return self._messages.popleft()

    def leave(self) -> None:
        """Let a worker that has no work, or has closed its streams, end by itself."""
        _close_quietly(self._to_worker)
        try:
            self.process.wait(_LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            end_process(self.process)

    def kill(self) -> None:
        """End a worker that does not answer."""
        end_process(self.process)
        _close_quietly(self._to_worker)

    def cause_of_death(self) -> str:
        """How a process that closed its streams ended, and the last thing that it said, for a message."""
        self.leave()
        self._printing.join(_TICK_SECONDS)
        status = self.process.returncode
        cause = "it cannot be ended" if status is None else _described(status)
        lines = [line for line in self._printed if line.strip()]
        return f"{cause}: {lines[-1].strip()}" if lines else cause

    def _read_messages(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        try:
            with stream:
                while True:
                    self._take(_receive_bytes(stream))
        except (OSError, EOFError):
            self._take(None)

    def _take(self, message: bytes | None) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def _read_prints(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for data in stream:
                line = data.decode("utf-8", errors="backslashreplace").rstrip()
                self._printed.append(line)
                if self._is_ready:
                    _print_error(line)


class Clock:
    """Counts waiting. Time in which this process itself is stopped (Ctrl-Z, a suspended job) does not count."""

    def __init__(self, limit_seconds: float | None) -> None:
        self._limit_seconds = limit_seconds
        self._waited = 0.0

    def restart(self) -> None:
        self._waited = 0.0

    def wait(self, changed: Condition) -> None:
        """Wait a moment for a change; its lock is held before and after.

        Raises
        ------
        TooSlowError
            If waiting has taken longer than the limit.
        """
        if self._limit_seconds is not None and self._waited >= self._limit_seconds:
            raise TooSlowError
        start = time.monotonic()
        changed.wait(_TICK_SECONDS)
        self._waited += min(time.monotonic() - start, 2 * _TICK_SECONDS)


def _described(status: int) -> str:
    """An exit status as `subprocess` gives it, in words."""
    if status >= 0:
        return f"exit status {status}"
    hint = " (out of memory? try fewer --workers)" if status == -9 else ""
    return f"signal {-status}{hint}"


def _print_error(line: str) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")
    except (OSError, ValueError):  # nobody listens any more
        return


def _send_bytes(stream: IO[bytes], data: bytes) -> None:
    stream.write(struct.pack("<Q", len(data)))
    stream.write(data)
    stream.flush()


def _receive_bytes(stream: IO[bytes]) -> bytes:
    (size,) = struct.unpack("<Q", _read_exactly(stream, 8))
    return _read_exactly(stream, size)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other process closed the stream")
    return data


def _close_quietly(stream: Any) -> None:
    try:
        stream.close()
    except OSError:  # the worker is dead and bytes were still buffered for it
        return


def _items_from(stream: IO[bytes]) -> Iterator[Any]:
    while True:
        try:
            item = pickle.loads(_receive_bytes(stream))
        except EOFError:
            return
        yield item


def serve() -> None:
    """The worker: import path, entry point and state first, then items, until the input ends.

    Prints of libraries go to stderr. It has nothing to say about a parent that is gone: it leaves.
    """
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        last, entry = pickle.loads(_receive_bytes(incoming))
        sys.path.extend(last)
        worker = worker_class(entry)(pickle.loads(_receive_bytes(incoming)))
        _send_bytes(outgoing, b"ready")
        for result in worker.results_of(_items_from(incoming)):
            _send_bytes(outgoing, pickle.dumps(result))
    except (BrokenPipeError, EOFError):
        os._exit(1)


if __name__ == "__main__":
    serve()
