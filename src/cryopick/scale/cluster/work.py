"""The worker's side: one item is worked on by what an entry point names, which each process makes once.

A worker that must not work for this run says so instead of a result, and is sent away: another version of cryopick, a
machine that does not see the run's folder, a package that is missing there, a device that does not compute.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal

from cryopick.scale.executor import Worker, worker_class
from cryopick.scale.processes import import_path
from cryopick.version import __version__


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What all items share: who works on them, and by what a worker knows that it may.

    Attributes
    ----------
    entry, state : see `cryopick.scale.executor`; the state is pickled
    token_file, token : a file that every worker must see, and what is in it
    import_last : folders of the caller's, looked into when a module is nowhere else
    time_limit_s : for one item; None is no limit
    """

    entry: str
    state: bytes
    token_file: str
    token: str
    time_limit_s: float | None = None
    version: str = __version__
    import_last: tuple[str, ...] = field(default_factory=lambda: import_path().last)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.entry.encode() + b"\n" + self.state).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker says of one item.

    Attributes
    ----------
    kind : `done`; `failed`, where the worker's code raised; `unfit`, where this worker must leave; `slow`, where the
        time limit passed, so that this process is of no more use; `spent`, of such a process
    result : pickled
    told : why it is not done
    worker, host : who says it
    """

    kind: Literal["done", "failed", "unfit", "slow", "spent"]
    result: bytes = b""
    told: str = ""
    details: str = ""
    worker: str = ""
    host: str = ""


class UnfitError(Exception):
    """This worker must not work for this run; the message says what it lacks."""


_made: dict[str, Worker] = {}
"""The worker of this process, by the digest of its errand; one alone."""
_is_spent = False


def work_on(errand: Errand, item: bytes) -> Reply:
    """Work on one item in this process; every way in which that ends is a reply."""
    global _is_spent  # noqa: PLW0603  # a process in which a thread hangs stays so
    worker, host = _own_name(), socket.gethostname()
    if _is_spent:
        return Reply(kind="spent", worker=worker, host=host)
    try:
        ready = _ready(errand)
        given = pickle.loads(item)
    except UnfitError as error:
        return Reply(kind="unfit", told=str(error), worker=worker, host=host)
    except Exception as error:  # an item that cannot be read here, of a class of a package that is missing
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Reply(kind="unfit", told=told, details=traceback.format_exc(), worker=worker, host=host)
    try:
        result = _within(errand.time_limit_s, ready, given)
    except TimeoutError:
        _is_spent = True
        return Reply(kind="slow", worker=worker, host=host)
    except Exception as error:  # costs its item and no other
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Reply(kind="failed", told=told, details=traceback.format_exc(), worker=worker, host=host)
    return Reply(kind="done", result=pickle.dumps(result), worker=worker, host=host)


def _ready(errand: Errand) -> Worker:
    if errand.digest not in _made:
        require_fit(errand)
        sys.path.extend(folder for folder in errand.import_last if folder not in sys.path)
        try:
            worker = worker_class(errand.entry)(pickle.loads(errand.state))
        except ImportError as error:
            raise UnfitError(f"{error}; install there what this run uses, plug-ins too") from error
        except Exception as error:  # whatever it lacks: a file, a device, memory
            told = " ".join(str(error).split())
            kind = "" if type(error).__module__.startswith("cryopick.") else f"{type(error).__name__}: "
            raise UnfitError(f"{kind}{told}") from error
        _made.clear()  # what was made for another errand lets go of its memory
        _made[errand.digest] = worker
    return _made[errand.digest]


def require_fit(errand: Errand) -> None:
    """Raise `UnfitError` unless this process is of the run's version and sees the run's folder."""
    if errand.version != __version__:
        raise UnfitError(f"cryopick {__version__} is installed there, the run is of {errand.version}")
    folder = os.path.dirname(errand.token_file)
    try:
        token = Path(errand.token_file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "unreadable"
        raise UnfitError(
            f"does not see the run's folder {folder} ({why}); micrographs, run folder and weights must lie under the "
            "same path on every machine"
        ) from error
    if token != errand.token:
        raise UnfitError(f"sees another folder at {folder} than the coordinator; it must be the same disk everywhere")


def _within(seconds: float | None, worker: Worker, item: Any) -> Any:
    """The result for one item; `TimeoutError` where that takes longer, with the work still going on in a thread."""
    if seconds is None:
        return _result_of(worker, item)
    answers: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def work() -> None:
        try:
            answers.put((True, _result_of(worker, item)))
        except BaseException as error:
            answers.put((False, error))

    Thread(target=work, daemon=True).start()
    try:
        is_result, answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if not is_result:
        raise answer
    return answer


def _result_of(worker: Worker, item: Any) -> Any:
    results = iter(worker.results_of(iter([item])))
    try:
        return next(results)
    finally:
        if (close := getattr(results, "close", None)) is not None:
            close()


def _own_name() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().name)
    except ValueError:  # called by itself
        return ""
