"""The viewer's server: addresses that are numbers, answers that are small, and nothing written but a person's marks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cryopick.viewer import compare, exports, learning, pages
from cryopick.viewer.guard import Guard
from cryopick.viewer.session import Handler, Session, answer, endpoint

MEDIA = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def read_static() -> dict[str, tuple[bytes, str, str]]:
    """The files of the page, with their type and a digest, read once: there is no path that could lead elsewhere."""
    found = {}
    for one in Path(__file__).with_name("static").iterdir():
        media = MEDIA.get(one.name.rpartition(".")[2])
        if media is not None:
            data = one.read_bytes()
            found[one.name] = (data, media, f'"{hashlib.sha256(data).hexdigest()[:16]}"')
    return found


def static_page(first: str) -> Callable[[Request], Awaitable[Response]]:
    """Answers with the files of the page; without a name with the first."""
    static = read_static()

    async def page(request: Request) -> Response:
        found = static.get(request.path_params.get("name", first))
        if found is None:
            return Response("there is no such file\n", status_code=404)
        data, media, etag = found
        return answer(request, data, media, cache="no-cache", etag=etag)

    return page


def create_app(session: Session, *, token: str, allowed_hosts: tuple[str, ...] = ()) -> Starlette:
    """The application; `session.watch` runs in a thread while it is up."""
    page = static_page("index.html")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        watcher = threading.Thread(target=session.watch, name="cryopick-viewer-watch", daemon=True)
        watcher.start()
        yield
        session.is_ended.set()
        await run_in_threadpool(watcher.join, 2.0)

    one = "/api/r/{r:int}/m/{i:int}"
    table: list[tuple[str, Handler]] = [
        ("/api/runs", pages.runs),
        ("/api/changes", pages.changes),
        ("/api/jobs", exports.get_jobs),
        ("/api/learn", learning.get_learnings),
        ("/api/r/{r:int}/micrographs", pages.micrographs),
        ("/api/r/{r:int}/curve", pages.curve),
        ("/api/r/{r:int}/expect", pages.expect),
        ("/api/r/{r:int}/scores/{other}", compare.scores),
        (f"{one}/candidates", pages.candidates),
        (f"{one}/marks", pages.read_marks),
        (f"{one}/thumb", pages.thumb),
        (f"{one}/overview", pages.overview),
        (f"{one}/map/{{j:int}}", pages.map_picture),
        (f"{one}/base/{{layer}}", pages.base),
        (f"{one}/tile/{{layer}}/{{level:int}}/{{x:int}}/{{y:int}}", pages.tile),
        (f"{one}/matched/{{other}}", compare.matched),
    ]
    posts: list[tuple[str, Handler]] = [
        (f"{one}/marks", pages.write_marks),
        ("/api/view", pages.write_view),
        ("/api/export", exports.post_export),
        ("/api/r/0/threshold", exports.post_threshold),
        ("/api/learn/plan", learning.post_plan),
        ("/api/learn", learning.post_learn),
        ("/api/learn/{n:int}/stop", learning.post_stop),
        ("/api/learn/{n:int}/resume", learning.post_resume),
        ("/api/learn/{n:int}/after", learning.post_after),
        ("/api/learn/{n:int}/pick", learning.post_pick),
    ]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", page),
            *(Route(path, endpoint(session, handler), methods=["GET"]) for path, handler in table),
            *(Route(path, endpoint(session, handler), methods=["POST"]) for path, handler in posts),
        ],
        middleware=[Middleware(Guard, token=token, allowed_hosts=allowed_hosts)],
        lifespan=lifespan,
    )
