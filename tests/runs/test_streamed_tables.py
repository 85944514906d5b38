"""Tables are written one micrograph after the other: the same bytes as all at once, and no more memory for more."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import disc_micrograph

from cryopick.geometry.units import Length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import make_table, read_star, star_text
from cryopick.runs.folder import RunFolder
from cryopick.runs.results import read_finished
from cryopick.runs.settings import make_settings
from cryopick.runs.sizes import SAME_PIXEL_SIZE, SizesSeen, sizes_of_run
from cryopick.runs.stored_settings import plan_of_run
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold
from finishing import make_run


@pytest.fixture
def odd_micrographs(tmp_path: Path) -> Path:
    """Two folders that share names, three pixel sizes, one that is blank, one that is no image."""
    inputs = tmp_path / "in"
    for number in range(9):
        name = f"{'ab'[number % 2]}/m{number // 2}.mrc"
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        size = [2.0, 1.0, None][number % 3]
        write_micrograph(inputs / name, replace(disc_micrograph(name, seed=number), pixel_size_angstrom=size))
    blank = Micrograph(np.zeros((60, 80), np.float32), pixel_size_angstrom=2.0)
    write_micrograph(inputs / "b" / "blank é.mrc", blank)
    (inputs / "a" / "broken.mrc").write_bytes(b"no image" * 300)
    return inputs


def rows_of(run: Path, key: str) -> list[list[str]]:
    with open(run / "candidates" / f"{key}.csv", newline="") as file:
        return list(csv.reader(file))[1:]


def nothing_kept(rows: list[list[str]]) -> str:
    likely = sum(row[5] == "" and float(row[2]) >= 0.5 for row in rows)
    return f"{likely} candidates look likely, as few as noise and ice give" if likely else "no candidate is kept"


def tables_at_once(run: Path, threshold: float, *, drop_bad: bool) -> dict[str, str]:
    """The three tables from records and candidates alone, all rows of a table held at once."""
    records = [json.loads(path.read_text()) for path in (run / "records").rglob("*.json")]
    records.sort(key=lambda record: record["name"])
    listed, particles, lines = [], [], []
    base_names: Counter[str] = Counter()
    for record in records:
        rows = [] if record["error"] else rows_of(run, record["key"])
        kept = [row for row in rows if row[5] == "" and np.float32(row[2]) >= np.float32(threshold)]
        is_done = not record["error"]
        scores = np.array([np.float32(row[2]) for row in kept], np.float64)
        lines.append(
            {
                "rlnMicrographName": record["relion_name"],
                "cryopickParticleCount": len(kept),
                "cryopickCandidateCount": len(rows),
                "cryopickMeanScore": round(float(scores.mean()), 6) if kept else -999.0,
                "cryopickSeconds": round(float(record["seconds"]), 3),
                "cryopickStatus": "done" if is_done else "failed",
                "cryopickFilledShare": -999.0,
                "cryopickJunkShare": -999.0,
                "cryopickExpectedRight": -999.0,
                "cryopickVerdict": ("good" if kept else "empty") if is_done else "none",
                "cryopickVerdictReason": "none" if kept or not is_done else nothing_kept(rows),
                "cryopickWarnings": record["error"] or "; ".join(record["warnings"]) or "none",
            }
        )
        if is_done and (kept or not drop_bad):
            listed.append((record["relion_name"], f"{run.as_posix()}/picks/{record['key']}_picks.star"))
            particles += [(record["name"], row) for row in kept]
            base_names[Path(record["name"]).name] += 1
    is_unique = max(base_names.values(), default=1) == 1
    xy = np.array([[float(row[0]), float(row[1])] for _, row in particles]).reshape(-1, 2)
    return {
        "autopick.star": star_text(
            [
                make_table(
                    "coordinate_files",
                    {
                        "rlnMicrographName": [name for name, _ in listed],
                        "rlnMicrographCoordinates": [file for _, file in listed],
                    },
                )
            ],
            version=30001,
        ),
        "particles.star": star_text(
            [
                make_table(
                    "",
                    {
                        "rlnMicrographName": [Path(name).name if is_unique else name for name, _ in particles],
                        "rlnCoordinateX": xy[:, 0],
                        "rlnCoordinateY": xy[:, 1],
                        "rlnClassNumber": np.array([int(row[4]) for _, row in particles], np.int32),
                        "rlnAnglePsi": np.zeros(len(particles)),
                        "rlnAutopickFigureOfMerit": np.array([row[2] for _, row in particles], np.float32),
                    },
                )
            ]
        ),
        "micrographs.star": star_text(
            [make_table("micrographs", {label: [line[label] for line in lines] for label in lines[0]})], version=30001
        ),
    }


@pytest.mark.parametrize("drop_bad", [False, True])
def test_tables_that_grow_row_by_row_are_those_that_are_made_at_once(
    odd_micrographs: Path, tmp_path: Path, drop_bad: bool
) -> None:
    run = tmp_path / "run"
    settings = make_settings("blob", diameter="20px", drop_bad=drop_bad)
    summary = pick_to_folder([odd_micrographs], run, settings, workers=1)
    assert (len(summary.failed), summary.particles > 20) == (1, True)
    few = 1.001 * max(float(row[2]) for row in rows_of(run, "a/m0"))  # some hold none, and are dropped where bad
    for threshold in (None, few, 1e9):
        again = rethreshold(run, threshold)
        for name, text in tables_at_once(run, again.threshold, drop_bad=drop_bad).items():
            assert (run / name).read_text() == text, name
        combined = read_star(run / "particles.star")[""]
        assert len(combined) == again.particles


def test_files_that_would_hold_the_same_are_left_as_they_are(odd_micrographs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick_to_folder([odd_micrographs / "b"], run, make_settings("blob", diameter="20px"), workers=1)
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in ("run.log", ".lock")]
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in files}
    rethreshold(run, None)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in files} == before
    assert not list(run.rglob(".cryopick-*"))


def test_tables_are_whole_or_as_before_where_a_table_of_candidates_breaks_meanwhile(
    odd_micrographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    pick_to_folder([odd_micrographs / "a"], run, make_settings("blob", diameter="20px"), workers=1)
    before = {name: (run / name).read_bytes() for name in ("autopick.star", "particles.star", "micrographs.star")}
    read, calls = RunFolder.read_candidates, Counter[str]()

    def read_until(folder: RunFolder, record: Any) -> Picks:
        calls[record.name] += 1
        if record.name == "m2.mrc" and calls[record.name] == 2:
            folder.candidates_path(record.key).write_text("x_px")
        return read(folder, record)

    monkeypatch.setattr(RunFolder, "read_candidates", read_until)
    with pytest.raises(Exception, match=r"m2\.csv: expected a whole table"):
        rethreshold(run, 1e9)
    assert {name: (run / name).read_bytes() for name in before} == before
    assert (run / "unfinished.txt").exists()
    assert not list(run.rglob(".cryopick-*"))


def peak_bytes(run: Path) -> int:
    tracemalloc.start()
    rethreshold(run, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_finishing_more_micrographs_takes_hardly_more_memory(tmp_path: Path) -> None:
    for count in (30, 130):  # both more than the report shows pictures of
        make_run(tmp_path / f"run{count}", "blob", micrographs=count, candidates=200)
    peak_bytes(tmp_path / "run30")  # what is loaded once
    few, many = peak_bytes(tmp_path / "run30"), peak_bytes(tmp_path / "run130")
    # 120 scores of 4 bytes, a record, a row of each table; the candidates themselves would be 32 kB
    assert (many - few) / 100 < 4000


def test_only_scores_are_kept_of_candidates_and_sizes_where_the_picker_judges_by_them(tmp_path: Path) -> None:
    for picker, has_sizes in (("blob", False), ("general", True)):
        run = make_run(tmp_path / picker, picker, micrographs=2, candidates=30)
        finished = read_finished(run, plan_of_run(run).picker)
        for record in finished.records:
            kept = run.read_candidates(record).kept()
            one = finished.candidates[record.name]
            assert one.score.tolist() == kept.score.tolist()
            assert one.diameter_px.tolist() == (kept.diameter_px.tolist() if has_sizes else [])


@pytest.mark.parametrize("seed", range(6))
def test_sizes_that_are_counted_are_those_of_all_picks_together(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = [1.0, 1.004, 1.0041, 1.3, 2.0, None]
    kept = [
        Picks(
            xy_px=np.zeros((count, 2)),
            diameter_px=generator.normal(50, 20, count).round(int(generator.integers(3))).astype(np.float32),
            micrograph_name=f"m{number}",
            pixel_size_angstrom=sizes[generator.integers(len(sizes))],
        )
        for number, count in enumerate(generator.integers(0, 6, 12).tolist())
    ]
    seen = SizesSeen(None)
    for one in kept:
        seen.add(one)
    found = seen.sizes()
    assert found == sizes_of_run(kept[::-1], None)
    for one in found:
        own = [
            p
            for p in kept
            if (one.pixel_size_angstrom is None) == (p.pixel_size_angstrom is None)
            and (
                p.pixel_size_angstrom is None
                or abs(p.pixel_size_angstrom / (one.pixel_size_angstrom or 1) - 1) < SAME_PIXEL_SIZE - 1
            )
        ]
        assert one.micrographs == len(own)
        assert one.first_micrograph == min((p.micrograph_name for p in own), default="")
        diameters = np.concatenate([np.empty(0, np.float32), *(p.diameter_px for p in own)])
        assert one.diameter_px == (round(float(np.median(diameters)), 2) if len(diameters) else None)
    given = sizes_of_run(kept, Length(100, 100, "A"))
    assert all(one.diameter_angstrom in (100.0, None) for one in given)


def test_an_absurdly_long_list_is_written_in_pieces(tmp_path: Path) -> None:
    """The folder's stream keeps order and bytes, also of names that are no UTF-8."""
    folder = RunFolder(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    with folder.writing_piecewise(tmp_path / "list.txt") as write:
        for number in range(20_000):
            write(f"{number} {name}\n")
    assert (tmp_path / "list.txt").read_bytes() == b"".join(b"%d caf\xe9\n" % number for number in range(20_000))
