"""`cryopick view`: look at picks, judge and mend them in a browser."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.json_lines import print_json
from cryopick.errors import InputError, OutputError, SettingsError
from cryopick.geometry.units import parse_length

FIRST_PORT, LAST_PORT = 8700, 8799
SHUTDOWN_S = 3


def command(
    *,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Run folder of `cryopick pick`, finished or growing, or folder of `cryopick validate3d`.",
            show_default=False,
        ),
    ] = None,
    with_: Annotated[
        list[Path] | None, typer.Option("--with", metavar="RUN2", help="Another run, to compare with; may be repeated.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Labels, to compare with: files, a folder, or a simulated set.")
    ] = None,
    picks: Annotated[
        Path | None, typer.Option(help="Instead of a run: coordinates of any program, in any format.")
    ] = None,
    micrographs: Annotated[list[str] | None, typer.Option(help="With --picks: the images that they are on.")] = None,
    diameter: Annotated[
        str | None, typer.Option("--diameter", "-d", help="With --picks: particle diameter (180A, 108px).")
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where marks are kept.", show_default="RUN/edits, or NAME.edits of picks"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's needs --allow-host.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; by default the first free one from 8700.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name under which the page may be opened; traffic is not encrypted."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser, where this machine has one.")] = True,
    cache_mb: Annotated[
        int | None, typer.Option(help="Memory for pictures, MB.", show_default="an eighth of the memory, 256 to 2048")
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End by itself after this time, for batch sessions.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object with the link on stdout.")] = False,
) -> None:
    """Look at the picks of a run in a browser, also through an SSH tunnel: judge, mend, export.

    cryopick view run1

    Nothing that `cryopick pick` wrote is changed: marks are kept in run1/edits, exports in run1/edited. Of a
    validation its report is shown.
    """
    from cryopick.evaluation.scored_sets import read_truth
    from cryopick.viewer.guard import host_names, is_local_address
    from cryopick.viewer.server import create_app
    from cryopick.viewer.session import Session
    from cryopick.viewer.sources import PicksSource, RunSource, Source
    from cryopick.viewer.validation import create_validation_app
    from cryopick.workflows.validate3d.run import is_validation

    if (run is None) == (picks is None):
        raise SettingsError("give one run folder, or --picks with --micrographs")
    if picks is not None and not micrographs:
        raise SettingsError("--picks needs --micrographs: the images that they are on")
    if picks is None and (micrographs or diameter):
        raise SettingsError("--micrographs and --diameter belong to --picks; a run knows its own")
    if cache_mb is not None and cache_mb < 1:
        raise SettingsError(f"cache of {cache_mb} MB: expected 1 or more")
    if not is_local_address(host) and not allow_host:
        raise SettingsError(
            f"host {host} can be reached by other machines, and traffic is not encrypted; better use an SSH tunnel. "
            "Where the network is trusted, give --allow-host with the name under which the page is opened"
        )
    names, token = host_names(allow_host or ()), secrets.token_urlsafe(32)
    if run is not None and is_validation(run):
        if with_ or truth or edits:
            raise SettingsError(
                f"{run}: is a validation, of which the report is shown; --with, --truth and --edits belong to runs"
            )
        app = create_validation_app(run, token=token, allowed_hosts=names)
        _show(app, host, port, token=token, names=names, is_json=json, is_opened=open_, stop_after=stop_after)
        return
    sources: list[Source] = []
    if run is not None:
        sources.append(RunSource(run))
        place = edits or run / "edits"
    else:
        assert picks is not None
        length = None if diameter is None else parse_length(diameter)
        imported = PicksSource(picks, micrographs or [], diameter=length)
        if imported.left_out:
            typer.echo(
                f"warning: {len(imported.left_out)} micrographs with picks are not among the images and left out: "
                f"{', '.join(imported.left_out[:3])}",
                err=True,
            )
        sources.append(imported)
        place = edits or Path(f"{picks.name}.edits")
    sources += [RunSource(one) for one in with_ or ()]
    read_only = _why_read_only(place)
    if read_only:
        typer.echo(f"warning: {read_only}", err=True)
    session = Session(
        sources,
        place,
        read_only=read_only,
        labels={} if truth is None else read_truth(truth),
        cache_bytes=None if cache_mb is None else cache_mb << 20,
    )
    app = create_app(session, token=token, allowed_hosts=names)
    _show(
        app,
        host,
        port,
        token=token,
        names=names,
        is_json=json,
        is_opened=open_,
        stop_after=stop_after,
        edits=place,
        read_only=read_only,
    )


def _show(
    app: Any,
    host: str,
    port: int | None,
    *,
    token: str,
    names: Sequence[str],
    is_json: bool,
    is_opened: bool,
    stop_after: float | None,
    edits: Path | None = None,
    read_only: str = "",
) -> None:
    """Serve an application until it is stopped, and tell its link first; `edits` where marks can be made."""
    with _listening(host, port) as listener:
        chosen = listener.getsockname()[1]
        shown = names[0] if names else ("[::1]" if ":" in host else "127.0.0.1")
        link = f"http://{shown}:{chosen}/#t={token}"
        if is_json:
            marks = {} if edits is None else {"edits": str(edits), "read_only": read_only}
            print_json({"event": "view", "link": link, "port": chosen, **marks})
        else:
            _tell(link, chosen, names, edits)
        if is_opened and not is_json:
            _open_browser(link)
        _serve(app, listener, stop_after=stop_after)


def _tell(link: str, port: int, names: Sequence[str], edits: Path | None) -> None:
    user, machine = os.environ.get("USER", "you"), socket.gethostname()
    typer.echo(f"open:   {link}")
    if names:
        typer.echo("warning: other machines can reach this page, and traffic is not encrypted", err=True)
    else:
        typer.echo(f"from another computer, first: ssh -N -L {port}:127.0.0.1:{port} {user}@{machine}")
    if edits is None:
        typer.echo("end:    Ctrl-C")
        return
    typer.echo(f"marks:  {edits}")
    typer.echo("end:    Ctrl-C; every mark is on the disk as soon as the page says saved")


def _why_read_only(edits: Path) -> str:
    """Why marks cannot be kept in a folder, "" where they can; nothing is made yet."""
    parent = edits
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        return f"{edits}: {parent} is a file, so nothing can be marked; choose another place with --edits"
    if not os.access(parent, os.W_OK):
        return f"{edits}: cannot be written, so nothing can be marked; choose another place with --edits"
    return ""


@contextmanager
def _listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """A socket on the port that was asked for, or on the first free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last: OSError | None = None
    for one in [port] if port is not None else range(FIRST_PORT, LAST_PORT + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]"), one))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            listener.close()
            last = error if isinstance(error, OSError) else OSError(str(error))
            continue
        with listener:
            yield listener
        return
    if port is not None:
        raise InputError(
            f"port {port} on {host} cannot be used ({last and (last.strerror or last)}); leave --port out, and a free "
            "one is taken"
        )
    raise InputError(f"no port from {FIRST_PORT} to {LAST_PORT} on {host} is free; give one with --port")


def _serve(app: Any, listener: socket.socket, *, stop_after: float | None) -> None:
    import uvicorn

    # no configuration of logging: it would close the handlers of whoever runs this within a program of their own
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S, ws="none"
        )
    )
    if stop_after is not None:
        clock = threading.Timer(stop_after, lambda: setattr(server, "should_exit", True))
        clock.daemon = True
        clock.start()
    server.run(sockets=[listener])


def _open_browser(link: str) -> None:
    """Open the link by way of a file that only this user can read, so that the token stands in no list of processes."""
    import webbrowser

    has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or os.uname().sysname == "Darwin"
    if not has_display or os.environ.get("SSH_CONNECTION"):
        return
    try:
        descriptor, name = tempfile.mkstemp(prefix="cryopick-view-", suffix=".html")  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(
                f'<!doctype html><meta http-equiv="refresh" content="0;url={link}"><a href="{link}">open</a>\n'
            )
        webbrowser.open(f"file://{name}")
    except (OSError, OutputError, webbrowser.Error):
        return  # the link is printed
    threading.Timer(60, lambda: Path(name).unlink(missing_ok=True)).start()
