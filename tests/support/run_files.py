"""What two run folders of the same picks have in common: every file, without durations and times of day."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

OF_THE_CALL = ("run.log", "command.txt", ".lock", ".owner")
TIMES = ("seconds", "started", "ended", "host")


def files_of(run: Path) -> dict[str, bytes]:
    """Content by name below the run folder; of logs of jobs that failed there is none."""
    return {
        path.relative_to(run).as_posix(): _without_times(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in OF_THE_CALL and ".cluster" not in path.relative_to(run).parts
    }


def _without_times(path: Path) -> bytes:
    if path.parent.name == "records" or path.name == "summary.json":
        content = json.loads(path.read_text())
        return json.dumps({key: value for key, value in content.items() if key not in TIMES}).encode()
    if path.name == "micrographs.star":
        return _star_without_seconds(path.read_text()).encode()
    if path.name == "report.html":
        return re.sub(
            r"<footer.*?</footer>|<title>.*?</title>|[\d.]+ s(?= (each|per|for))", "", path.read_text()
        ).encode()
    return path.read_bytes()


def _star_without_seconds(text: str) -> str:
    names = [line.split()[0] for line in text.splitlines() if line.startswith("_")]
    column = names.index("_cryopickSeconds")
    rows = []
    for line in text.splitlines():
        parts = shlex.split(line)
        rows.append(" ".join(parts[:column] + parts[column + 1 :]) if len(parts) == len(names) else line)
    return "\n".join(rows)
