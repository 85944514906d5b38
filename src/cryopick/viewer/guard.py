"""Who may ask the viewer's server what: the token, the host, the origin; and the headers of every answer.

The token stands in no address, cookie or log: the page sends it in a header, so no other page has a right by merely
being open in the same browser, and no other server of the same host ever gets it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY_BYTES = 1_000_000
MOST_PATH = 200
"""Characters; ours have fewer, and Python refuses to read numbers of thousands of digits."""
_NOWHERE = "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; {_NOWHERE}"
REPORT_POLICY = f"default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; {_NOWHERE}"
"""Of pages that hold their styles and pictures in themselves, and no scripts."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that refuses before anything is looked at.

    Parameters
    ----------
    token : that every request for data must send as `Authorization: Bearer`
    allowed_hosts : names besides those of this machine under which the page may be opened
    policy : what the page may load, as a content security policy
    """

    app: ASGIApp
    token: str
    allowed_hosts: tuple[str, ...] = ()
    policy: str = POLICY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers["content-security-policy"] = self.policy
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:  # noqa: PLR0911  # one sentence for each reason
        headers = Headers(scope=scope)
        if not self._is_own_host(headers.getlist("host")):
            return _refused(403, "this address is not one under which the viewer was opened; see --allow-host")
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin):
            return _refused(403, "another page asks")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refused(403, "another page asks")
        path = scope["path"]
        if len(path) > MOST_PATH:
            return _refused(404, "there is nothing of that name")
        if not path.startswith("/api/"):
            return None if scope["method"] in ("GET", "HEAD") else _refused(405, "only to be read")
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.token}".encode()):
            return _refused(401, "the token is missing or of another start of the viewer; open the link it printed")
        if scope["method"] == "POST":
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return _refused(415, "expected application/json")
            length = headers.get("content-length", "")
            if not length.isdigit():
                return _refused(411, "expected a content-length")
            if int(length) > MOST_BODY_BYTES:
                return _refused(413, f"expected at most {MOST_BODY_BYTES} bytes")
        return None

    def _is_own_host(self, hosts: list[str]) -> bool:
        return len(hosts) == 1 and self._is_allowed(hosts[0])

    def _is_allowed(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        return found is not None and found.group(1).lower() in (*LOCAL_NAMES, *self.allowed_hosts)

    def _is_own_origin(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and not parts.path and self._is_allowed(parts.netloc)


def is_local_address(host: str) -> bool:
    """Whether only this machine can reach what listens at this address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_names(names: Iterable[str]) -> tuple[str, ...]:
    """Allowed names as they stand in a Host header, without ports."""
    return tuple(name.strip().lower() for name in names if name.strip())


def _refused(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status_code=status)
