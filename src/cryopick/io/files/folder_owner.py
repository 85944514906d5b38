"""One writer per folder where the file system has no locks: a file that its owner renews as long as it lives."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from typing import Any

from cryopick.errors import RunFolderError
from cryopick.io.files.atomic import TEMPORARY_PREFIX, write_text_atomic

OWNER_FILE = ".owner"
RENEWED_SECONDS = 30.0
EXPIRED_SECONDS = 90.0
"""Without a renewal, after which an owner counts as gone: a machine may stand still for a while."""
SETTLING_SECONDS = 0.5
"""After which the one of two that claimed a folder at once sees that the other was last."""


class FolderOwner:
    """This process as the owner of a folder, from when it is made until `release`, or until it ends in any way.

    Raises
    ------
    RunFolderError
        If another process owns the folder, here or on another machine.
    OSError
        If the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / OWNER_FILE
        self._token = token_hex(8)
        self._is_released = Event()
        refuse_living_owner(folder)
        write_text_atomic(self._path, json.dumps(self._content) + "\n")
        time.sleep(SETTLING_SECONDS)
        self.require()
        Thread(target=self._renew, name="cryopick-folder-owner", daemon=True).start()

    @property
    def _content(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}

    def require(self) -> None:
        """Raise `RunFolderError` where another process has taken the folder over, or its owner's file is gone."""
        if _read(self._path).get("token") != self._token:
            raise RunFolderError(
                f"{self._folder}: another cryopick has taken this folder over, or removed its file {OWNER_FILE}; this "
                "one stops writing to it, and what was finished is kept"
            )

    def release(self) -> None:
        """Let the folder go; nothing of it is left."""
        self._is_released.set()
        if _read(self._path).get("token") == self._token:
            with suppress(OSError):
                self._path.unlink()

    def _renew(self) -> None:
        while not self._is_released.wait(RENEWED_SECONDS):
            with suppress(OSError):  # a disk that is away for a while; the next renewal may work
                if _read(self._path).get("token") == self._token:
                    os.utime(self._path)


def refuse_living_owner(folder: Path) -> None:
    """Raise `RunFolderError` if a process owns `folder`, here or on another machine."""
    path = folder / OWNER_FILE
    try:
        renewed = path.stat().st_mtime
    except FileNotFoundError:
        return
    owner = _read(path)
    host, pid = owner.get("host"), owner.get("pid")
    if host == socket.gethostname() and isinstance(pid, int) and not _lives(pid):
        return
    age_s = _time_there(folder) - renewed
    if age_s < EXPIRED_SECONDS:
        raise RunFolderError(
            f"{folder}: another cryopick is writing to this folder (process {pid} on {host}, heard of "
            f"{max(0.0, age_s):.0f} s ago); wait for it to end, or choose another with -o. If it was killed, the "
            f"folder is free {EXPIRED_SECONDS:.0f} s after it was last heard of"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _time_there(folder: Path) -> float:
    """The clock that the file system puts on files, which need not be this machine's."""
    probe = folder / f"{TEMPORARY_PREFIX}{token_hex(8)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink()


def _lives(pid: int) -> bool:
    if os.name == "nt":  # there signal 0 is no question; the age alone decides
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return pid > 0
