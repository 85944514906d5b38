"""What RELION writes is read by label, whatever version wrote it, and only whole iterations count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError
from cryopick.evaluation.relion_programs import (
    finished_refinement,
    newest_iteration,
    read_model,
    read_postprocessing,
)
from cryopick.io.images.mrc import write_mrc

GENERAL = """
# version {version}

data_model_general

_rlnReferenceDimensionality                        2
_rlnCurrentResolution                      28.000000
_rlnPixelSize                              13.125000
_rlnNrClasses                                      3
{more}
_rlnAveragePmax                             0.436700


# version {version}

data_model_classes

loop_
{labels}
{rows}

"""
# Columns and their order as the versions write them: 4 and 5 add more, which must move nothing.
LABELS = {
    "30001": ["ReferenceImage", "ClassDistribution", "AccuracyRotations", "AccuracyTranslationsAngst",
              "EstimatedResolution", "OverallFourierCompleteness", "ClassPriorOffsetX", "ClassPriorOffsetY"],
    "40001": ["ReferenceImage", "ClassPriorOffsetX", "ClassPriorOffsetY", "ClassDistribution", "AccuracyRotations",
              "AccuracyTranslationsAngst", "EstimatedResolution", "OverallFourierCompleteness", "ClassIndex"],
    "50001": ["ClassIndex", "ReferenceImage", "ClassDistribution", "AccuracyRotations", "AccuracyTranslationsAngst",
              "EstimatedResolution", "OverallFourierCompleteness", "ClassPriorOffsetX", "ClassPriorOffsetY"],
}  # fmt: skip
WRITTEN = ("ReferenceImage", "ClassDistribution", "AccuracyRotations", "AccuracyTranslationsAngst",
           "EstimatedResolution", "OverallFourierCompleteness")  # fmt: skip
VALUES = [
    dict(zip(WRITTEN, row.split(), strict=True))
    for row in (
        "000001@c/run_it006_classes.mrcs 0.750000   1.480000   4.593750 26.250000 1.0",
        "000002@c/run_it006_classes.mrcs 0.250000   4.400000  10.106250 32.307692 0.94",
        "000003@c/run_it006_classes.mrcs 0.000000 999.000000 999.000000       inf -nan",
    )
]


def model_star(version: str, *, without: str = "") -> str:
    labels = [label for label in LABELS[version] if label != without]
    rows = "\n".join(" ".join(row.get(label, "0.000000") for label in labels) for row in VALUES)
    named = "\n".join(f"_rln{label} #{number}" for number, label in enumerate(labels, start=1))
    more = "_rlnNewLabelOfLaterVersions 7" if version != "30001" else ""
    return GENERAL.format(version=version, more=more, labels=named, rows=rows)


@pytest.mark.parametrize("version", list(LABELS))
def test_classes_are_read_by_label_with_the_empty_one_marked(tmp_path: Path, version: str) -> None:
    (tmp_path / "model.star").write_text(model_star(version))
    model = read_model(tmp_path / "model.star")
    np.testing.assert_array_equal(model.share, [0.75, 0.25, 0])
    np.testing.assert_array_equal(model.accuracy_deg, [1.48, 4.4, np.nan])
    np.testing.assert_array_equal(model.resolution_angstrom, [26.25, 32.307692, np.inf])
    np.testing.assert_array_equal(model.is_empty, [False, False, True])
    assert model.images[1] == "000002@c/run_it006_classes.mrcs"
    assert (model.current_resolution_angstrom, model.mean_peak_probability) == (28.0, 0.4367)


def test_a_label_that_is_missing_is_unknown_and_no_table_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.star").write_text(model_star("30001", without="AccuracyRotations"))
    assert np.isnan(read_model(tmp_path / "model.star").accuracy_deg).all()
    (tmp_path / "other.star").write_text("data_\n\n_rlnA 1\n")
    with pytest.raises(FormatError, match=r"other\.star: has no classes"):
        read_model(tmp_path / "other.star")
    with pytest.raises(FormatError, match=r"other\.star: has no FSC curve"):
        read_postprocessing(tmp_path / "other.star")


def test_fsc_curves_are_read_by_label(tmp_path: Path) -> None:
    (tmp_path / "post.star").write_text(
        "# version 30001\n\ndata_general\n\n_rlnFinalResolution 23.33\n_rlnBfactorUsedForSharpening nan\n\n"
        "# version 30001\n\ndata_fsc\n\nloop_\n_rlnSpectralIndex #1\n_rlnResolution #2\n"
        "_rlnFourierShellCorrelationCorrected #3\n_rlnFourierShellCorrelationMaskedMaps #4\n"
        "0 0 1 1\n1 0.02 0.9 0.95\n2 0.04 0.1 -nan\n\n"
    )
    post = read_postprocessing(tmp_path / "post.star")
    np.testing.assert_array_equal(post.frequency, [0, 0.02, 0.04])
    np.testing.assert_array_equal(post.corrected, [1, 0.9, 0.1])
    np.testing.assert_array_equal(post.masked, [1, 0.95, np.nan])
    assert np.isnan(post.unmasked).all()
    assert post.final_resolution_angstrom == 23.33
    assert np.isnan(post.b_factor)


def write_iteration(project: Path, number: int | None, *, without: str = "", cut: str = "", root: str = "run") -> None:
    """The files of an iteration of an auto-refinement; `cut` is written by half, as a kill leaves it."""
    stem = f"Refine/{root}" if number is None else f"Refine/{root}_it{number:03d}"
    optimiser = (
        f"# RELION optimiser; version 3.1.3\n\ndata_optimiser_general\n\n_rlnOutputRootName Refine/{root}\n"
        f"_rlnModelStarFile {stem}_half1_model.star\n_rlnModelStarFile2 {stem}_half2_model.star\n"
        f"_rlnExperimentalDataStarFile {stem}_data.star\n_rlnOrientSamplingStarFile {stem}_sampling.star\n"
        f"_rlnCurrentIteration {number or 9}\n_rlnHasConverged {int(number is None)}\n"
        "_rlnOverallAccuracyRotations 12.5\n"
    )
    files = {
        "optimiser": optimiser,
        "half1_model": model_star("30001"),
        "half2_model": model_star("30001"),
        "data": "# version 30001\n\ndata_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n3 4\n\n",
        "sampling": "# RELION sampling\n\ndata_sampling_general\n\n_rlnHealpixOrder 2\n",
    }
    (project / "Refine").mkdir(exist_ok=True)
    for name, text in files.items():
        if name != without:
            (project / f"{stem}_{name}.star").write_text(text[: len(text) // 3] if name == cut else text)


@pytest.mark.parametrize("broken", ["optimiser", "half1_model", "half2_model", "data", "sampling"])
@pytest.mark.parametrize("how", ["without", "cut"])
def test_an_iteration_that_a_kill_left_in_parts_is_passed_over(tmp_path: Path, broken: str, how: str) -> None:
    assert newest_iteration(tmp_path, "Refine") is None
    write_iteration(tmp_path, 2)
    write_iteration(tmp_path, 3, **{how: broken})
    newest = newest_iteration(tmp_path, "Refine")
    assert newest is not None
    assert newest.number == 2
    assert newest.models == ("Refine/run_it002_half1_model.star", "Refine/run_it002_half2_model.star")
    write_iteration(tmp_path, 3)
    newest = newest_iteration(tmp_path, "Refine")
    assert newest is not None
    assert newest.number == 3


def test_a_run_that_was_continued_has_another_root_which_its_own_files_tell(tmp_path: Path) -> None:
    write_iteration(tmp_path, 2)
    write_iteration(tmp_path, 4, root="run_ct02")
    newest = newest_iteration(tmp_path, "Refine")
    assert newest is not None
    assert (newest.number, newest.data) == (4, "Refine/run_ct02_it004_data.star")
    assert newest.root == "Refine/run_ct02"


def write_finished(project: Path, root: str = "run", *, without: str = "") -> None:
    """The files of a refinement that has converged, as RELION 3.1.3 leaves them: no optimiser is among them."""
    (project / "Refine").mkdir(exist_ok=True)
    texts = {"model.star": model_star("30001"), "data.star": "data_particles\n\nloop_\n_rlnCoordinateX #1\n1\n\n"}
    for name, text in texts.items():
        if name != without:
            (project / f"Refine/{root}_{name}").write_text(text)
    for name in ("class001.mrc", "half1_class001_unfil.mrc", "half2_class001_unfil.mrc"):
        path = project / f"Refine/{root}_{name}"
        write_mrc(path, np.zeros((4, 4, 4), np.float32), pixel_size_angstrom=2.0)
        if name == without:
            path.write_bytes(path.read_bytes()[:-9])


def test_iterations_alone_are_no_finished_refinement_and_their_half_maps_do_not_count(tmp_path: Path) -> None:
    write_iteration(tmp_path, 9)
    for half in (1, 2):
        (tmp_path / f"Refine/run_it009_half{half}_class001_unfil.mrc").write_bytes(b"x")
    assert finished_refinement(tmp_path, "Refine") is None
    write_finished(tmp_path)
    found = finished_refinement(tmp_path, "Refine")
    assert found is not None
    assert found.halves == ("Refine/run_half1_class001_unfil.mrc", "Refine/run_half2_class001_unfil.mrc")
    assert (found.data, found.volume) == ("Refine/run_data.star", "Refine/run_class001.mrc")
    assert found.can_align


@pytest.mark.parametrize("part", ["model.star", "data.star", "half2_class001_unfil.mrc", "class001.mrc"])
def test_a_refinement_that_was_killed_while_it_wrote_its_last_files_is_not_finished(tmp_path: Path, part: str) -> None:
    write_finished(tmp_path, without=part)
    assert finished_refinement(tmp_path, "Refine") is None
    write_finished(tmp_path, "run_ct03")
    found = finished_refinement(tmp_path, "Refine")
    assert found is not None
    assert found.data == "Refine/run_ct03_data.star"


def test_an_accuracy_worse_than_ten_degrees_means_that_nothing_can_be_aligned(tmp_path: Path) -> None:
    write_finished(tmp_path)
    path = tmp_path / "Refine/run_model.star"
    path.write_text(path.read_text().replace(" 1.480000", " 12.50000"))
    found = finished_refinement(tmp_path, "Refine")
    assert found is not None
    assert not found.can_align
