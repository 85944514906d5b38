"""`cryopick view` of a validation's folder: its report, for who has the link."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import complaints, serving_app, wait_for
from starlette.testclient import TestClient

from cryopick.cli.main import main
from cryopick.viewer.validation import create_validation_app

SIGNED = {"Authorization": "Bearer token-of-the-test"}
REPORT = (
    "<!doctype html><html><head><title>what picks give</title><style>h1 { color: rgb(1, 2, 3) }</style></head><body>"
    '<h1>maps</h1><img id="dot" alt="" src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lE'
    'QVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="><script>document.title = "ran"</script></body></html>'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a validation writes before its first map."""
    for name in ("settings.toml", "command.txt", "micrographs_ctf.star"):
        (tmp_path / name).write_text("x\n")
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    app = create_validation_app(folder, token="token-of-the-test")
    with TestClient(app, base_url="http://127.0.0.1:8700") as one:
        yield one


def test_the_report_is_given_to_who_has_the_token_and_is_the_newest(folder: Path, client: TestClient) -> None:
    assert client.get("/api/report", headers=SIGNED).text.startswith("there is no report yet: nothing was begun")
    (folder / "run.log").write_text("one\nrun1/Extract: made\n")
    answer = client.get("/api/report", headers=SIGNED)
    assert answer.status_code == 404
    assert "there is no report yet: run1/Extract: made" in answer.text
    for text in ("first", "second"):
        (folder / "report.html").write_text(text)
        assert client.get("/api/report", headers=SIGNED).text == text
    assert client.get("/api/report").status_code == 401
    assert "second" not in client.get("/").text
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


def view(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["cryopick", "view", *map(str, words), "--no-open", "--stop-after", "0.1"])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command_tells_the_link_and_refuses_what_belongs_to_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view(monkeypatch, folder) == 0
    told = capsys.readouterr().out
    assert "open:   http://127.0.0.1:" in told
    assert "marks" not in told
    assert view(monkeypatch, folder, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"event", "link", "port"}
    assert view(monkeypatch, folder, "--truth", folder) != 0
    assert "is a validation" in capsys.readouterr().err


@pytest.mark.browser
def test_the_page_shows_the_report_with_its_styles_and_pictures_and_runs_no_script_of_it(
    folder: Path, browser: Any
) -> None:
    complaints(browser)
    with serving_app(create_validation_app(folder, token="token-of-the-test")) as one:
        browser.get("about:blank")
        browser.get(one.link)
        wait_for(browser, "document.body.textContent.includes('there is no report yet')")
        threading.Timer(0.1, (folder / "report.html").write_text, [REPORT]).start()
        wait_for(browser, "document.querySelector('h1')")
        assert browser.title == "what picks give"
        script = (
            "return [getComputedStyle(document.querySelector('h1')).color, document.querySelector('#dot').naturalWidth]"
        )
        assert browser.execute_script(script) == ["rgb(1, 2, 3)", 1]
        browser.get("about:blank")
    assert [one for one in complaints(browser) if "404" not in one] == []
