"""What one start of the viewer looks at, and how requests are read and answered."""

from __future__ import annotations

import gzip
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from cryopick.data.labels import Labels
from cryopick.errors import CryopickError, FormatError, OutputError
from cryopick.types import Picks
from cryopick.viewer.guard import MOST_BODY_BYTES
from cryopick.viewer.jobs import Jobs
from cryopick.viewer.pictures import Pictures
from cryopick.viewer.sources import Source
from cryopick.workflows.edits import Journals, Marks, apply_marks
from cryopick.workflows.run_index import LOWEST

LOOK_AGAIN_S = 5.0
SAVE_INDEX_S = 30.0
FOREVER = "private, max-age=86400, immutable"
_COMPRESSED_FROM = 1000


class Refused(Exception):  # noqa: N818  # an answer, not a fault
    """An answer other than 200, with a sentence for the person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Session:
    """What one start of the viewer looks at.

    Parameters
    ----------
    sources : the run whose picks are edited first, then those it is compared with
    edits : folder of the marks
    read_only : why nothing can be marked; "" where it can
    labels : what is known to be right, by micrograph; empty where nothing is
    """

    sources: list[Source]
    edits: Path
    read_only: str = ""
    labels: Mapping[str, Labels] = field(default_factory=dict)
    cache_bytes: int | None = None
    is_ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.pictures = Pictures(self.sources, most_bytes=self.cache_bytes)
        self.journals = Journals(self.edits)
        self.jobs = Jobs(lambda: self.note("jobs"))
        self.changes: list[tuple[str, int, int]] = []
        self._changed = threading.Lock()

    def add(self, source: Source) -> None:
        """Look at another run too, to compare with."""
        self.sources.append(source)

    def note(self, what: str, run: int = 0, number: int = -1) -> None:
        """Tell the other pages of a change."""
        with self._changed:
            self.changes.append((what, run, number))

    def watch(self) -> None:
        """Read what is new of runs that grow, and index all candidates; until the session ends."""
        saved = time.monotonic()
        todo = {run: list(range(len(source.rows))) for run, source in enumerate(self.sources)}
        while not self.is_ended.is_set():
            for run, source in enumerate(list(self.sources)):
                todo.setdefault(run, list(range(len(source.rows))))
                unsaved = 0
                while todo[run] and not self.is_ended.is_set():
                    source.index_one(todo[run].pop(0))
                    unsaved += 1
                    source.indexed = len(source.rows) - len(todo[run])
                    if time.monotonic() - saved > SAVE_INDEX_S:
                        source.save_index()
                        saved = time.monotonic()
                        self.note("index", run)
                if unsaved:
                    source.save_index()
                    self.note("index", run)
            if self.is_ended.wait(LOOK_AGAIN_S):
                return
            for run, source in enumerate(list(self.sources)):
                with suppress(CryopickError, OSError):  # the next look may find it whole
                    for number in source.refresh():
                        todo.setdefault(run, []).append(number)
                        self.note("record", run, number)


# ------------------------------------------------------------------------------------------------------------- answers


def answer(
    request: Request, data: bytes, media: str, *, cache: str = "no-store", status: int = 200, etag: str = ""
) -> Response:
    headers = {"cache-control": cache}
    if etag:
        headers["etag"] = etag
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
    if (
        len(data) >= _COMPRESSED_FROM
        and not media.startswith("image/")
        and "gzip" in request.headers.get("accept-encoding", "")
    ):
        data = gzip.compress(data, compresslevel=5)
        headers["content-encoding"] = "gzip"
        headers["vary"] = "accept-encoding"
    return Response(data, status_code=status, media_type=media, headers=headers)


def as_json(request: Request, content: Any, *, status: int = 200) -> Response:
    """Names may be in no encoding at all, which ASCII escapes survive; NaN, which JSON lacks, becomes null."""
    text = json.dumps(_without_nan(content), ensure_ascii=True, allow_nan=False)
    return answer(request, text.encode("ascii"), "application/json", status=status)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def as_numbers(request: Request, array: NDArray[Any], *, cache: str = "no-store") -> Response:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return answer(request, little.tobytes(), "application/octet-stream", cache=cache)


Handler = Callable[["Request", Session], Any]


def endpoint(session: Session, handler: Handler) -> Callable[[Request], Any]:
    async def answered(request: Request) -> Response:
        try:
            if request.method == "POST":
                request.state.content = await _content(request)
            response: Response = await run_in_threadpool(handler, request, session)
            return response
        except Refused as refused:
            return as_json(request, {"error": str(refused)}, status=refused.status)
        except OutputError as error:
            return as_json(request, {"error": str(error)}, status=507)
        except FormatError as error:
            return as_json(request, {"error": str(error)}, status=409)
        except CryopickError as error:
            return as_json(request, {"error": str(error)}, status=422)
        except OSError as error:
            return as_json(request, {"error": f"cannot be read: {error.strerror or error}"}, status=422)

    return answered


async def _content(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise Refused(413, f"expected at most {MOST_BODY_BYTES} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected JSON ({str(error)[:100]})") from error


def source_of(request: Request, session: Session) -> tuple[int, Source]:
    run = int(request.path_params["r"])
    if not 0 <= run < len(session.sources):
        raise Refused(404, "there is no such run")
    return run, session.sources[run]


def micrograph_of(request: Request, session: Session) -> tuple[int, Source, int]:
    run, source = source_of(request, session)
    number = int(request.path_params["i"])
    if not 0 <= number < len(source.rows):
        raise Refused(404, "there is no such micrograph")
    return run, source, number


def number_in(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise Refused(400, f"{name} is no number") from None
    if math.isnan(value):
        raise Refused(400, f"{name} is no number")
    return min(max(value, LOWEST), -LOWEST)


@dataclass(frozen=True)
class CutAsked:
    """A cut as the page asks for it; `is_own`: the run's, with its beliefs."""

    threshold: float
    limits: tuple[float, float]
    is_own: bool


def cut_in(request: Request, source: Source) -> CutAsked:
    is_own = request.query_params.get("threshold", "") == ""
    limits = number_in(request, "low", 0.0), number_in(request, "high", float("inf"))
    return CutAsked(number_in(request, "threshold", source.cutting.threshold), limits, is_own)


def shown_picks(session: Session, run: int, number: int, cut: CutAsked) -> Picks:
    """The picks of one micrograph as the page shows them: at the cut, with marks where it is the edited run."""
    source = session.sources[run]
    row = source.rows[number]
    found = source.candidates(number)
    limits_hold = cut.limits != (0.0, float("inf"))
    return apply_marks(
        found,
        Marks() if run else session.journals.read(row.key).marks,
        threshold=cut.threshold,
        diameter_px=source.diameter_px(number),
        power=source.powers(number, found) if limits_hold else None,
        power_limits=cut.limits,
        belief=row.belief if cut.is_own else 1.0,
    )
