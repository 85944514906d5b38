"""`cryopick reproduce`: the tables and figures of the papers come out, beside the papers' own figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryopick.cli.main import build_app
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.machine import describe_machine
from cryopick.io.coordinates.formats import read_picks
from cryopick.workflows.benchmark import open_sets
from cryopick.workflows.reproduce import (
    PAPERS,
    cryoemmae,
    cryosegnet,
    cryotransformer,
    deepcryopicker,
    maps,
    papers,
    reproduce,
    segmentation_crf,
)
from cryopick.workflows.reproduce.bench import Bench, Method, slug
from cryopick.workflows.reproduce.figures import shown_picks
from cryopick.workflows.reproduce.results import (
    PaperFigure,
    PaperTable,
    Reproduction,
    cell_text,
    write_reproduction,
)
from cryopick.workflows.reproduce.stand_in import Barrels, StandIn, make_stand_ins

EXPECTED: Mapping[str, tuple[str, set[str], set[str]]] = {
    "cryotransformer": ("table-3", {"table-3"}, {"picks"}),
    "cryosegnet": ("modules", {"table-s1"}, set()),
    "cryoemmae": ("latent-space", {"separation", "table-s3"}, {"figure-3"}),
    "deepcryopicker": ("views", {"views"}, {"figure-4-klh-stand-in"}),
    "segmentation-crf": ("pixel-table", {"pixel-table", "picks"}, {"picks"}),
}
"""Of each paper one part, its tables and its figures; `cryopick reproduce all` makes every part."""
ON_DATA = ("segmentation-crf",)
"""Papers whose part is made on a folder of sets; the others, on the stand-in that is made without one."""


def folder_of_sets(folder: Path, paper: papers.Paper) -> Path:
    """Small sets named as the paper's: as many of them as there are stand-ins."""
    stand_ins = (*paper.stand_in_training, *paper.stand_in_test)
    training, test = len(paper.stand_in_training), len(paper.stand_in_test)
    names = [*paper.training[:training], *paper.test[:test]] or ["learnt-train", "unseen"]
    named = [replace(one, name=name) for one, name in zip(stand_ins, names, strict=True)]
    make_stand_ins(folder, named, tell=print)
    return folder


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of every training, on the smallest sets: what comes out is complete, not good."""
    for module in (cryotransformer, cryosegnet, cryoemmae, deepcryopicker, segmentation_crf):
        steps = {"steps": 2, "validate_every": 2, "checkpoint_every": 2, "log_every": 1}
        monkeypatch.setattr(module, "SMALL_TRAINING", {**module.SMALL_TRAINING, **steps})
    monkeypatch.setattr(cryotransformer, "BACKBONES", ("resnet18", "resnet152"))
    monkeypatch.setattr(cryotransformer, "ABLATION_STEPS", 2)
    monkeypatch.setattr(cryosegnet, "ABLATION_STEPS", 2)
    monkeypatch.setattr(cryoemmae, "MICROGRAPHS", (1, 2))
    monkeypatch.setattr(segmentation_crf, "OUR_CRFS", ("none", "learned"))
    monkeypatch.setattr(segmentation_crf, "PUBLISHED_CRFS", ("none",))
    small = {}
    for name, paper in PAPERS.items():
        small[name] = replace(
            paper,
            stand_in_training=tuple(replace(one, side_px=320, count=2) for one in paper.stand_in_training[:2]),
            stand_in_test=tuple(
                one if name == "deepcryopicker" else replace(one, side_px=320, count=1)
                for one in paper.stand_in_test[:2]
            ),
        )
    monkeypatch.setattr(papers, "PAPERS", small)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("paper", EXPECTED)
def test_the_tables_and_figures_of_a_part_come_out(paper: str, tmp_path: Path) -> None:
    part, tables, figures = EXPECTED[paper]
    data = folder_of_sets(tmp_path / "data", papers.PAPERS[paper]) if paper in ON_DATA else None
    result = reproduce(paper, tmp_path / "out", only=[part], data=data, small=None if data is None else True)
    assert {table.name for table in result.tables} == tables
    assert {figure.name for figure in result.figures} == figures
    assert all(table.rows for table in result.tables)
    # what was trained was really run: no row of numbers is missing for want of weights
    assert not [one for one in result.missing if "no weights" in one and "authors" not in one]
    for table in result.tables:
        numbers = [cell for row in table.rows for cell in row if isinstance(cell, float)]
        assert np.isfinite(numbers).any(), table.name
    written = json.loads((tmp_path / "out/reproduction.json").read_text())
    assert set(written["tables"]) == tables
    assert all((tmp_path / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in figures)


def test_pictures_show_the_picks_that_runs_keep_beside_the_labels(tmp_path: Path) -> None:
    folder = make_stand_ins(tmp_path, [StandIn(name="sim", seed=3, side_px=320, count=1)], tell=print)["sim"]
    (data,) = open_sets([folder])
    bench = Bench(
        output=tmp_path / "out",
        test={"sim": data},
        training={},
        folders={"sim": folder},
        is_small=True,
        weights={},
        cryolo_model=None,
        tell=print,
    )
    blob, never = Method(label="blob", picker="blob"), Method(label="never run", picker="general")
    assert bench.evaluation(blob, data) is not None
    shown = shown_picks(bench, data, [blob, never])
    assert set(shown) == {"labels", "blob"}
    (written,) = read_picks(bench.run_folder(blob, data) / "picks").values()
    assert len(written) > 0
    np.testing.assert_allclose(np.sort(shown["blob"], axis=0), np.sort(written.xy_px, axis=0), atol=1e-3)


def table(**changes: Any) -> PaperTable:
    given: dict[str, Any] = {"name": "t", "title": "Table", "columns": ("set", "F1"), "rows": (("a", 0.5),)}
    return PaperTable(**{**given, **changes})


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 cells, expected 2"):
        table(rows=(("a",),))


def test_numbers_are_printed_as_papers_print_them_and_nothing_as_a_dash() -> None:
    shown = [cell_text(cell) for cell in (0.7615, 401_263, "ours", None, float("nan"), 133.3)]
    assert shown == ["0.761", "401,263", "ours", "-", "-", "133.3"]


def test_what_is_written_holds_both_what_was_measured_and_what_the_paper_says(tmp_path: Path) -> None:
    result = Reproduction(
        paper="p",
        title="Paper",
        reference="A. Uthor",
        data=("sets",),
        missing=("crYOLO: not installed",),
        tables=(table(paper=(("a", 0.75),), notes=("a note",)),),
        figures=(PaperFigure(name="f", title="Figure", png=b"\x89PNG"),),
        seconds=1.0,
        machine=describe_machine(),
    )
    write_reproduction(result, tmp_path)
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows == [["measured", "set", "F1"], ["here", "a", "0.500"], ["paper", "a", "0.750"]]
    for name in ("reproduction.md", "reproduction.html"):
        text = (tmp_path / name).read_text()
        assert all(word in text for word in ("0.500", "0.750", "a note", "crYOLO: not installed", "A. Uthor")), name


def test_the_papers_averages_are_the_means_of_their_rows() -> None:
    """Of CryoSegNet's Table 1, as typed in: each average is the mean over the seven sets, to its last digit."""
    sets = np.array([numbers for _, numbers in cryosegnet.PAPER_TABLE.values()])  # (set, method, number)
    difference = np.abs(sets.mean(axis=0) - np.array(cryosegnet.PAPER_AVERAGES))
    wrong = np.argwhere(difference > 0.0011)
    # F1 and Dice of two methods are printed otherwise in the article itself
    assert {cryosegnet.METHODS[method] for method, _ in wrong} <= {"Deep Picker", "template"}


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"paper": "nature"}, SettingsError, "known: cryotransformer"),
        ({"paper": "cryosegnet", "only": ["table-9"]}, SettingsError, "it has: table-1"),
        ({"paper": "cryosegnet", "weights": {"sam": Path("/none.pth")}}, InputError, "no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    arguments: dict[str, Any], error: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        reproduce(arguments.pop("paper"), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("paper", PAPERS)
def test_of_a_folder_of_sets_what_the_paper_names_is_taken_and_what_is_missing_is_said(
    paper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Bench] = []

    def part(bench: Bench) -> list[PaperTable]:
        seen.append(bench)
        return []

    wanted = PAPERS[paper]
    monkeypatch.setattr(papers, "PAPERS", {**PAPERS, paper: replace(wanted, parts={"part": part})})
    training = list(wanted.training[:1]) or (["a-train"] if wanted.names_no_sets else [])
    test = list(wanted.test[:1]) or ["b", "c"]
    for name in (*training, *test, *([] if wanted.names_no_sets else ["of-another-paper"])):
        Barrels(name=name, seed=1, count=1, side_px=200, particles=4).write(tmp_path / "data" / name)
    result = reproduce(paper, tmp_path / "out", data=tmp_path / "data")
    (bench,) = seen
    test = [name for name in (*training, *test) if wanted.names_no_sets or name in wanted.test]  # some are both
    test = [name for name in test if not (wanted.names_no_sets and name in training)]
    assert (sorted(bench.training), sorted(bench.test)) == (sorted(training), sorted(test))
    assert not bench.is_small
    told = " ".join(result.missing)
    lacking = {*wanted.training, *wanted.test} - {*training, *test}
    assert all(name in told for name in lacking)
    assert not any(f" {name}," in told for name in (*training, *test))
    assert ("names no sets" in told) == wanted.names_no_sets
    assert told.replace("; ", " ") in (tmp_path / "out/reproduction.md").read_text().replace("\n- ", " ") or told


def test_of_unnamed_sets_the_last_is_tested_on_where_no_name_says_what_to_train_on(tmp_path: Path) -> None:
    found = {name: tmp_path / name for name in ("a", "b", "c")}
    training, test = papers._chosen(found, PAPERS["segmentation-crf"])
    assert (list(training), list(test)) == (["a", "b"], ["c"])
    assert papers._chosen({"a": tmp_path}, PAPERS["segmentation-crf"]) == ({}, {"a": tmp_path})
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no folder of a set"):
        reproduce("segmentation-crf", tmp_path / "out", data=tmp_path / "none")


def test_a_folder_without_the_papers_sets_is_told_which_they_are(tmp_path: Path) -> None:
    (tmp_path / "data/10999").mkdir(parents=True)
    with pytest.raises(InputError, match="10028"):
        reproduce("cryosegnet", tmp_path / "out", data=tmp_path / "data")


def test_problems_of_one_kind_are_one_sentence(tmp_path: Path) -> None:
    bench = Bench(
        output=tmp_path, test={}, training={}, folders={}, is_small=True, weights={}, cryolo_model=None, tell=print
    )
    for number in range(5):
        bench.note("no diameter", of=f"m{number}")
        bench.note("no diameter", of=f"m{number}")
    bench.note("not installed")
    assert bench.told() == ["m0, m1, m2 and 2 more: no diameter", "not installed"]


def test_labels_become_folder_names() -> None:
    assert slug("U-Net + SAM (ours)/x") == "u-net-+-sam-ours-x"


def test_the_command_exists_and_shows_a_line_to_paste() -> None:
    from typer.testing import CliRunner

    done = CliRunner().invoke(build_app("reproduce", ["reproduce", "--help"]), ["reproduce", "--help"])
    assert done.exit_code == 0
    assert "cryopick reproduce deepcryopicker -o reproduced/" in done.output


def test_maps_stand_beside_the_papers_with_the_particles_that_made_them(tmp_path: Path) -> None:
    stand_in = StandIn(name="unseen", seed=1, count=1, side_px=256)
    folders = make_stand_ins(tmp_path, [stand_in], tell=lambda _: None)
    bench = Bench(
        output=tmp_path / "out",
        test={"unseen": open_sets(list(folders.values()))[0]},
        training={},
        folders=dict(folders),
        is_small=True,
        weights={},
        cryolo_model=None,
        tell=lambda _: None,
    )
    methods = [Method(label="ours (general)", picker="general"), Method(label="blob", picker="blob")]
    made = list(maps.maps(bench, methods=lambda _: methods, paper=[maps.CRYOTRANSFORMER_2, maps.CRYOTRANSFORMER_1]))
    tables = {one.name: one for one in made if isinstance(one, PaperTable)}
    assert set(tables) == {"maps-table-2", "maps-table-1", "maps-micrographs"}
    rows = {row[1]: row for row in tables["maps-table-2"].rows}
    assert set(rows) == {"ours (general)", "blob", "true picks"}
    assert rows["true picks"][8] == pytest.approx(1)
    assert 0.1 < float(rows["ours (general)"][8] or 0) < 1.2  # so few particles that single ones tell
    assert int(rows["ours (general)"][2] or 0) > 40
    by_count = tables["maps-micrographs"].rows
    truth = {row[0]: row[2] for row in by_count if row[1] == "truth"}
    assert truth[4] > truth[2]
    assert len(tables["maps-table-2"].paper) == 18
    assert bench.told() == []


def test_a_set_without_ctf_is_told_and_gives_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "is_simulation", lambda _: False)  # whose own CTF would be taken
    images = folder_of_sets(tmp_path / "data", PAPERS["segmentation-crf"])
    bench = Bench(
        output=tmp_path / "out",
        test={"unseen": open_sets([images / "unseen"])[0]},
        training={},
        folders={"unseen": images / "unseen"},
        is_small=True,
        weights={},
        cryolo_model=None,
        tell=lambda _: None,
    )
    made = list(maps.maps(bench, methods=lambda _: [], paper=[maps.CRYOSEGNET_2]))
    assert all(one.rows == () for one in made if isinstance(one, PaperTable))
    assert "micrographs_ctf.star" in bench.told()[0]
