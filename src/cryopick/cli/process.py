"""What a command-line process owes to whoever started it: streams that may be closed, signals, a locale, busy cores.

Imports the standard library only: it works before anything that takes time is imported.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = {
    number: text
    for name, text in (
        ("SIGINT", "interrupted"),
        ("SIGTERM", "told to end (SIGTERM)"),
        ("SIGHUP", "its terminal was closed (SIGHUP)"),
    )
    if (number := getattr(signal, name, None)) is not None
}


class Stopped(BaseException):
    """A signal asks this process to end. Not an `Exception`, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(_SIGNALS[number])
        self.exit_code = 128 + number


class NobodyListens(BaseException):
    """Whoever read stdout went away, as `| head` does. Not an `OSError`, which libraries catch."""

    exit_code = 128 + 13  # of SIGPIPE, by which programs in other languages end then


@contextmanager
def prepared_process() -> Iterator[None]:
    """Make this process fit for whatever it was started with; what it changed in Python is put back at the end."""
    _open_standard_descriptors()
    _speak_utf8()
    _settle_environment()
    before = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = _telling_stdout(), _forgiving_stderr()
        with _signals_raise_stopped():
            yield
    finally:
        _flush_or_drop_stdout()
        sys.stdout, sys.stderr = before


# ----------------------------------------------------------------------------------------------------------- streams


def _open_standard_descriptors() -> None:
    """Give closed standard streams (`2>&-`) something to point to: else the next file that is opened takes their place
    and gets what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _telling_stdout() -> Any:
    """stdout whose failures say that it was stdout; one that tests put in its place stays."""
    if sys.stdout is None:
        return open(os.devnull, "w", encoding="utf-8")  # lives as long as the process
    if type(sys.stdout) is not io.TextIOWrapper:
        return sys.stdout
    sys.stdout.flush()
    return _stream(_TellingFile(sys.stdout.fileno(), "w", closefd=False), like=sys.stdout)


def _forgiving_stderr() -> Any:
    """stderr that never fails: progress that nobody can read must not end a run."""
    if sys.stderr is None:
        return open(os.devnull, "w", encoding="utf-8")  # lives as long as the process
    if type(sys.stderr) is not io.TextIOWrapper:
        return sys.stderr
    return _stream(_ForgivingFile(sys.stderr.fileno(), "w", closefd=False), like=sys.stderr)


def _stream(raw: io.FileIO, *, like: io.TextIOWrapper) -> io.TextIOWrapper:
    # file names may be in no encoding at all
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=like.encoding, errors="backslashreplace", line_buffering=like.line_buffering
    )


class _TellingFile(io.FileIO):
    def write(self, data: Any) -> int:
        from cryopick.errors import OutputError

        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise NobodyListens from None
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise OutputError(f"stdout: cannot be written: {reason}") from error


class _ForgivingFile(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _flush_or_drop_stdout() -> None:
    """Leave nothing in stdout that Python would fail to write while it ends."""
    if type(sys.stdout) is not io.TextIOWrapper:
        return
    from cryopick.errors import OutputError

    try:
        sys.stdout.flush()
    except (NobodyListens, OutputError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------- environment


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding.

    File names are bytes; coordinate files, records and tables hold them as UTF-8. In a Latin-1 or ASCII locale Python
    would decode names in another way than these files, and paths in them would lead nowhere.
    """
    encoding = sys.getfilesystemencoding().lower().replace("-", "")
    is_ours = getattr(sys.modules["__main__"], "__file__", None) == sys.argv[0]  # not called from a user's program
    if encoding != "utf8" and is_ours and not sys.flags.utf8_mode and hasattr(os, "execv"):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _settle_environment() -> None:
    """Undo what was set for other programs and would stop or slow this one."""
    from cryopick.scale.processes import heed_quota, wait_patiently

    wait_patiently(os.environ)
    heed_quota(os.environ)
    if "error" in os.environ.get("PYTHONWARNINGS", ""):  # meant for a user's own code, not to stop libraries
        warnings.simplefilter("default")


# ----------------------------------------------------------------------------------------------------------- signals


@contextmanager
def _signals_raise_stopped() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise `Stopped`, unless they are ignored here (`nohup`, a background job).

    One more signal, a second or more later, ends the process at once, whatever it is doing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped_at: list[float] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if not stopped_at:
            stopped_at.append(time.monotonic())
            raise Stopped(number)
        if time.monotonic() - stopped_at[0] > 1.0:  # what comes sooner belongs to the first: shells and queues repeat
            os._exit(128 + number)

    before = {
        number: signal.signal(number, stop) for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def first_signal_calls(action: Callable[[str], object]) -> Iterator[None]:
    """Within it the first Ctrl-C, SIGTERM or SIGHUP calls `action` with what it says; the second raises `Stopped`.

    For commands that end properly when they are asked to, which takes a while.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    called_at: list[float] = []
    before: dict[int, Any] = {}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, _frame: FrameType | None) -> None:
        if not called_at:
            called_at.append(time.monotonic())
            action(_SIGNALS[number])
        elif time.monotonic() - called_at[0] > 1.0:  # what comes sooner belongs to the first
            put_back()
            raise Stopped(number)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        put_back()
