"""Scoring picks against labels through the workflow and the command line."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_layouts import SHAPE_YX as DISCS_SHAPE_YX
from data_layouts import write_cryoppp_set
from discs import disc_centres
from typer.testing import CliRunner

from cryopick.cli.main import build_app
from cryopick.data.labels import Labels
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.report import as_json_object, as_table, draw_curves, write_evaluation
from cryopick.geometry.transforms import flip_y
from cryopick.pickers.registry import picker_class
from cryopick.runs.settings import make_settings, settings_sections
from cryopick.settings import to_toml
from cryopick.types import Picks
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

GRID = np.stack(np.meshgrid(np.arange(1, 9) * 100.0, np.arange(1, 6) * 100.0), axis=-1).reshape(-1, 2)  # 40 particles
SHAPE_YX = (600, 900)


def labels(*, uncertain: int = 0, diameter_px: float | None = 80.0, name: str = "m1") -> dict[str, Labels]:
    is_uncertain = np.arange(len(GRID)) < uncertain
    return {name: Labels(GRID, is_uncertain, diameter_px, name)}


def picks(offset_px: float = 0.0, *, wrong: int = 0, name: str = "m1.mrc") -> Picks:
    elsewhere = np.stack([50.0 + 97 * np.arange(wrong), np.full(wrong, 550.0)], axis=1)
    xy_px = np.concatenate([GRID + np.array([offset_px, 0.0]), elsewhere])
    score = np.concatenate([np.linspace(0.99, 0.6, len(GRID)), np.linspace(0.5, 0.1, wrong)])
    return Picks(xy_px=xy_px, score=score, micrograph_name=name, shape_yx=SHAPE_YX, pixel_size_angstrom=2.0)


def test_perfect_picks_score_one_everywhere() -> None:
    evaluation = evaluate([picks()], labels())
    for scores in evaluation.tolerances:
        assert (scores.counts.precision, scores.counts.recall, scores.counts.f1) == (1, 1, 1)
        assert scores.average_precision == pytest.approx(1)
    assert evaluation.main.centring.median_px == 0
    assert evaluation.pixel_mask is not None
    assert evaluation.pixel_mask.pooled.dice == 1
    assert evaluation.box_one_to_one.f1 == 1


def test_tolerance_is_a_fraction_of_the_diameter() -> None:
    evaluation = evaluate([picks(21.0)], labels())  # 21 px is more than 0.25, less than 0.5 of 80 px
    assert [scores.tolerance for scores in evaluation.tolerances] == [0.25, 0.5]
    assert [scores.counts.f1 for scores in evaluation.tolerances] == [0, 1]
    assert evaluate([picks(21.0)], labels(), diameter="84px").main.counts.f1 == 1
    assert evaluate([picks(21.0)], labels(), diameter="168A").main.counts.f1 == 1  # 2 Å per pixel
    own = evaluate([picks(21.0)], labels(), tolerance=0.3)
    assert [scores.tolerance for scores in own.tolerances] == [0.3, 0.25, 0.5]
    assert own.main.counts.f1 == 1


def test_wrong_picks_lower_precision_but_not_the_average_precision_when_they_score_lowest() -> None:
    evaluation = evaluate([picks(wrong=8)], labels())
    assert evaluation.main.counts.precision == pytest.approx(40 / 48)
    assert evaluation.main.average_precision == pytest.approx(1)
    assert evaluation.main.best_f1 == 1
    assert evaluation.main.best_threshold == pytest.approx(0.6)


def test_uncertain_labels_count_neither_way() -> None:
    counts = evaluate([picks()], labels(uncertain=10)).main.counts
    assert (counts.true_positive, counts.false_positive, counts.false_negative, counts.ignored) == (30, 0, 0, 10)


def test_rejected_picks_do_not_count() -> None:
    some = replace(picks(), reason=np.where(np.arange(40) < 4, "edge", ""))
    evaluation = evaluate([some], labels())
    assert evaluation.main.counts.recall == pytest.approx(0.9)
    assert evaluation.main.curve is not None
    assert evaluation.main.curve.recall[-1] == pytest.approx(0.9)


def test_a_labelled_micrograph_without_picks_counts_as_missed_and_is_named() -> None:
    truth = labels() | labels(name="m2")
    evaluation = evaluate([picks()], truth)
    assert evaluation.main.counts.recall == pytest.approx(0.5)
    assert any("m2" in note and "missed" in note for note in evaluation.notes)
    skipped = evaluate([picks()], truth, skip_unpicked=True)
    assert skipped.main.counts.recall == 1
    assert any("m2" in note and "left out" in note for note in skipped.notes)


def test_a_micrograph_without_labels_is_not_scored_and_is_named() -> None:
    evaluation = evaluate([picks(), picks(wrong=5, name="m9.mrc")], labels())
    assert evaluation.main.counts.false_positive == 0
    assert any("m9.mrc" in note for note in evaluation.notes)


def test_a_micrograph_labelled_as_empty_makes_every_pick_false() -> None:
    empty = {"m1": Labels(np.zeros((0, 2)), np.zeros(0, dtype=bool), 80.0, "m1")}
    evaluation = evaluate([picks()], empty)
    assert evaluation.main.counts.false_positive == 40
    assert np.isnan(evaluation.main.counts.recall)
    assert as_json_object(evaluation)["tolerances"][0]["recall"] is None


def test_no_common_micrograph_is_an_error_that_shows_both_names() -> None:
    with pytest.raises(InputError, match=r"other\.mrc"):
        evaluate([picks(name="other.mrc")], labels())


def test_unknown_diameter_and_unknown_pixel_size_are_errors_that_name_the_option() -> None:
    with pytest.raises(SettingsError, match="--diameter"):
        evaluate([picks()], labels(diameter_px=None))
    with pytest.raises(SettingsError, match="--pixel-size"):
        evaluate([replace(picks(), pixel_size_angstrom=None)], labels(), diameter="160A")


def test_picks_without_scores_have_counts_and_no_curve() -> None:
    evaluation = evaluate([replace(picks(), score=np.full(40, np.nan))], labels())
    assert evaluation.main.counts.f1 == 1
    assert evaluation.main.curve is None
    assert any("no score" in note for note in evaluation.notes)
    assert "| average precision" in as_table(evaluation)


def test_calibration_is_measured_only_for_probabilities() -> None:
    assert evaluate([picks(wrong=8)], labels()).calibration is None
    calibration = evaluate([picks(wrong=8)], labels(), is_probability=True).calibration
    assert calibration is not None
    assert calibration.observed_precision == pytest.approx(40 / 48)
    with pytest.raises(InputError, match="not probabilities"):
        evaluate([replace(picks(), score=np.linspace(0, 5, 40))], labels(), is_probability=True)


def test_a_share_just_below_one_is_not_printed_as_one() -> None:
    many = Picks(
        xy_px=np.stack([np.arange(4000) * 10.0 % 6000, np.arange(4000) // 600 * 40.0], axis=1),
        score=np.linspace(1, 0.5, 4000),
        micrograph_name="m1.mrc",
    )
    truth = {"m1": Labels(many.xy_px[:-1], np.zeros(3999, dtype=bool), 10.0, "m1")}
    evaluation = evaluate([many], truth)
    assert evaluation.main.counts.precision == 3999 / 4000
    row = next(line for line in as_table(evaluation).splitlines() if line.startswith("| precision"))
    assert "0.999" in row
    assert "1.000" not in row


@pytest.mark.parametrize(
    ("name", "settings", "is_probability"),
    [
        ("general", {}, True),
        ("cryosegnet", {}, True),
        ("cryosegnet", {"segmenter": "sam", "postprocessing": "published"}, False),  # predicted IoU
        ("cryotransformer", {"behaviour": "published"}, False),
        ("deepcryopicker", {}, False),  # "probability ..., not calibrated"
        ("blob", {}, False),
    ],
)
def test_calibration_follows_the_kind_of_score_and_not_the_words_about_it(
    folder_of_discs: Path, tmp_path: Path, name: str, settings: dict[str, str], is_probability: bool
) -> None:
    """Runs of version 0.1, whose summary does not tell the kind, included."""
    run_folder = tmp_path / "run"
    pick_to_folder([folder_of_discs], run_folder, make_settings("blob", diameter="20px"), workers=1)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary.pop("score_is_probability") is False
    summary["score_meaning"] = picker_class(name).score_meaning
    (run_folder / "summary.json").write_text(json.dumps(summary))
    (run_folder / "prepared.toml").unlink()
    (run_folder / "config.toml").write_text(to_toml(settings_sections(make_settings(name, **settings))))
    for path in (run_folder / "candidates").rglob("*.csv"):  # scores that could be probabilities
        head, *rows = path.read_text().splitlines()
        columns = [row.split(",") for row in rows]
        path.write_text("\n".join([head, *(",".join([*one[:2], "0.9", *one[3:]]) for one in columns)]) + "\n")
    evaluation = evaluate(run_folder, disc_labels())
    assert (evaluation.calibration is not None) == is_probability
    assert any("no calibrated probabilities" in note for note in evaluation.notes) != is_probability


def test_centring_error_is_given_in_angstrom_when_the_pixel_size_is_known() -> None:
    scores = as_json_object(evaluate([picks(3.0)], labels()))["tolerances"][0]
    assert scores["centring"]["median_px"] == pytest.approx(3)
    assert scores["centring"]["median_angstrom"] == pytest.approx(6)
    assert scores["centring"]["mean_offset_x_px"] == pytest.approx(3)


def disc_labels() -> dict[str, Labels]:
    """Truth of the three micrographs of `folder_of_discs`, named as another program might."""
    names = ("m1", "m2", "m3 é")
    return {name: Labels(disc_centres(i), np.zeros(3, dtype=bool), 20.0, name) for i, name in enumerate(names)}


def test_a_run_folder_gives_kept_picks_for_the_headline_and_all_candidates_for_the_curve(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    run_folder = tmp_path / "run"
    summary = pick_to_folder([folder_of_discs], run_folder, make_settings("blob", diameter="20px"), workers=1)
    at_default = evaluate(run_folder, disc_labels())
    assert at_default.main.counts.f1 == 1
    assert at_default.main.centring.median_px < 1
    assert at_default.pixel_size_angstrom == 2.0
    assert at_default.pixel_mask is not None
    curve = at_default.main.curve
    assert curve is not None
    assert curve.true_positive[-1] == 9
    in_force = int(np.searchsorted(-curve.threshold, -summary.threshold, side="right")) - 1
    assert curve.recall[in_force] == at_default.main.counts.recall
    assert curve.precision[in_force] == at_default.main.counts.precision

    strict = float(curve.threshold[3])  # keeps the four best picks of the run
    rethreshold(run_folder, strict)
    moved = evaluate(run_folder, disc_labels())
    assert (moved.main.counts.true_positive, moved.main.counts.false_negative) == (4, 5)
    assert moved.main.average_precision == at_default.main.average_precision
    from_files = evaluate(run_folder / "picks", disc_labels())
    assert from_files.main.counts == moved.main.counts


def test_a_data_set_with_its_images_is_truth_too(folder_of_discs: Path, tmp_path: Path) -> None:
    simulated = tmp_path / "sim"
    images = simulated / "micrographs"
    images.mkdir(parents=True)
    (simulated / "truth").mkdir()
    for seed, name in enumerate(("m1", "m2")):
        (images / f"{name}.mrc").write_bytes((folder_of_discs / f"{name}.mrc").read_bytes())
        rows = "".join(f"{x},{y},particle\n" for x, y in disc_centres(seed))
        (images / f"{name}.csv").write_text("x,y,kind\n" + rows)
    (images / "set.json").write_text('{"diameter_px": 20}')
    pick_to_folder([images], tmp_path / "run", make_settings("blob", diameter="20px"), workers=1)
    assert evaluate(tmp_path / "run", simulated).main.counts.f1 == 1


def test_an_unfinished_run_is_refused(tmp_path: Path, folder_of_discs: Path) -> None:
    run_folder = tmp_path / "run"
    pick_to_folder([folder_of_discs], run_folder, make_settings("blob", diameter="20px"), workers=1)
    (run_folder / "summary.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        evaluate(run_folder, disc_labels())


def write_csv(path: Path, rows: list[tuple[float, float, str]], header: str) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Pick files and label files of two micrographs."""
    picked, truth = tmp_path / "picks", tmp_path / "labels"
    picked.mkdir()
    truth.mkdir()
    for name, wrong in (("a.b.1", 4), ("c", 0)):
        made = picks(2.0, wrong=wrong)
        write_csv(picked / f"{name}.csv", [(*xy, s) for xy, s in zip(made.xy_px, made.score, strict=True)], "x,y,score")
        write_csv(truth / f"{name}.csv", [(x, y, "particle") for x, y in GRID] + [(50, 550, "uncertain")], "x,y,kind")
    return picked, truth


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app("evaluate"), ["evaluate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_command_prints_a_table_or_json_and_writes_the_same_files_twice(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    picked, truth = folders
    arguments = (str(picked), "--truth", str(truth), "--diameter", "80px")
    table = run(*arguments, "-o", str(tmp_path / "out"))
    assert "2 micrographs, 84 picks, 80 particles" in table
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    scores = json.loads(run(*arguments, "--json", "-o", str(tmp_path / "out")))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    assert set(first) == {"evaluation.json", "evaluation.md", "micrographs.csv", "curve.csv", "curve.png"}
    assert json.loads(first["evaluation.json"]) == scores
    main = scores["tolerances"][0]
    assert main["counts"] == {
        "true_positive": 80, "false_positive": 3, "false_negative": 0, "ignored": 1, "duplicate": 0,
    }  # fmt: skip
    assert main["precision"] == pytest.approx(80 / 83)


def test_curve_picture_is_a_png_and_the_curve_file_ends_at_the_headline(tmp_path: Path) -> None:
    evaluation = evaluate([picks(wrong=8)], labels(), is_probability=True)
    assert draw_curves({"blob": evaluation, "template": evaluation})[:4] == b"\x89PNG"
    files = {path.name: path for path in write_evaluation(evaluation, tmp_path)}
    assert files["calibration.png"].read_bytes()[:4] == b"\x89PNG"
    last = list(csv.DictReader(files["curve.csv"].read_text().splitlines()))[-1]
    assert float(last["precision"]) == pytest.approx(evaluation.main.counts.precision, rel=1e-4)
    assert float(last["recall"]) == pytest.approx(evaluation.main.counts.recall)


def test_a_folder_of_cryoppp_sets_is_truth_also_where_their_micrographs_share_names(tmp_path: Path) -> None:
    for number, first in (("10017", 0), ("10081", 1)):
        write_cryoppp_set(tmp_path / "sets" / number, range(first, first + 1), name="same")
    truth = {f"{number}/micrographs/same": disc_centres(seed) for number, seed in (("10017", 0), ("10081", 1))}
    run_of_both = [Picks(xy_px=xy, micrograph_name=f"{name}.mrc") for name, xy in truth.items()]
    counts = evaluate(run_of_both, tmp_path / "sets").main.counts
    assert (counts.false_positive, counts.false_negative) == (0, 0)
    assert counts.true_positive == sum(len(xy) for xy in truth.values())
    swapped = [
        replace(one, micrograph_name=other.micrograph_name)
        for one, other in zip(run_of_both, run_of_both[::-1], strict=True)
    ]
    assert evaluate(swapped, tmp_path / "sets").main.counts.recall < 0.5


def test_labels_in_the_other_frame_are_turned_on_the_images_or_by_the_height_that_the_picks_tell(
    tmp_path: Path,
) -> None:
    folder = write_cryoppp_set(tmp_path / "10017", range(2))
    upside_down = [
        Picks(xy_px=flip_y(disc_centres(seed), DISCS_SHAPE_YX), micrograph_name=f"m{seed}", shape_yx=DISCS_SHAPE_YX)
        for seed in (0, 1)
    ]
    assert evaluate(upside_down, folder, flip_y="yes").main.counts.f1 == 1
    tables = folder / "ground_truth" / "particle_coordinates"
    assert evaluate(upside_down, tables, flip_y="no").main.counts.recall < 0.5
    assert evaluate(upside_down, tables, flip_y="yes").main.counts.recall == 1
    with pytest.raises(InputError, match="are labels without images"):
        evaluate(upside_down, tables, flip_y="auto")
    (tmp_path / "plain").mkdir()
    write_csv(tmp_path / "plain" / "m0.csv", disc_centres(0).tolist(), "x,y")
    with pytest.raises(InputError, match="the height of"):
        evaluate([replace(upside_down[0], shape_yx=None)], tmp_path / "plain", flip_y="yes")
    with pytest.raises(SettingsError, match="labels in memory"):
        evaluate(upside_down, labels(), flip_y="yes")


IRREGULAR = GRID + np.random.default_rng(0).uniform(-35, 35, GRID.shape)  # no mirroring lays it on itself


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda xy: flip_y(xy, SHAPE_YX), "counts y from the other end than the set of picks"),
        (lambda xy: xy[:, ::-1], "has x and y exchanged against the set of picks"),
        (lambda xy: xy + 40.0, "lies 40.0 px to the right and 40.0 px down"),
        (lambda xy: xy + 2.0, None),
    ],
)
def test_labels_that_are_mirrored_or_half_a_box_off_are_told_with_their_score(change, sentence) -> None:
    picked = Picks(xy_px=IRREGULAR, score=np.ones(len(GRID)), micrograph_name="m1.mrc", shape_yx=SHAPE_YX)
    truth = {"m1": Labels(change(IRREGULAR), np.zeros(len(GRID), np.bool_), 80.0, "m1")}
    notes = " ".join(evaluate([picked], truth).notes)
    assert (sentence in notes) if sentence else ("do the labels mean" not in notes)


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(SettingsError, match="seed is -1"):
        evaluate([picks()], labels(), seed=-1)


def test_a_report_written_beside_the_labels_is_not_taken_for_labels(tmp_path: Path) -> None:
    (tmp_path / "m1.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in GRID))
    first = evaluate([picks()], tmp_path, diameter="80px")
    write_evaluation(first, tmp_path / "scores")
    write_evaluation(first, tmp_path)
    assert evaluate([picks()], tmp_path, diameter="80px").main.counts == first.main.counts
