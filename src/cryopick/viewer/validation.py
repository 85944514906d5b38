"""The page of a validation in the viewer: its report, given only to who has the link, and whatever has its newest."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cryopick.viewer.guard import REPORT_POLICY, Guard
from cryopick.viewer.server import static_page
from cryopick.viewer.session import answer
from cryopick.workflows.validate3d.run import REPORT, progress_of

PAGE = "report.html"


def create_validation_app(folder: Path, *, token: str, allowed_hosts: tuple[str, ...] = ()) -> Starlette:
    """The application that shows the report of a validation's folder, as it is when the page is opened."""

    async def report(request: Request) -> Response:
        try:
            data = await run_in_threadpool((folder / REPORT).read_bytes)
        except FileNotFoundError:
            told = f"there is no report yet: {progress_of(folder)}; this page looks again\n"
            return PlainTextResponse(told, status_code=404)
        return answer(request, data, "text/html")

    page = static_page(PAGE)
    return Starlette(
        routes=[Route("/", page), Route("/static/{name}", page), Route("/api/report", report)],
        middleware=[Middleware(Guard, token=token, allowed_hosts=allowed_hosts, policy=REPORT_POLICY)],
    )
