"""What a person marks on the picks of a run: a journal that loses nothing, what the marks make of the candidates, and
what is made from them: coordinates for other programs, masks, and labels that teach.

A mark is a place, not a row of a table, so it outlives another threshold, other weights and another run. The journal is
only ever added to; undoing appends the inverse.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.files.atomic import explain_write_errors, write_bytes_atomic
from cryopick.runs.record import key_problem
from cryopick.types import Picks
from cryopick.workflows.run_index import is_above

NEAR_DIAMETERS = 0.3
"""Distance, in particle diameters, up to which two places are the same particle."""
UNKNOWN_DIAMETER_SHARE = 0.03
"""Of the image's width: the diameter where a run knows none."""
KINDS = ("yes", "no", "junk")
VERDICTS = ("good", "bad", "none")
MOST_OPERATIONS, MOST_POINTS = 10_000, 2_000
MASK_SHRINK = 8
"""Masks of junk have an eighth of the micrograph's width; `cryopick pick --exclusion-masks` takes any size."""
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")
_WHAT = re.compile(r"[a-z ]{1,40}")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place on a micrograph: `yes` is a particle, `no` is none, `junk` is an area without particles.

    Parameters
    ----------
    x, y : px of the micrograph as stored; of junk those of its first corner
    diameter_px : of a `yes`
    points : (n, 2) corners of junk, else empty
    """

    kind: str
    x: float
    y: float
    diameter_px: float | None = None
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Everything that is marked on one micrograph.

    Parameters
    ----------
    by_id : the marks in the order in which they were made
    verdict : good, bad or none
    is_complete : a person says that every particle is marked or picked
    """

    by_id: Mapping[str, Mark] = field(default_factory=dict)
    verdict: str = "none"
    is_complete: bool = False

    def of_kind(self, kind: str) -> list[Mark]:
        return [mark for mark in self.by_id.values() if mark.kind == kind]

    def xy_px(self, kind: str) -> NDArray[np.float64]:
        """(n, 2) places of one kind."""
        return np.array([(mark.x, mark.y) for mark in self.of_kind(kind)], np.float64).reshape(-1, 2)

    @property
    def is_edited(self) -> bool:
        return bool(self.by_id) or self.verdict != "none" or self.is_complete


# ---------------------------------------------------------------------------------------------------------- the rules


def apply_marks(
    candidates: Picks,
    marks: Marks,
    *,
    threshold: float,
    diameter_px: float,
    power: NDArray[np.float32] | None = None,
    power_limits: tuple[float, float] = (0.0, float("inf")),
    belief: float = 1.0,
) -> Picks:
    """The picks of one micrograph after a cut and a person's marks. The order of the marks does not matter.

    Candidates that no rule rejects are kept where their score reaches the threshold and their power lies within its
    limits; of these go the ones inside junk, and those near a `no` or a `yes`; then every `yes` is added with the score
    of the nearest candidate that is near, whatever became of it, else without one.

    Parameters
    ----------
    power : (n,) local power of each candidate, see `processing.local_power`; None where unknown
    diameter_px : of a particle; places within 0.3 of it are the same
    belief : of the micrograph, see `runs.threshold.Cut`
    """
    known = np.full(len(candidates), np.nan, np.float32) if power is None else power
    is_kept = candidates.is_kept & is_above(
        candidates.score * np.float32(belief), known, threshold=threshold, power_limits=power_limits
    )
    # Tables hold 0.001 px; the page has single precision, and must keep the same ones.
    xy = candidates.xy_px.astype(np.float32).astype(np.float64)
    for mark in marks.of_kind("junk"):
        is_kept &= ~is_inside_polygon(xy, np.array(mark.points))
    near_squared = (NEAR_DIAMETERS * diameter_px) ** 2
    for x, y in (*marks.xy_px("no").tolist(), *marks.xy_px("yes").tolist()):
        is_kept &= _squared_distance(xy, x, y) > near_squared
    kept = candidates.take(is_kept)
    added = marks.of_kind("yes")
    if not added:
        return kept
    score = np.full(len(added), np.nan, np.float32)
    class_id = np.zeros(len(added), np.int32)
    diameter = np.full(len(added), np.nan, np.float32)
    for number, mark in enumerate(added):
        if mark.diameter_px is not None:
            diameter[number] = mark.diameter_px
        if len(xy):
            distance = _squared_distance(xy, mark.x, mark.y)
            nearest = int(np.argmin(distance))
            if distance[nearest] <= near_squared:
                score[number], class_id[number] = candidates.score[nearest], candidates.class_id[nearest]
    return replace(
        kept,
        xy_px=np.concatenate([kept.xy_px, marks.xy_px("yes")]),
        score=np.concatenate([kept.score, score]),
        diameter_px=np.concatenate([kept.diameter_px, diameter]),
        class_id=np.concatenate([kept.class_id, class_id]),
        reason=np.concatenate([kept.reason, np.full(len(added), "")]),
    )


def _squared_distance(xy: NDArray[np.float64], x: float, y: float) -> NDArray[np.float64]:
    dx, dy = xy[:, 0] - x, xy[:, 1] - y
    return np.asarray(dx * dx + dy * dy)


def is_inside_polygon(xy: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) Which points lie inside a polygon, by the even-odd rule; the page uses the same sums in the same order."""
    inside = np.zeros(len(xy), bool)
    x, y = xy[:, 0], xy[:, 1]
    for (x1, y1), (x2, y2) in zip(corners.tolist(), np.roll(corners, 1, axis=0).tolist(), strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


# -------------------------------------------------------------------------------------------------------- the journal


@dataclass(frozen=True, kw_only=True)
class History:
    """A journal as read.

    Parameters
    ----------
    lines : every operation
    marks : what they come to
    undo, redo : groups that can be undone or done again, the next one last
    """

    lines: tuple[Mapping[str, Any], ...]
    marks: Marks
    undo: tuple[str, ...]
    redo: tuple[str, ...]

    @property
    def revision(self) -> int:
        return len(self.lines)

    def what(self, group: str) -> str:
        """What a group did, in words: `erased 14`."""
        own = [line for line in self.lines if line["group"] == group]
        verb = str(own[0].get("what", "edited")) if own else ""
        count = sum(line["op"] in ("put", "drop") for line in own)
        return f"{verb} {count}" if count > 1 and verb == "erased" else verb


class Journals:
    """The journals of a run, one append-only file for each micrograph that was touched.

    Parameters
    ----------
    folder : `RUN/edits`; made with the first mark
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int], History]] = {}

    def path(self, key: str) -> Path:
        problem = key_problem(key)
        if problem:
            raise InputError(f"micrograph {key!r} cannot have a journal: {problem}")
        return self.folder / "journal" / f"{key}.jsonl"

    def keys(self) -> list[str]:
        """Of the micrographs that have a journal."""
        top = self.folder / "journal"
        return sorted(path.relative_to(top).as_posix().removesuffix(".jsonl") for path in top.rglob("*.jsonl"))

    def read(self, key: str) -> History:
        """The history of one micrograph; empty where nothing was marked.

        Raises
        ------
        FormatError
            If a line other than a torn last one is damaged; the file is left alone.
        """
        path = self.path(key)
        try:
            status = path.stat()
        except OSError:
            return _folded([])
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = (stamp, _folded(_parsed(path.read_bytes(), path)))
            self._known[key] = known
        return known[1]

    def append(self, key: str, operations: Sequence[Mapping[str, Any]], *, now: str, by: str = "") -> History:
        """Add one action of a person, on the disk when this returns. A group that is there already is not added again.

        Parameters
        ----------
        operations : as the page sends them, see `checked_operations`; all of one group
        now : the time, for whoever reads the journal

        Raises
        ------
        FormatError
            If the journal is damaged.
        OutputError
            If it cannot be written; nothing was added then.
        """
        with self._locked(key) as stream:
            history = _folded(_parsed(stream.read(), self.path(key)))
            present = {line["group"] for line in history.lines}
            new = [{**one, "by": by, "t": now} for one in operations if one["group"] not in present]
            return self._added(stream, history, new)

    def undo(self, key: str, *, group: str, now: str, by: str = "", forward: bool = False) -> History:
        """Append the inverse of the last group that is not undone; `forward`: do the last undone one again.

        `group` names the new one: asked for twice, it is undone once. Nothing happens where there is nothing to undo.
        """
        with self._locked(key) as stream:
            history = _folded(_parsed(stream.read(), self.path(key)))
            stack = history.redo if forward else history.undo
            if not stack or any(line["group"] == group for line in history.lines):
                return history
            changes = _again(history, stack[-1]) if forward else _inverse(history, stack[-1])
            link = {"redoes" if forward else "undoes": stack[-1]}
            return self._added(
                stream, history, [{**one, "group": group, **link, "by": by, "t": now} for one in changes]
            )

    @contextmanager
    def _locked(self, key: str) -> Iterator[Any]:
        path = self.path(key)
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = open(path, "a+b")  # noqa: SIM115  # closed below
        with stream:
            _lock(stream.fileno())
            stream.seek(0)
            yield stream

    def _added(self, stream: Any, history: History, new: Sequence[Mapping[str, Any]]) -> History:
        if not new:
            return history
        path = Path(stream.name)
        data = "".join(json.dumps(one, ensure_ascii=True) + "\n" for one in new).encode("ascii")
        with explain_write_errors(path):
            stream.seek(0)
            whole = stream.read()
            end = whole.rfind(b"\n") + 1
            if end < len(whole):  # the torn last line of a process that was killed
                os.ftruncate(stream.fileno(), end)
            try:
                written = os.write(stream.fileno(), data)
                if written < len(data):
                    raise OSError(28, os.strerror(28))
                os.fsync(stream.fileno())
            except OSError:
                os.ftruncate(stream.fileno(), end)
                raise
        return _folded([*history.lines, *new])


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; one viewer at a time there
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _parsed(data: bytes, path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):  # what follows the last line end is torn
        try:
            content = json.loads(line)
            lines.append({**content, **_checked(content)})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(
                f"{path} line {number}: expected one JSON object that says what was marked ({error}); mend or delete "
                "the line; until then this micrograph can be looked at, and not edited"
            ) from error
    return lines


def checked_operations(
    content: Any, *, shape_yx: tuple[int, int] | None, diameter_px: float, group: str | None = None
) -> list[dict[str, Any]]:
    """Operations that came from outside, every field checked.

    Raises
    ------
    ValueError
        That says which field is wrong.
    """
    if not isinstance(content, list) or not 0 < len(content) <= MOST_OPERATIONS:
        raise ValueError(f"expected a list of 1 to {MOST_OPERATIONS} operations")
    checked = []
    for one in content:
        if not isinstance(one, dict):
            raise ValueError("an operation is an object")
        operation = _checked(one)
        if group is not None:
            operation["group"] = group
        places = [(operation["x"], operation["y"]), *operation.get("points", [])] if operation["op"] == "put" else []
        if shape_yx is not None:
            height, width = shape_yx
            for x, y in places:
                if not (-diameter_px <= x < width + diameter_px and -diameter_px <= y < height + diameter_px):
                    raise ValueError(f"{x:g}, {y:g} lies outside the micrograph")
        checked.append(operation)
    return checked


def _checked(one: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {"op": one["op"], "group": _matching(_WORD, one["group"], "group")}
    for name in ("undoes", "redoes"):
        if name in one:
            operation[name] = _matching(_WORD, one[name], name)
    if "what" in one:
        operation["what"] = _matching(_WHAT, one["what"], "what")
    if one["op"] == "verdict":
        if one["value"] not in VERDICTS:
            raise ValueError(f"verdict is {str(one['value'])[:40]!r}, expected {', '.join(VERDICTS)}")
        operation["value"] = one["value"]
    elif one["op"] == "complete":
        if not isinstance(one["value"], bool):
            raise ValueError("complete is true or false")
        operation["value"] = one["value"]
    elif one["op"] in ("put", "drop"):
        operation["id"] = _matching(_WORD, one["id"], "id")
        if one["op"] == "put":
            operation |= _checked_mark(one)
    else:
        raise ValueError(f"op is {str(one['op'])[:40]!r}, expected put, drop, verdict or complete")
    return operation


def _checked_mark(one: Any) -> dict[str, Any]:
    if one["kind"] not in KINDS:
        raise ValueError(f"kind is {str(one['kind'])[:40]!r}, expected {', '.join(KINDS)}")
    mark: dict[str, Any] = {"kind": one["kind"], "x": _number(one["x"]), "y": _number(one["y"])}
    if one["kind"] == "yes" and one.get("d") is not None:
        if not 0 < (diameter := _number(one["d"])) < 1e5:
            raise ValueError("diameter is above 0")
        mark["d"] = diameter
    if one["kind"] == "junk":
        points = one["points"]
        if not isinstance(points, list) or not 3 <= len(points) <= MOST_POINTS:
            raise ValueError(f"an area has 3 to {MOST_POINTS} corners")
        mark["points"] = [[_number(x), _number(y)] for x, y in points]
    return mark


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e7:
        raise ValueError(f"{str(value)[:40]!r} is no number of pixels")
    return float(value)


def _matching(pattern: re.Pattern[str], value: Any, name: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{name} is {str(value)[:60]!r}, expected to match {pattern.pattern}")
    return value


def _after(marks: Marks, line: Mapping[str, Any]) -> Marks:
    if line["op"] == "verdict":
        return replace(marks, verdict=line["value"])
    if line["op"] == "complete":
        return replace(marks, is_complete=line["value"])
    by_id = {name: mark for name, mark in marks.by_id.items() if name != line["id"]}
    if line["op"] == "put":
        points = tuple((float(x), float(y)) for x, y in line.get("points", ()))
        by_id[line["id"]] = Mark(kind=line["kind"], x=line["x"], y=line["y"], diameter_px=line.get("d"), points=points)
    return replace(marks, by_id=by_id)


def _folded(lines: Sequence[Mapping[str, Any]]) -> History:
    by_id: dict[str, Mark] = {}
    marks = Marks()
    undo: list[str] = []
    redo: list[str] = []
    seen: set[str] = set()
    for line in lines:
        if line["op"] in ("verdict", "complete"):
            marks = _after(marks, line)
        else:
            by_id.pop(line["id"], None)
            if line["op"] == "put":
                by_id |= _after(Marks(), line).by_id
        if line["group"] in seen:
            continue
        seen.add(line["group"])
        if "undoes" in line:
            if line["undoes"] in undo:
                undo.remove(line["undoes"])
                redo.append(line["undoes"])
        elif "redoes" in line:
            if line["redoes"] in redo:
                redo.remove(line["redoes"])
                undo.append(line["redoes"])
        else:
            undo.append(line["group"])
            redo.clear()
    return History(lines=tuple(lines), marks=replace(marks, by_id=by_id), undo=tuple(undo), redo=tuple(redo))


def _inverse(history: History, group: str) -> list[dict[str, Any]]:
    """What puts back everything that a group changed to how it was before the group."""
    own = [line for line in history.lines if line["group"] == group]
    start = next(number for number, line in enumerate(history.lines) if line["group"] == group)
    before = _folded(history.lines[:start]).marks
    changes: dict[str, dict[str, Any]] = {}
    for line in own:
        if line["op"] == "verdict":
            changes["verdict"] = {"op": "verdict", "value": before.verdict}
        elif line["op"] == "complete":
            changes["complete"] = {"op": "complete", "value": before.is_complete}
        else:
            mark = before.by_id.get(line["id"])
            changes[f"mark {line['id']}"] = (
                {"op": "drop", "id": line["id"]}
                if mark is None
                else {"op": "put", "id": line["id"], **plain_mark(mark)}
            )
    return list(changes.values())


def _again(history: History, group: str) -> list[dict[str, Any]]:
    kept = ("op", "id", "kind", "x", "y", "d", "points", "value")
    return [{name: line[name] for name in kept if name in line} for line in history.lines if line["group"] == group]


def plain_mark(mark: Mark) -> dict[str, Any]:
    """A mark as the journal and the page write it."""
    plain: dict[str, Any] = {"kind": mark.kind, "x": mark.x, "y": mark.y}
    if mark.diameter_px is not None:
        plain["d"] = mark.diameter_px
    if mark.points:
        plain["points"] = [list(point) for point in mark.points]
    return plain


def mark_operations(
    marks: Marks, kind: str, xy_px: Iterable[Sequence[float]], *, diameter_px: float, group: str
) -> list[dict[str, Any]]:
    """The operations of marking places as `yes` or `no`, for scripts and notebooks; the page makes the same.

    A new `yes` drops a `no` that is near, and the reverse; a second one of a kind moves the first.
    """
    near_squared = (NEAR_DIAMETERS * diameter_px) ** 2
    operations: list[dict[str, Any]] = []
    for number, (x, y) in enumerate(xy_px):
        at = {"op": "put", "group": group, "kind": kind, "x": float(x), "y": float(y)}
        near = [
            (name, mark)
            for name, mark in marks.by_id.items()
            if mark.kind in ("yes", "no") and (mark.x - x) ** 2 + (mark.y - y) ** 2 <= near_squared
        ]
        same = [name for name, mark in near if mark.kind == kind]
        operations.append({**at, "id": same[0] if same else f"{group}-{number}"})
        operations += [{"op": "drop", "id": name, "group": group} for name, _ in near if not same or name != same[0]]
        for operation in operations:
            marks = _after(marks, operation)
    return operations


# ------------------------------------------------------------------------------------------------------ what is made


def junk_mask(marks: Marks, shape_yx: tuple[int, int]) -> NDArray[np.uint8]:
    """(h / 8, w / 8) 255 where junk is marked."""
    import cv2

    height, width = (max(1, -(-side // MASK_SHRINK)) for side in shape_yx)
    mask = np.zeros((height, width), np.uint8)
    for mark in marks.of_kind("junk"):
        corners = (np.array(mark.points) + 0.5) * [width / shape_yx[1], height / shape_yx[0]] - 0.5
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255)
    return mask


def write_junk_mask(folder: Path, key: str, marks: Marks, shape_yx: tuple[int, int]) -> None:
    """`masks/<key>.png`, for `cryopick pick --exclusion-masks`; removed where no junk is marked any more."""
    import cv2

    path = folder / "masks" / f"{key}.png"
    if marks.of_kind("junk"):
        write_bytes_atomic(path, cv2.imencode(".png", junk_mask(marks, shape_yx))[1].tobytes())
    else:
        path.unlink(missing_ok=True)
