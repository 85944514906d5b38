"""Each record says by what its candidates were picked; what would be picked otherwise now is picked again, and said."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import WorkerError
from cryopick.geometry.units import Length, parse_length
from cryopick.inference.computing import Computing, computing_here, pinned, why_not_here
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.pickers.survey import Survey
from cryopick.runs.files import used_files
from cryopick.runs.folder import RunFolder
from cryopick.runs.picked_with import is_stale, picked_with, picked_with_on
from cryopick.runs.record import Record
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import PickPlan, PickSettings, make_settings
from cryopick.types import Micrograph, Picks
from cryopick.workflows.pick import pick_to_folder

SIZED = Survey(particle_size=parse_length("180A"), working_size=parse_length("144A"), filled_share=0.2)


@dataclass(frozen=True, kw_only=True)
class AnyNumbers:
    """Marks the middle; computes in what the class attribute says that this machine has."""

    name: ClassVar[str] = "any-numbers"
    score_meaning: ClassVar[str] = "always 1"
    default_threshold: ClassVar[float] = 0.5
    fastest: ClassVar[str] = "int8"
    diameter: Length | None = None
    device: str = "auto"
    precision: Annotated[str, "auto, float32 or int8"] = "auto"

    def precision_on(self, device: str) -> str:
        return type(self).fastest if self.precision == "auto" else self.precision

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        height, width = micrograph.shape_yx
        score = {"int8": 0.75, "float32": 0.875}[self.precision_on(self.device)]
        return Picks(xy_px=np.array([[width / 2, height / 2]]), score=np.full(1, score, np.float32))


def plan(picker: str = "general", *, survey: Survey = SIZED, computing: Computing | None = None, **given: Any) -> str:
    made = PickPlan(settings=make_settings(picker, **given), survey=survey, computing=computing)
    return picked_with(made)


def pick(folder: Path, run: Path, settings: PickSettings, events: list[PickEvent] | None = None) -> RunSummary:
    return pick_to_folder([folder], run, settings, workers=1, on_event=None if events is None else events.append)


def statuses(folder: Path, run: Path, settings: PickSettings) -> dict[str, str]:
    events: list[PickEvent] = []
    pick(folder, run, settings, events)
    return {event.name: event.status for event in events if event.name}


def discs(**given: Any) -> PickSettings:
    return make_settings("blob", diameter=f"{DIAMETER_PX}px", **given)


def said(summary: RunSummary, words: str) -> bool:
    return any(words in warning for warning in summary.warnings)


# ---------------------------------------------------------------------------------------------------- what counts


def test_sixteen_digits_that_are_the_same_for_the_same_run() -> None:
    assert plan() == plan() == plan(threshold=0.4) == plan(target_precision=0.9) == plan(drop_bad=True)
    assert len(plan()) == 16
    assert int(plan(), 16) >= 0


@pytest.mark.parametrize(
    "given",
    [
        {"diameter": "180A"},
        {"picker": "cryotransformer"},
        {"pixel_size_angstrom": 1.5},
        {"contrast": "bright"},
        {"keep_junk": True},
        {"min_distance": 0.8},
        {"max_count": 10},
        {"survey": replace(SIZED, working_size=parse_length("150A"))},
        {"survey": replace(SIZED, working_size=None)},
        {"survey": Survey()},
        {"computing": Computing(precision="float32")},
        {"computing": Computing(device="cuda", precision="bfloat16")},
    ],
    ids=str,
)
def test_what_changes_candidates_changes_the_digits(given: dict[str, Any]) -> None:
    assert plan(**given) != plan()


@pytest.mark.parametrize(
    "seen",
    [
        {"particle_size": parse_length("181A")},
        {"filled_share": 0.4},
        {"sentence": "measured"},
        {"size_uncertainty": 2.0},
        {"contrast_doubt": "bright?"},
    ],
    ids=str,
)
def test_what_only_tells_of_a_run_does_not(seen: dict[str, Any]) -> None:
    assert plan(survey=replace(SIZED, **seen)) == plan()


def test_the_diameter_counts_where_there_is_no_working_size() -> None:
    one, other = (replace(SIZED, working_size=None, particle_size=parse_length(size)) for size in ("100A", "120A"))
    assert plan(survey=one) != plan(survey=other)


def test_files_count_by_what_is_in_them_wherever_they_lie(tmp_path: Path) -> None:
    stack = np.zeros((2, 16, 16), np.float32)
    for folder, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        (tmp_path / folder).mkdir()
        stack[:, 8, 8] = value
        write_mrc(tmp_path / folder / "references.mrcs", stack)
    a, b, c = (plan("template", references=tmp_path / folder / "references.mrcs") for folder in "abc")
    assert a == b != c
    trained = [Survey(trained_model=tmp_path / folder / "references.mrcs") for folder in "abc"]
    x, y, z = (plan("deepcryopicker", survey=survey) for survey in trained)
    assert x == y != z


def test_weights_of_the_package_are_among_the_files() -> None:
    files = used_files(make_settings("general").picker)
    card = json.loads((Path(__file__).parents[2] / "src/cryopick/weights/general.json").read_text())
    assert (files["weights"].path, files["weights"].is_shipped) == ("general.safetensors", True)
    assert files["weights"].sha256 == card["sha256"]
    assert set(used_files(make_settings("cryosegnet", segmenter="sam").picker)) == {"weights", "sam", "general"}
    assert used_files(discs().picker) == {}


def test_a_picker_that_names_no_run_level_fields_looks_by_all() -> None:
    one, other = (
        picked_with(PickPlan(settings=PickSettings(picker=AnyNumbers()), survey=Survey(sentence=text)))
        for text in ("one", "other")
    )
    assert one != other


def test_a_measured_diameter_that_does_not_fit_counts_on_that_micrograph_alone() -> None:
    measured = PickPlan(settings=make_settings("general"), survey=SIZED, picked_with="0123456789abcdef")
    grown = replace(measured, survey=replace(SIZED, particle_size=parse_length("190A")))
    small, large = (
        Record(
            name="m",
            key="m",
            source="/m",
            relion_name="m",
            size_bytes=1,
            modified_ns=1,
            shape_yx=(side, side),
            pixel_size_angstrom=1.0,
        )
        for side in (200, 4000)
    )
    small, large = (
        replace(one, picked_with=picked_with_on(disc_like(one.shape_yx), measured)) for one in (small, large)
    )
    assert (is_stale(small, measured), is_stale(large, measured)) == (False, False)
    assert (is_stale(small, grown), is_stale(large, grown)) == (True, False)
    assert not is_stale(replace(small, picked_with=""), grown)  # of an older run


def disc_like(shape_yx: tuple[int, int] | None) -> Micrograph:
    assert shape_yx is not None
    return Micrograph(np.zeros(shape_yx, np.float32), name="m", pixel_size_angstrom=1.0)


# ------------------------------------------------------------------------------------------------------- in a run


def test_records_of_a_run_hold_the_digits_of_its_plan(folder_of_discs: Path, tmp_path: Path) -> None:
    pick(folder_of_discs, tmp_path / "run", discs(threshold=4))
    pick(folder_of_discs, tmp_path / "other", discs(threshold=6))
    here, there = (RunFolder(tmp_path / name).records() for name in ("run", "other"))
    assert {record.picked_with for record in [*here, *there]} == {here[0].picked_with}
    assert len(here[0].picked_with) == 16


def test_what_was_picked_by_another_survey_is_picked_again_and_said(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run, discs())
    prepared = (run / "prepared.toml").read_text()
    before = RunFolder(run).records()
    own = next(line for line in prepared.splitlines() if line.startswith("radial_profile"))
    (run / "prepared.toml").write_text(prepared.replace(own, 'radial_profile = "thin-shell"'))
    summary = pick(folder_of_discs, run, discs())
    assert said(summary, "another measured size")
    assert {one.picked_with for one in RunFolder(run).records()}.isdisjoint({one.picked_with for one in before})
    again = statuses(folder_of_discs, run, discs())
    assert set(again.values()) == {"skipped"}


def test_what_cannot_be_picked_again_stays_and_is_said(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run, discs())
    prepared = (run / "prepared.toml").read_text()
    own = next(line for line in prepared.splitlines() if line.startswith("radial_profile"))
    (run / "prepared.toml").write_text(prepared.replace(own, 'radial_profile = "thin-shell"'))
    summary = pick(folder_of_discs / "m1.mrc", run, discs())
    assert said(summary, "stays so, as it is not given")
    assert len({one.picked_with for one in RunFolder(run).records()}) == 2


def test_a_run_of_before_there_were_digits_goes_on_as_it_is(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run, discs())
    for path in (run / "records").rglob("*.json"):
        content = json.loads(path.read_text())
        del content["picked_with"], content["processor"]
        path.write_text(json.dumps(content))
    (run / "computing.json").unlink()
    write_micrograph(folder_of_discs / "new.mrc", disc_micrograph("new.mrc", seed=7))
    found = statuses(folder_of_discs, run, discs())
    assert [name for name, status in found.items() if status == "done"] == ["new.mrc"]


# ---------------------------------------------------------------------------------------------- pinned for a run


def numbers(**given: Any) -> PickSettings:
    return PickSettings(picker=AnyNumbers(**given))


def scores(run: Path) -> set[float]:
    folder = RunFolder(run)
    return {float(one) for record in folder.records() for one in folder.read_candidates(record).score}


def test_a_run_goes_on_in_the_numbers_that_it_began_in(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs / "m1.mrc", run, numbers())
    noted = json.loads((run / "computing.json").read_text())
    assert noted == {"device": "cpu", "precision": "int8", "runtime": ""}
    monkeypatch.setattr(AnyNumbers, "fastest", "float32")  # another machine, which can do both
    pick(folder_of_discs, run, numbers())
    assert scores(run) == {0.75}
    pick(folder_of_discs, tmp_path / "new", numbers())
    assert scores(tmp_path / "new") == {0.875}


def test_a_machine_that_cannot_go_on_so_says_what_to_do_and_changes_nothing(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs / "m1.mrc", run, numbers())
    monkeypatch.setattr(AnyNumbers, "precision_on", lambda self, device: "float32")
    with pytest.raises(WorkerError, match=r"on the CPU in int8, and this machine .* --precision float32 --overwrite"):
        pick(folder_of_discs, run, numbers())
    assert [one.name for one in RunFolder(run).records()] == ["m1.mrc"]
    assert pick(folder_of_discs / "m1.mrc", run, numbers()).micrographs == 1  # nothing is left to compute


def test_a_run_that_another_library_began_goes_on_and_says_so(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one of before there was a choice, whose note has no library: that was torch."""
    run = tmp_path / "run"
    pick(folder_of_discs / "m1.mrc", run, numbers())
    note = run / "computing.json"
    older = {name: value for name, value in json.loads(note.read_text()).items() if name != "runtime"}
    note.write_text(json.dumps(older))
    monkeypatch.setattr(AnyNumbers, "runtime_on", lambda self, device: "OpenVINO", raising=False)
    found = statuses(folder_of_discs, run, numbers())
    assert found.pop("m1.mrc") == "skipped"
    assert set(found.values()) == {"done"}
    assert "was begun with torch and goes on with OpenVINO, which computes on the CPU in int8, too" in caplog.text
    caplog.clear()
    pick(folder_of_discs, tmp_path / "new", numbers())
    assert json.loads((tmp_path / "new" / "computing.json").read_text())["runtime"] == "OpenVINO"
    pick(folder_of_discs, tmp_path / "new", numbers())
    assert "was begun with" not in caplog.text


def test_a_damaged_note_is_made_again(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run, numbers())
    whole = (run / "computing.json").read_text()
    (run / "computing.json").write_text('{"device": 1')
    assert set(statuses(folder_of_discs, run, numbers()).values()) == {"skipped"}
    assert (run / "computing.json").read_text() == whole


def test_auto_is_kept_where_it_means_the_same_and_spelt_out_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    picker, eight = AnyNumbers(), Computing(device="cpu", precision="int8")
    assert computing_here(picker) == eight
    assert pinned(picker, eight) is picker
    assert why_not_here(picker, eight) == ""
    monkeypatch.setattr(AnyNumbers, "fastest", "float32")
    assert pinned(picker, eight) == AnyNumbers(precision="int8")
    assert (
        why_not_here(AnyNumbers(precision="float32"), eight)
        == "it computes on the CPU in float32, not on the CPU in int8"
    )
    assert "no usable CUDA" in why_not_here(picker, Computing(device="cuda", precision="float32"))


def test_general_computes_in_eight_bits_where_its_card_and_the_cpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryopick.heatmap import model

    picker = make_settings("general", device="cpu").picker
    for can, precision in ((True, "int8"), (False, "float32")):
        monkeypatch.setattr(model, "multiplies_int8", lambda can=can: can)
        assert computing_here(picker).precision in (precision, "bfloat16")
    assert "8-bit integers" in why_not_here(picker, Computing(device="cpu", precision="int8"))
