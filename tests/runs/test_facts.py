"""`summary.json` says where, when and with what a run was computed, and the docs say what each of its fields is."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import fields
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from discs import DIAMETER_PX

from cryopick.io.images.mrc import write_mrc
from cryopick.io.weights import find_weights
from cryopick.runs.files import UsedFile
from cryopick.runs.results import RunSummary
from cryopick.runs.settings import make_settings
from cryopick.runs.sizes import SizesAtPixelSize
from cryopick.runs.verdicts import Verdict
from cryopick.version import __version__
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"


def documented() -> dict[str, str]:
    """What the page says of each field."""
    section = PAGE.read_text().partition("## summary.json, field by field")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \| (.+) \|$", section, flags=re.MULTILINE)
    return {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}


def stored(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def test_the_page_names_every_field_of_a_summary_and_no_other() -> None:
    assert sorted(documented()) == sorted(one.name for one in fields(RunSummary))


@pytest.mark.parametrize(("field", "part"), [("sizes", SizesAtPixelSize), ("verdicts", Verdict), ("files", UsedFile)])
def test_the_page_names_every_part_of_a_field(field: str, part: type[Any]) -> None:
    text = documented()[field].partition(": ")[2]
    assert set(re.findall(r"`(\w+)`", text)) == {one.name for one in fields(part)}


def test_a_summary_has_the_fields_of_the_page(folder_of_discs: Path, tmp_path: Path) -> None:
    before = datetime.now().astimezone().replace(microsecond=0)
    pick_to_folder([folder_of_discs], tmp_path / "run", make_settings("blob", diameter=f"{DIAMETER_PX}px"), workers=1)
    summary = stored(tmp_path / "run")
    assert set(summary) == set(documented())
    assert (summary["state"], summary["host"]) == ("finished", socket.gethostname())
    assert summary["cryopick_version"] == __version__
    started, ended = (datetime.fromisoformat(summary[name]) for name in ("started", "ended"))
    assert before <= started <= ended <= datetime.now().astimezone()  # comparing them needs a zone in each
    assert (summary["device"], summary["precision"], summary["files"]) == ("cpu", "", {})
    assert len(summary["processors"]) == 1
    assert summary["processors"][0]


def test_rethreshold_keeps_what_is_known_of_the_picking(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick_to_folder([folder_of_discs], run, make_settings("blob", diameter=f"{DIAMETER_PX}px"), workers=1)
    before = stored(run)
    rethreshold(run, 5.0)
    after = stored(run)
    kept = ("state", "host", "started", "ended", "device", "precision", "processors", "files")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    content = {name: value for name, value in after.items() if name not in kept}
    (run / "summary.json").write_text(json.dumps(content))  # as an older version wrote it
    rethreshold(run, 4.0)
    assert (stored(run)["state"], stored(run)["files"]) == ("", {})


def test_files_are_named_with_what_was_in_them(folder_of_discs: Path, tmp_path: Path, disc_stack: Any) -> None:
    references = tmp_path / "references.mrcs"
    write_mrc(references, disc_stack, pixel_size_angstrom=2.0)
    settings = make_settings("template", references=references, rotation_step_deg=90.0)
    pick_to_folder([folder_of_discs / "m1.mrc"], tmp_path / "run", settings, workers=1)
    digest = sha256(references.read_bytes()).hexdigest()
    used = {"path": str(references), "is_shipped": False, "sha256": digest}
    assert stored(tmp_path / "run")["files"] == {"references": used}


def test_shipped_weights_are_named_too(folder_of_discs: Path, tmp_path: Path) -> None:
    settings = make_settings("general", diameter=f"{DIAMETER_PX}px", working_diameter="16px")
    pick_to_folder([folder_of_discs / "m1.mrc"], tmp_path / "run", settings, workers=1)
    summary = stored(tmp_path / "run")
    digest = sha256(find_weights("general").read_bytes()).hexdigest()
    assert summary["files"] == {"weights": {"path": "general.safetensors", "is_shipped": True, "sha256": digest}}
    assert summary["precision"] in ("int8", "bfloat16", "float32")


@pytest.fixture
def disc_stack() -> Any:
    """(1, 30, 30) a bright disc of 20 px."""
    import numpy as np

    y, x = np.mgrid[:30, :30] - 15
    return (np.hypot(x, y) <= DIAMETER_PX / 2).astype(np.float32)[None]
