"""Two writers never share a folder, also where the file system has no locks; nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cryopick.errors import RunFolderError
from cryopick.io.files import folder_owner
from cryopick.io.files.folder_lock import LOCK_FILE, OWNER_FILE, locked_folder

HOLD = """
import fcntl, errno, os, sys, time
from pathlib import Path
def refused(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
fcntl.flock = refused
from cryopick.io.files.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(folder_owner, "SETTLING_SECONDS", 0.01)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written_by(folder: Path, *, host: str, pid: int, age_s: float) -> None:
    path = folder / OWNER_FILE
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "other"}))
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_where_there_are_locks_there_is_no_owner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), locked_folder(tmp_path) as lock:
        assert names(tmp_path) == [LOCK_FILE]
        assert lock.doubt == ""
        with pytest.raises(RunFolderError, match="another cryopick is writing"), locked_folder(tmp_path):
            pass
    assert not caplog.records


@pytest.mark.usefixtures("no_locks")
def test_without_locks_it_is_said_and_nothing_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), locked_folder(tmp_path) as lock:
        assert names(tmp_path) == [LOCK_FILE, OWNER_FILE]
        content = json.loads((tmp_path / OWNER_FILE).read_text())
        assert (content["host"], content["pid"]) == (socket.gethostname(), os.getpid())
        assert "no locks (flock)" in lock.doubt
        with pytest.raises(RunFolderError, match=f"process {os.getpid()} on "), locked_folder(tmp_path):
            pass
    assert "no locks (flock)" in caplog.text
    assert names(tmp_path) == [LOCK_FILE]
    with pytest.raises(KeyError), locked_folder(tmp_path):
        raise KeyError
    assert names(tmp_path) == [LOCK_FILE]


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(("host", "age_s", "is_free"), [("elsewhere", 60, False), ("elsewhere", 100, True)])
def test_an_owner_on_another_machine_is_believed_for_90_seconds(
    host: str, age_s: float, is_free: bool, tmp_path: Path
) -> None:
    written_by(tmp_path, host=host, pid=1, age_s=age_s)
    if is_free:
        with locked_folder(tmp_path):
            pass
    else:
        with (
            pytest.raises(RunFolderError, match=r"1 on elsewhere, heard of 6\d s ago"),
            locked_folder(tmp_path),
        ):
            pass
        assert names(tmp_path) == [LOCK_FILE, OWNER_FILE]


@pytest.mark.usefixtures("no_locks")
def test_a_killed_process_of_this_machine_holds_nothing_and_a_living_one_does(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match=f"process {first.pid} on"), locked_folder(tmp_path):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert OWNER_FILE in names(tmp_path)
    with locked_folder(tmp_path):
        pass
    assert names(tmp_path) == [LOCK_FILE]


@pytest.mark.usefixtures("no_locks")
def test_an_owner_is_renewed_and_learns_that_another_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_owner, "RENEWED_SECONDS", 0.02)
    path = tmp_path / OWNER_FILE
    with locked_folder(tmp_path) as lock:
        os.utime(path, (0, 0))
        limit = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < limit:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0
        lock.require()
        written_by(tmp_path, host="elsewhere", pid=1, age_s=0)
        with pytest.raises(RunFolderError, match="another cryopick has taken this folder over"):
            lock.require()
    assert json.loads(path.read_text())["host"] == "elsewhere"  # it is not ours to remove


@pytest.mark.usefixtures("no_locks")
def test_a_run_without_locks_says_so_in_its_summary_and_log(folder_of_discs: Path, tmp_path: Path) -> None:
    from cryopick.runs.settings import make_settings
    from cryopick.workflows.pick import pick_to_folder

    run = tmp_path / "run"
    summary = pick_to_folder([folder_of_discs], run, make_settings("blob", diameter="20px"), workers=1)
    assert any("no locks (flock)" in warning for warning in summary.warnings)
    assert "no locks (flock)" in (run / "run.log").read_text()
    assert OWNER_FILE not in names(run)
