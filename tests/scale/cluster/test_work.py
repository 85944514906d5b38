"""The worker's side, in this process: what it answers to an item, and when it says that it must not work."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from toy_workers import ENTRY

from cryopick.scale.cluster.work import Errand, Reply, work_on


@pytest.fixture
def errand(tmp_path: Path) -> Errand:
    token = tmp_path / "token"
    token.write_text("of this run")
    return Errand(entry=ENTRY, state=pickle.dumps(10), token_file=str(token), token="of this run")


def _answer(errand: Errand, item: tuple[str, object] = ("add", 1)) -> Reply:
    return work_on(errand, pickle.dumps(item))


def test_a_result_comes_back(errand: Errand) -> None:
    reply = _answer(errand)
    assert (reply.kind, pickle.loads(reply.result)) == ("done", 11)


def test_an_item_that_fails_is_answered_with_the_reason(errand: Errand) -> None:
    reply = _answer(errand, ("fail", "no such lattice"))
    assert (reply.kind, reply.told) == ("failed", "ValueError: no such lattice")
    assert "Traceback" in reply.details


def test_another_state_makes_another_worker(errand: Errand) -> None:
    assert pickle.loads(_answer(errand).result) == 11
    assert pickle.loads(_answer(replace(errand, state=pickle.dumps(20))).result) == 21


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"entry": "toy_workers:NoSuchWorker"}, "has no NoSuchWorker; install there what this run uses, plug-ins too"),
        ({"entry": "no_such_plug_in:Worker"}, "No module named 'no_such_plug_in'; install there what this run uses"),
        ({"version": "0.0.1"}, "is installed there, the run is of 0.0.1"),
        ({"token": "of another"}, "sees another folder at"),
        ({"token_file": "/nowhere/.cluster/token"}, "does not see the run's folder /nowhere/.cluster (No such file"),
        ({"state": b"cno_such_module\nName\n."}, "No module named 'no_such_module'"),
    ],
)
def test_a_worker_that_lacks_something_says_what_in_one_sentence(
    errand: Errand, changed: dict[str, object], told: str
) -> None:
    reply = _answer(replace(errand, **changed))  # type: ignore[arg-type]
    assert reply.kind == "unfit"
    assert told in reply.told
    assert "\n" not in reply.told
