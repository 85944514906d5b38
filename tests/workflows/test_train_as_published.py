"""`train --as article` from every layout that micrographs come in, and `finetune --as article` from a run folder.

The networks are the published ones, made small by their own settings; the micrographs are the same in each layout.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from called import cryopick
from numpy.typing import NDArray
from small_trainings import ONE_STEP
from torchvision.models._utils import IntermediateLayerGetter

from cryopick import read_picks
from cryopick.io.images.mrc import write_mrc
from cryopick.io.images.raster import write_png
from cryopick.io.weights import read_arrays
from cryopick.pickers.configurations import configurations_of
from cryopick.pickers.families import trainable_pickers
from cryopick.pickers.registry import picker_class
from cryopick.processing.targets import disc_mask
from cryopick.simulation.specimens.proteins import random_protein

SIDE_PX, DIAMETER_PX, PIXEL_ANGSTROM = 256, 36, 5
MICROGRAPHS = ("sim_0001", "sim_0002", "sim_0003")
LEARNT = MICROGRAPHS[:2]
"""Those that layouts with parts have for learning; the third validates."""

SMALLER: Mapping[str, str] = {
    "cryotransformer": "backbone=resnet18 backbone_width=16 width=32 heads=4 layers=2 feed_width=32 queries=30 "
    "short_px=64 longest_px=96 batch_size=2 validation_images=1 norm_images=1",
    "cryosegnet": "side_px=128 widths=4,4,4,4,4,4 batch_size=2",
    "cryoemmae": "batch_size=8 windows_per_crop=8 clustered_micrographs=1 width=8 depth=2 decoder_width=16 "
    "decoder_depth=1 reference=reference.png reference_mask=reference_mask.png",
    "deepcryopicker": "batch_size=2 validation_windows=2 per_class=6 network=compact",
    "segmentation-crf": "backbone=fcn-resnet50 crop_px=128 batch_size=2",
}
"""Settings of each task, so that a step takes moments."""
LAYOUTS: Mapping[str, str] = {
    "cryoppp": "--data cryoppp",
    "star": "--data sim/particles.star --diameter 180A",
    "coco": "--data coco",
    "masks": "--data masks",
    "label": "--data lab",
    "run": "--data run",
    "simulation": "--data sim",
}
"""CryoPPP as downloaded; RELION's table of particles; what the authors of CryoTransformer and of CryoSegNet released; a
folder of `cryopick label`; a run; a simulation."""


def test_every_system_that_is_trained_as_published_is_tried() -> None:
    assert set(SMALLER) == {name for name in trainable_pickers() if "article" in configurations_of(picker_class(name))}


# ------------------------------------------------------------------------------------------------------------ the data


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated micrographs in every layout."""
    folder = tmp_path_factory.mktemp("sets")
    volume = random_protein(np.random.default_rng(3), diameter_angstrom=180.0, voxel_size_angstrom=4.0)
    write_mrc(folder / "map.mrc", volume.density, pixel_size_angstrom=volume.voxel_size_angstrom, is_volume=True)
    simulate = f"simulate -o sim --structure map.mrc --recipe clean --size {SIDE_PX}x{SIDE_PX} --dose 60 --seed 3"
    for command in (
        f"{simulate} --pixel-size {PIXEL_ANGSTROM} --count {len(MICROGRAPHS)} --workers 1",
        "label sim -o lab",
        "pick sim/micrographs -o run --picker blob --diameter 180A",
    ):
        done = cryopick(*command.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    write_cryoppp_set(folder / "cryoppp" / "10017", folder)
    for part, stems in (("train", LEARNT), ("val", MICROGRAPHS[2:])):
        write_part_of_cryotransformer(folder / "coco", part, folder, stems)
        write_part_of_cryosegnet(folder / "masks" / "10017" / part, folder, stems)
    rng = np.random.default_rng(0)  # for Cryo-EMMAE, which learns without labels: which cluster is the particle
    write_png(folder / "reference.png", rng.integers(0, 255, (1024, 1024)).astype(np.uint8))
    write_png(folder / "reference_mask.png", (255 * (rng.random((1024, 1024)) < 0.3)).astype(np.uint8))
    return folder


def truth_of(sets: Path, stem: str) -> NDArray[np.float64]:
    """(n, 2) centres of the particles of a micrograph, as the simulation has them."""
    (picks,) = read_picks(sets / "sim" / "micrographs" / f"{stem}.csv").values()
    return picks.xy_px


def copy_images(sets: Path, stems: tuple[str, ...], folder: Path) -> None:
    folder.mkdir(parents=True)
    for stem in stems:
        shutil.copy(sets / "sim" / "micrographs" / f"{stem}.mrc", folder)


def write_cryoppp_set(folder: Path, sets: Path) -> None:
    """As published: y counts from below."""
    copy_images(sets, MICROGRAPHS, folder / "micrographs")
    tables = folder / "ground_truth" / "particle_coordinates"
    tables.mkdir(parents=True)
    for stem in MICROGRAPHS:
        rows = "".join(f"{x},{SIDE_PX - y},{DIAMETER_PX}\n" for x, y in truth_of(sets, stem).tolist())
        (tables / f"{stem}.csv").write_text(f"X-Coordinate,Y-Coordinate,Diameter\n{rows}")


def write_part_of_cryotransformer(folder: Path, part: str, sets: Path, stems: tuple[str, ...]) -> None:
    """Images, and one COCO file of their boxes."""
    copy_images(sets, stems, folder / part)
    half = DIAMETER_PX / 2
    boxes = [
        {"image_id": number, "category_id": 1, "bbox": [x - half, y - half, DIAMETER_PX, DIAMETER_PX]}
        for number, stem in enumerate(stems)
        for x, y in truth_of(sets, stem).tolist()
    ]
    content = {
        "images": [
            {"id": number, "file_name": f"{stem}.mrc", "height": SIDE_PX, "width": SIDE_PX}
            for number, stem in enumerate(stems)
        ],
        "annotations": [{"id": number, **box} for number, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "particle"}],
    }
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def write_part_of_cryosegnet(folder: Path, sets: Path, stems: tuple[str, ...]) -> None:
    """Images, and for each a mask of discs."""
    copy_images(sets, stems, folder / "images")
    for stem in stems:
        mask = disc_mask(truth_of(sets, stem), DIAMETER_PX, shape_yx=(SIDE_PX, SIDE_PX))
        write_png(folder / "masks" / f"{stem}_mask.png", (255 * mask).astype(np.uint8))


# ------------------------------------------------------------------------------------------------------- the trainings


@pytest.fixture
def made_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No curves are drawn, which `test_logs.py` tries, and torchvision's FCN stands on two layers."""
    from torchvision.models import segmentation

    def narrow(*_: Any, num_classes: int, **__: Any) -> segmentation.FCN:
        stem, body = torch.nn.Conv2d(3, 64, 7, stride=2, padding=3), torch.nn.Conv2d(64, 16, 3, stride=4, padding=1)
        backbone = IntermediateLayerGetter(torch.nn.ModuleDict({"conv1": stem, "layer4": body}), {"layer4": "out"})
        return segmentation.FCN(backbone, segmentation.fcn.FCNHead(16, num_classes))

    monkeypatch.setattr("cryopick.training.logs.draw_curves", lambda *_: None)
    monkeypatch.setattr(segmentation, "fcn_resnet50", narrow)


@pytest.fixture
def first_tensors(monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[Any]]:
    """The tensors with which the training begins, where no weights are given to start from."""
    from cryopick.training.loop import WeightAverage

    found: dict[str, NDArray[Any]] = {}

    class Noted(WeightAverage):  # made of the network when everything is set and no step is taken
        def __init__(self, network: torch.nn.Module, **options: Any) -> None:
            found.update({name: one.detach().numpy().copy() for name, one in network.state_dict().items()})
            super().__init__(network, **options)

    monkeypatch.setattr("cryopick.training.loop.WeightAverage", Noted)
    return found


def options_of(picker: str) -> list[str]:
    words = [word for setting in SMALLER[picker].split() for word in ("--set", setting)]
    return [*ONE_STEP.split(), *words]


def changed(before: Mapping[str, NDArray[Any]], folder: Path) -> float:
    """The share of the tensors that a training has changed; CryoTransformer's norms and first stage are frozen."""
    after = read_arrays(folder / "weights.safetensors")
    assert set(after) <= set(before)
    return float(np.mean([not np.array_equal(values, before[name]) for name, values in after.items()]))


@pytest.mark.usefixtures("made_cheap")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("picker", SMALLER)
def test_a_step_is_taken_from_each_layout(
    sets: Path, tmp_path: Path, picker: str, layout: str, first_tensors: dict[str, NDArray[Any]]
) -> None:
    done = cryopick(
        "train",
        picker,
        "--as",
        "article",
        *LAYOUTS[layout].split(),
        "-o",
        tmp_path / "t",
        *options_of(picker),
        cwd=sets,
    )
    assert done.returncode == 0, done.stderr
    assert changed(first_tensors, tmp_path / "t") > 0.4
    card = json.loads((tmp_path / "t" / "weights.json").read_text())
    assert card["settings"]["preset"] == "article"
    read = [card["settings"].get(part) for part in ("training_data", "validation_data")]
    stems = sorted(Path(name).stem for one in read if one is not None for name in one["names"])
    if picker == "cryoemmae":  # labels that lie there are not read; nothing validates
        learnt = LEARNT if layout in ("coco", "masks") else MICROGRAPHS
        assert stems == list(learnt)
        assert f"learning from {len(learnt)} micrographs without labels" in done.stderr
        return
    assert stems == list(MICROGRAPHS)
    count = json.loads((sets / "run" / "summary.json").read_text())["particles"] if layout == "run" else None
    expected = count or sum(len(truth_of(sets, stem)) for stem in MICROGRAPHS)
    told = re.search(
        r"learning from 2 micrographs with (\d+) labelled particles, validating on 1 micrograph with (\d+)", done.stderr
    )
    assert told is not None
    assert sum(map(int, told.groups())) == sum(one["particles"] for one in read if one) == expected


@pytest.mark.usefixtures("made_cheap")
@pytest.mark.parametrize("picker", SMALLER)
def test_the_published_network_is_tuned_from_a_run_folder_and_nothing_is_typed_twice(
    sets: Path, tmp_path: Path, picker: str
) -> None:
    trained, tuned = tmp_path / "trained", tmp_path / "tuned"
    begun = cryopick(
        *("train", picker, "--as", "article", "--data", "cryoppp", "-o", trained, *options_of(picker)), cwd=sets
    )
    assert begun.returncode == 0, begun.stderr
    run, given = Path("run"), ["--as", "article", "--weights", trained]
    if picker in ("cryotransformer", "cryoemmae"):  # a run of the picker's own says with which weights, and as what
        run, given = tmp_path / "own", []
        own = f"pick sim/micrographs --picker {picker} --as article --diameter 180A -j 1"
        picked = cryopick(*own.split(), "--weights", trained, "-o", run, cwd=sets)
        assert picked.returncode == 0, picked.stderr
    done = cryopick("finetune", picker, "--picks", run, "-o", tuned, *given, *ONE_STEP.split(), cwd=sets)
    assert done.returncode == 0, done.stderr
    card = json.loads((tuned / "weights.json").read_text())
    before = json.loads((trained / "weights.json").read_text())
    assert card["architecture"] == before["architecture"]
    is_better = "kept the old weights" not in done.stdout
    assert (changed(read_arrays(trained / "weights.safetensors"), tuned) > 0.4) == is_better
    names = (tuned / "loss.csv").read_text().splitlines()
    assert names[0].startswith("step,")
    assert len(names) == 2  # one step
    if is_better:
        read = [card["settings"].get(part) for part in ("training_data", "validation_data")]
        assert {Path(name).stem for one in read if one for name in one["names"]} == set(MICROGRAPHS)
