"""Learning from a person's marks: `cryopick finetune` as a child that outlives the viewer, told of by its files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from cryopick.data.labels import Labels
from cryopick.data.splits import validating_names
from cryopick.errors import CryopickError
from cryopick.extras import missing_extra, require_extra
from cryopick.io.coordinates.csv import PARTICLE
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.set_json import SETTINGS_FILE
from cryopick.pickers.families import family_of, trainable_pickers
from cryopick.viewer.exports import cut_of_body
from cryopick.viewer.session import CutAsked, Refused, Session, as_json, shown_picks
from cryopick.viewer.sources import RunSource
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.teaching import (
    MICROGRAPHS,
    Taught,
    Teaching,
    confident_score,
    teaching_counts,
    write_teaching_set,
)

FOLDER, JOB, LOG, AFTER, LOCK = "learn", "job.json", "log.txt", "after", ".alive"
TAUGHT, JUDGED = "taught", "judged.json"
STEPS, EVERY = 60, 20
"""Steps of a learning, and after how many it is judged: a first answer within minutes on two cores. On simulated
particles that `general` centres badly (two balls on a rod), with three micrographs and 94 corrections, the average
precision on others rose until step 40 and fell again after it, at learning rates from 1.5e-4 to 1.5e-3."""
FREE_BYTES = 200_000_000
MOST_AFTER = 8
"""Micrographs that are picked with new weights for a first look."""
_SCORES = re.compile(r"^your data\s+(\S+?)(?:\s+|(?<=\d{4}))([0-9.]+|nan)\s*$", re.MULTILINE)
_SETTING = re.compile(r"\w+=[\w.,-]+")
_CHILD = "import os, sys; os.nice(10); from cryopick.cli.main import main; main()"


def source_that_learns(session: Session) -> RunSource:
    source = session.sources[0]
    if not isinstance(source, RunSource):
        raise Refused(403, "imported picks have no picker that could learn; use cryopick finetune with an export")
    if source.picker not in trainable_pickers():
        raise Refused(403, f"picker {source.picker} has no network that could learn; pick with general, for example")
    return source


def taught(session: Session, cut: CutAsked, *, with_confident: bool) -> Iterator[Taught]:
    """Every micrograph that a person marked, the bad ones left out."""
    source = source_that_learns(session)
    with source.guard:
        sure = confident_score(source.index) if with_confident and source.is_probability else None
    touched = set(session.journals.keys())
    for number, row in enumerate(source.rows):
        if row.key not in touched or row.error:
            continue
        marks = session.journals.read(row.key).marks
        if marks.verdict == "bad" or not (marks.by_id or marks.is_complete):
            continue
        picks = shown_picks(session, 0, number, cut)
        is_sure = np.zeros(len(picks), bool) if sure is None else np.asarray(picks.score >= np.float32(sure))
        yield Taught(
            key=row.key,
            source=row.source,
            marks=marks,
            picks=picks,
            confident=is_sure,
            diameter_px=source.diameter_px(number),
            pixel_size_angstrom=row.pixel_size_angstrom,
        )


def post_plan(request: Request, session: Session) -> Response:
    """What would teach, and what stands in the way; nothing is written."""
    content = request.state.content
    told = teaching_counts(
        taught(session, cut_of_body(content, session), with_confident=bool(content.get("confident")))
    )
    source = source_that_learns(session)
    facts = {
        "problems": _problems(session, told),
        "picker": source.picker,
        "background_teaches": family_of(source.picker).learns_from_background,
        "validates": [Path(name).name for name in validating_names(told.sources)] if told.sources else [],
        "weights": _start_weights(source),
    }
    return as_json(request, {**_told(told), **facts})


def _start_weights(source: RunSource) -> str:
    """What a learning starts from, in words."""
    weights = getattr(source.plan.picker, "weights", None)
    return f"the weights of the run, {weights}" if weights else f"the weights that {source.picker} is shipped with"


def _told(told: Teaching) -> dict[str, Any]:
    return {**{name: value for name, value in vars(told).items() if name != "sources"}, "doubts": told.doubts}


def _problems(session: Session, told: Teaching) -> list[str]:
    """What makes a learning impossible, found before anything is measured."""
    found = []
    try:
        require_extra("train", ["lightning", "tensorboard"], "learning")
    except CryopickError:
        found.append(missing_extra("train", "learning"))
    if not told.micrographs:
        found.append("nothing is marked that could teach: mark particles, remove wrong picks, or tick complete")
    elif told.particles < 2:
        found.append("no particle is marked: what a particle is can only be learnt from some")
    place = session.edits if session.edits.exists() else session.edits.parent
    if shutil.disk_usage(place).free < FREE_BYTES:
        found.append("less than 200 MB are free on the disk; a learning needs as much")
    if session.read_only:
        found.append(session.read_only)
    return found


def home(session: Session) -> Path:
    return session.edits.with_name(FOLDER) if session.edits.name == "edits" else session.edits / FOLDER


def post_learn(request: Request, session: Session) -> Response:
    """Write the teaching set and begin; one learning at a time."""
    content = request.state.content
    source = source_that_learns(session)
    running = [one for one in learnings(session) if one["is_running"]]
    if running:
        raise Refused(409, f"learning {running[0]['number']} is still going on")
    cut = cut_of_body(content, session)
    steps = content.get("steps", STEPS)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 100_000:
        raise Refused(400, "steps are a whole number from 1 to 100000")
    given = content.get("settings", [])  # of the picker's own task, as --set takes them; for small trials
    if not isinstance(given, list) or not all(isinstance(one, str) and _SETTING.fullmatch(one) for one in given):
        raise Refused(400, "settings are texts such as crop_px=128")
    marked = list(taught(session, cut, with_confident=bool(content.get("confident"))))
    problems = _problems(session, teaching_counts(marked))
    if problems:
        raise Refused(422, "; ".join(problems))
    teach = session.edits / "teach"
    told = write_teaching_set(teach, marked)
    number = 1 + max((one["number"] for one in learnings(session)), default=0)
    folder = home(session) / str(number)
    folder.mkdir(parents=True)
    shutil.copytree(teach, folder / TAUGHT)  # what judges stays known when marks change
    words = [
        *("finetune", source.picker, "--picks", str(teach)),
        *("--micrographs", f"@{teach.with_name(f'{teach.name}-{MICROGRAPHS}')}"),
        *("--diameter", f"{told.diameter_px:.3f}px", "--flip-y", "no", "--contrast", source.run_settings.contrast),
        *("--steps", str(steps), "--validate-every", str(max(1, min(EVERY, steps)))),
        *("--checkpoint-every", str(max(1, min(EVERY, steps))), "--warmup-steps", str(min(20, steps // 4))),
        *("-o", str(folder)),
    ]
    if told.pixel_size_angstrom:
        words += ["--pixel-size", f"{told.pixel_size_angstrom:.6g}"]
    weights = getattr(source.plan.picker, "weights", None)
    if weights:
        words += ["--weights", str(weights)]
    for one in given:
        words += ["--set", one]
    job = {"number": number, "steps": steps, "words": words, "started": time.time(), **_told(told)}
    write_text_atomic(folder / JOB, json.dumps(job, ensure_ascii=True) + "\n")
    start_child(words, folder, log=LOG)
    session.note("jobs")
    return as_json(request, {"number": number})


def start_child(words: list[str], folder: Path, *, log: str) -> None:
    """A cryopick of its own session, which holds a lock as long as it lives and outlives the viewer."""
    import fcntl

    lock = os.open(folder / f"{LOCK}-{log}", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(folder / log, "ab") as stream:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # threads that wait for each other must not take the cores from the page and from other programs: on
                # two crowded cores steps with two threads took ten times as long as with one
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                start_new_session=True,
                pass_fds=(lock,),
            )
        write_text_atomic(folder / f"pid-{log}", f"{child.pid}\n")
        threading.Thread(target=child.wait, name="cryopick-child", daemon=True).start()  # leaves no dead process behind
    finally:
        os.close(lock)


def is_alive(folder: Path, *, log: str) -> bool:
    """Whether the child that writes this log still holds its lock."""
    import fcntl

    try:
        lock = os.open(folder / f"{LOCK}-{log}", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def learnings(session: Session) -> list[dict[str, Any]]:
    """Every learning of the run, with what its files tell of it, the newest last."""
    found = []
    for folder in home(session).glob("*/"):
        if folder.name.isdigit() and (folder / JOB).is_file():
            try:
                found.append(_state(folder))
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return sorted(found, key=lambda one: one["number"])


def _state(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / JOB).read_text(encoding="ascii"))
    log = _tail(folder / LOG)
    alive = is_alive(folder, log=LOG)
    step = _last_step(folder / "loss.csv")
    has_weights = (folder / "weights.safetensors").is_file()
    scores = _SCORES.search(log)
    is_better = "use them:" in log
    error = ""
    if not alive and not scores:
        lines = [line for line in log.splitlines() if line.startswith("cryopick: ")]
        error = lines[-1].removeprefix("cryopick: ") if lines else "it was ended before it came to a result"
    if alive:
        phase = (
            "measuring the starting weights"
            if not (folder / "before.json").is_file()
            else f"step {step} of {job['steps']}"
            if step < job["steps"]
            else "finishing: judging and calibrating the kept weights"
        )
    else:
        phase = "failed" if error else "better" if is_better else "not better"
    return {
        **{name: job.get(name) for name in ("number", "steps", "particles", "background", "micrographs", "started")},
        "phase": phase,
        "step": step,
        "is_running": alive,
        "is_better": is_better and has_weights and not alive,
        "error": error,
        "before": _number(scores and scores.group(1)),
        "after": _number(scores and scores.group(2)),
        "validation": _curves(folder / "validation.csv"),
        "log": log[-3000:],
        "after_phase": _after_phase(folder),
        "judges": [Path(name).name for name in _judges(folder)],
        "judged": _read_json(folder / JUDGED),
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _judges(folder: Path) -> list[str]:
    """Images of the micrographs that judge; one of which a part does is named with its rows."""
    split = _read_json(folder / "split.json")
    return [str(name) for name in split.get("validation", [])] if isinstance(split, dict) else []


def judged(source: RunSource, folder: Path) -> dict[str, Any]:
    """F1 with its interval on the complete micrographs that judged, before and after; why there is none, elsewhere.

    Sparse labels say how many of the marked particles are found, and not how many picks are wrong: of them no F1 is
    told. Both are at the threshold that holds in the run, and in the run with the new weights.
    """
    wanted, settings = set(_judges(folder)), _read_json(folder / TAUGHT / SETTINGS_FILE) or {}
    labels: dict[str, Labels] = {}
    for row in source.rows:
        if str(row.source) in wanted and row.key in settings.get("complete", []):
            with open(folder / TAUGHT / f"{row.key}.csv", encoding="utf-8", newline="") as stream:
                xy = [(float(one["x"]), float(one["y"])) for one in csv.DictReader(stream) if one["kind"] == PARTICLE]
            labels[row.name] = Labels(
                xy_px=np.array(xy, np.float64).reshape(-1, 2),
                is_uncertain=np.zeros(len(xy), bool),
                diameter_px=float(settings["diameter_px"]),
                micrograph_name=row.name,
            )
    if not labels:
        return {"why": "none of the micrographs that judge is complete (k), so how many picks are wrong is not known"}
    found: dict[str, Any] = {"micrographs": sorted(Path(name).name for name in labels)}
    for name, run in (("before", source.folder.path), ("after", folder / AFTER)):
        main = evaluate(run, labels).main
        interval = main.intervals.f1
        found[name] = [_or_none(value) for value in (main.counts.f1, interval.low, interval.high)]
    return found


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _after_phase(folder: Path) -> str:
    if is_alive(folder, log="after.txt"):
        return "picking"
    return "ready" if (folder / AFTER / "summary.json").is_file() else ""


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-20_000:].decode("utf-8", "replace").replace("\r", "\n")
    except OSError:
        return ""


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _last_step(path: Path) -> int:
    rows = _rows(path)
    return int(float(rows[-1]["step"])) if rows else 0


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return [row for row in csv.DictReader(stream) if row.get("step")]
    except OSError:
        return []


def _curves(path: Path) -> dict[str, list[list[float]]]:
    """Scores by step: yours and, where old data are learnt along, theirs."""
    names = {"new": "yours", "old": "old data"}
    rows = _rows(path)
    if rows and "new" not in rows[0]:
        names = {"score": "yours"}
    return {
        told: [[float(row["step"]), float(row[name])] for row in rows if row.get(name)] for name, told in names.items()
    }


def get_learnings(request: Request, session: Session) -> Response:
    return as_json(request, {"learnings": learnings(session)})


def _folder_of(request: Request, session: Session) -> Path:
    folder = home(session) / str(int(request.path_params["n"]))
    if not (folder / JOB).is_file():
        raise Refused(404, "there is no such learning")
    return folder


def post_stop(request: Request, session: Session) -> Response:
    """Ask a learning to end; its state is saved."""
    folder = _folder_of(request, session)
    if is_alive(folder, log=LOG):
        try:
            os.kill(int((folder / f"pid-{LOG}").read_text()), signal.SIGTERM)
        except (OSError, ValueError) as error:
            raise Refused(409, f"it cannot be ended from here ({error})") from error
    return as_json(request, {})


def post_resume(request: Request, session: Session) -> Response:
    """Go on with a learning that was stopped."""
    folder = _folder_of(request, session)
    if any(one["is_running"] for one in learnings(session)):
        raise Refused(409, "a learning is going on already")
    job = json.loads((folder / JOB).read_text(encoding="ascii"))
    start_child([*job["words"], "--resume"], folder, log=LOG)
    return as_json(request, {})


def post_after(request: Request, session: Session) -> Response:
    """Pick a few micrographs with the new weights, those that were marked first, to compare before with after."""
    folder = _folder_of(request, session)
    source = source_that_learns(session)
    state = _state(folder)
    if not state["is_better"]:
        raise Refused(409, "these weights are not better than the old ones, so there is nothing to compare")
    if state["after_phase"] == "ready":
        wanted = (folder / AFTER).resolve()
        if not (folder / JUDGED).is_file():
            write_text_atomic(folder / JUDGED, json.dumps(judged(source, folder)) + "\n")
        runs = [(number, one) for number, one in enumerate(session.sources) if isinstance(one, RunSource)]
        known = [number for number, one in runs if one.folder.path.resolve() == wanted]
        if not known:
            session.add(RunSource(folder / AFTER))
            known = [len(session.sources) - 1]
        return as_json(request, {"run": known[0]})
    if state["after_phase"] != "picking":
        touched = set(session.journals.keys())
        rows = sorted((row for row in source.rows if not row.error), key=lambda row: row.key not in touched)
        chosen = folder / "after.micrographs.txt"
        write_text_atomic(chosen, "".join(f"{row.source}\n" for row in rows[:MOST_AFTER]))
        start_child(_pick_words(source, folder, chosen, folder / AFTER), folder, log="after.txt")
    return as_json(request, {"run": None})


def post_pick(request: Request, session: Session) -> Response:
    """Pick the whole run with the new weights, beside the run, and carry the marks over."""
    folder = _folder_of(request, session)
    source = source_that_learns(session)
    if not _state(folder)["is_better"]:
        raise Refused(409, "these weights are not better than the old ones")
    output = source.folder.path.with_name(f"{source.folder.path.resolve().name}-learnt-{folder.name}")
    chosen = folder / "all.micrographs.txt"
    write_text_atomic(chosen, "".join(f"{row.source}\n" for row in source.rows))
    start_child(_pick_words(source, folder, chosen, output), folder, log="all.txt")
    journal = session.edits / "journal"
    if journal.is_dir() and not (output / "edits").exists():
        shutil.copytree(journal, output / "edits" / "journal")
    return as_json(request, {"folder": str(output)})


def _pick_words(source: RunSource, folder: Path, chosen: Path, output: Path) -> list[str]:
    config, weights = source.folder.path / "config.toml", folder / "weights.safetensors"
    return ["pick", f"@{chosen}", "-o", str(output), "--config", str(config), "--weights", str(weights), "-j", "1"]
