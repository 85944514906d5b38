"""A training writes into its own folder, alone, and finds out at once what it cannot do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph
from toy_picker import train_toy

import cryopick
from cryopick.errors import RunFolderError
from cryopick.geometry.units import parse_length
from cryopick.io.files.folder_lock import LOCK_FILE, locked_folder
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import read_tensors_and_metadata, write_tensors
from cryopick.training.state import STATE_FILE
from cryopick.workflows.finetune import finetune
from cryopick.workflows.train import plan_training, resumed_plan, train_picker

PICKS = "x,y\n" + "\n".join(f"{x},{y}" for x, y in disc_centres(0)) + "\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "mics"
    write_micrograph(folder / "m0.mrc", disc_micrograph("m0"))
    (folder / "m0.csv").write_text(PICKS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start_training(kind: str, data: Path, output: Path, *, resume: bool = False) -> None:
    if kind == "train":
        train_picker(plan_training("toy", training={"steps": 2}), output, resume=resume)
    else:
        finetune("general", data, output, diameter=parse_length(f"{DIAMETER_PX}px"), resume=resume)


def make_run(folder: Path, data: Path) -> None:
    cryopick.pick(data / "m0.mrc", "blob", output=folder, diameter="20px", workers=1)


def make_simulation(folder: Path, _data: Path) -> None:
    folder.mkdir()
    (folder / "simulation.json").write_text("{}")


def make_foreign(folder: Path, _data: Path) -> None:
    folder.mkdir()
    (folder / "config.toml").write_text("[tool]\nmine = true\n")


def make_foreign_weights(folder: Path, _data: Path) -> None:
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"precious")


@pytest.mark.parametrize("kind", ["train", "finetune"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_run, "is the folder of a picking run"),
        (make_simulation, "is the folder of a simulation"),
        (make_foreign, "has config.toml but is not a training folder"),
        (make_foreign_weights, "has weights.safetensors but is not a training folder"),
    ],
)
def test_folders_of_others_are_refused_and_left_as_they_are(tmp_path, data, make, words, kind):
    make(tmp_path / "there", data)
    before = contents(tmp_path / "there")
    for resume in (False, True):
        with pytest.raises(RunFolderError, match=words):
            start_training(kind, data, tmp_path / "there", resume=resume)
    assert contents(tmp_path / "there") == before


def test_resuming_names_a_picking_run_before_it_reads_its_settings(tmp_path, data):
    make_run(tmp_path / "run", data)
    with pytest.raises(RunFolderError, match="is the folder of a picking run"):
        resumed_plan(tmp_path / "run", None)


@pytest.mark.parametrize("kind", ["train", "finetune"])
def test_a_second_training_in_a_folder_is_refused_while_the_first_one_lives(tmp_path, data, kind):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom cryopick.io.files.folder_lock import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "t")], stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        with pytest.raises(RunFolderError, match="another cryopick is writing to this folder"):
            start_training(kind, data, tmp_path / "t")
    finally:
        first.kill()
        first.communicate()
    assert [path.name for path in (tmp_path / "t").iterdir()] == [LOCK_FILE]
    with locked_folder(tmp_path / "t"):  # a killed process holds nothing
        pass


def test_a_running_training_holds_its_folder(tmp_path):
    class Curious:
        """A monitor that tries to train into the folder that is being trained in."""

        refused = ""

        def stepped(self, **_: object) -> None:
            try:
                with locked_folder(tmp_path / "t"):
                    pass
            except RunFolderError as error:
                self.refused = str(error)

        def __getattr__(self, name: str) -> object:
            return lambda *_, **__: None

    monitor = Curious()
    train_picker(plan_training("toy", training={"steps": 2}), tmp_path / "t", monitor=monitor)  # type: ignore[arg-type]
    assert "another cryopick is writing" in monitor.refused


def test_a_training_that_is_there_is_found_before_the_data_are_looked_for(tmp_path):
    train_toy(tmp_path / "t", steps=2)
    assert (tmp_path / "t" / STATE_FILE).is_file()
    with pytest.raises(RunFolderError, match="pass --resume"):
        finetune("toy", tmp_path / "no_such_picks.star", tmp_path / "t", weights=tmp_path / "t")


def test_an_output_that_is_a_file_is_named(tmp_path, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file, expected a folder"):
        start_training("finetune", data, tmp_path / "file")


def test_damaged_scores_of_the_start_are_named(tmp_path, data):
    train_toy(tmp_path / "start", steps=2)
    options = {"weights": tmp_path / "start", "diameter": parse_length(f"{DIAMETER_PX}px"), "labels": "complete"}
    finetune("toy", data, tmp_path / "tuned", training={"steps": 2, "max_minutes": 1e-9}, **options)
    for content in ("", "[]", '{"new": 1}', '{"new": "x", "old": 1}', "\x00"):
        (tmp_path / "tuned" / "before.json").write_text(content)
        with pytest.raises(RunFolderError, match=r"before.json: expected the scores of the start"):
            finetune("toy", data, tmp_path / "tuned", training={"steps": 2}, resume=True, **options)


def test_scores_of_the_start_are_measured_anew_where_no_state_says_whose_they_are(tmp_path, data):
    train_toy(tmp_path / "start", steps=2)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "before.json").write_text('{"new": 0.123, "old": 0.456}')  # of other weights, then killed
    options = {"weights": tmp_path / "start", "diameter": parse_length(f"{DIAMETER_PX}px"), "labels": "complete"}
    tuned = finetune("toy", data, tmp_path / "tuned", training={"steps": 2}, resume=True, **options)
    assert tuned.before != {"new": 0.123, "old": 0.456}


@pytest.mark.parametrize("is_of_version_01", [False, True])
def test_a_training_is_not_resumed_with_labels_that_were_moved(tmp_path, data, is_of_version_01):
    train_toy(tmp_path / "start", steps=2)
    options = {"weights": tmp_path / "start", "diameter": parse_length(f"{DIAMETER_PX}px"), "labels": "complete"}
    tuned = tmp_path / "tuned"
    finetune("toy", data, tuned, training={"steps": 4, "max_minutes": 1e-9}, **options)
    if is_of_version_01:
        forget_labels(tuned / "state.safetensors")
    x, y = disc_centres(0)[0]
    (data / "m0.csv").write_text(PICKS.replace(f"{x},{y}", f"{x + 3},{y}"))
    if is_of_version_01:
        finetune("toy", data, tuned, training={"steps": 4, "max_minutes": 1e-9}, resume=True, **options)
    else:
        with pytest.raises(RunFolderError, match="labels_sha256 was"):
            finetune("toy", data, tuned, training={"steps": 4}, resume=True, **options)


def forget_labels(state: Path) -> None:
    tensors, metadata = read_tensors_and_metadata(state)
    fingerprint = json.loads(metadata["fingerprint"])
    del fingerprint["labels_sha256"]
    write_tensors(state, tensors, metadata={**metadata, "fingerprint": json.dumps(fingerprint)})


@pytest.mark.parametrize("command", ["train", "finetune", "self-train"])
def test_a_missing_package_is_found_before_anything_is_read(tmp_path, data, command):
    """In a fresh process in which `lightning` cannot be found, as after a plain `pip install`."""
    program = f"""
import sys, time, importlib.util
from importlib.machinery import PathFinder
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "tensorboard"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
from pathlib import Path
import cryopick
from cryopick.errors import MissingExtraError
from cryopick.geometry.units import parse_length
from cryopick.workflows.train import plan_training, train_picker
from cryopick.workflows.finetune import finetune
from cryopick.workflows.self_train import self_train
plan = plan_training("general")
began = time.monotonic()
try:
    if {command!r} == "train":
        train_picker(plan, Path("t"))
    elif {command!r} == "finetune":
        finetune("general", "mics", "t", diameter=parse_length("{DIAMETER_PX}px"))
    else:
        self_train("general", ["mics"], "t")
except MissingExtraError as error:
    print(error)
    print(time.monotonic() - began)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    message, seconds = done.stdout.splitlines()
    assert message.startswith("training needs lightning")
    assert "; install with: " in message
    assert "cryopick[" not in message  # no index has cryopick
    assert float(seconds) < 3  # preparing takes a minute
    assert not (tmp_path / "t").exists()


def test_without_tensorboard_everything_but_its_events_is_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train_toy(tmp_path, steps=4)
    assert "tensorboard is not installed" in caplog.text
    assert not (tmp_path / "tensorboard").exists()
    for name in ("loss.csv", "validation.csv", "loss.png", "weights.safetensors"):
        assert (tmp_path / name).stat().st_size > 0
