"""Every command that the documentation, the help texts and the examples show is run as it is printed.

Commands are collected, not listed, so a new one is run from its first day. They run in this process, in a copy of a
small working folder that has what they name. What would take long is made small by options added at the end
(`SMALLER`), and what a sentence leaves open is filled in (`FOR_PLACEHOLDER`, `COMPLETED`). A command for whose input
the working folder has nothing fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import authors_emmae
import numpy as np
import pytest
from documented_clusters import cluster_for
from fake_cryosparc import FakeCryosparc, exposures_table
from fake_ctffind import write_ctffind
from small_trainings import CROPS, ONE_EPOCH, ONE_STEP
from walked import WALKED

import cryopick
from cryopick.cli.main import BEGIN, COMMANDS, build_app, command_of, main
from cryopick.io.images.mrc import write_mrc
from cryopick.scale.cluster.config import ClusterSettings, cluster_settings
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.workflows.train import TrainPlan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in WALKED)]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FOR_PLACEHOLDER = {
    "NAME": "blob",
    "COMMAND": "pick",
    "OTHER": "mics/",
    "FILE": "x.mrc",
    "micrographs/x.mrc": "micrographs/sim_0001.mrc",
    "INPUT...": "micrographs/ x.mrc",
    "FROM": "good.star",
    "TO": "out.csv",
    "SET": "labelled/",
    "DATASET": "labelled/",
    "PARTICLES.star": "particles.star",
    "K/N": "0/3",
    "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT": "0/3",
    "$JOB_COMPLETION_INDEX/16": "2/16",
}
"""Words in capitals that stand for anything of their kind, and a file that stands for any in its folder."""

COMPLETED = {
    "cryopick train cryoemmae --set preprocessing=program": "--data micrographs/ --diameter 180A -o trained/",
    "cryopick train general --preset small": "-o trained/",
    "cryopick train segmentation-crf --preset large": "--data labelled/ -o trained/",
    "cryopick train segmentation-crf --as article --data SET": "-o trained/",
    "cryopick convert picks.star out.star --flip-y auto --micrographs micrographs/ --diameter 180A": "",
}
"""Commands in a sentence that says the rest in words."""

SMALLER: tuple[tuple[str, str], ...] = (
    (r"train -o trained/ --resume", "--max-minutes 5"),
    (r"watch ", "--poll 0.2s --quiet 0.2s --stop-idle 1s --grace 1s -j 1"),
    (r"train general", f"{ONE_STEP} {CROPS}"),
    (r"train cryotransformer .*small", f"{ONE_STEP} {CROPS}"),
    (
        r"train cryotransformer .*(article|program)",
        f"{ONE_STEP} --set backbone=resnet18 --set width=32 --set heads=4 --set layers=2 --set feed_width=32 "
        "--set short_px=64 --set longest_px=96 --set batch_size=1 --set validation_images=1 --set norm_images=1",
    ),
    (r"train cryosegnet .*--epochs", f"{ONE_EPOCH} {CROPS}"),
    (r"train cryosegnet (.*small|(?!.*--(preset|as)))", f"{ONE_STEP} {CROPS}"),
    (r"train cryosegnet .*sam", f"{ONE_STEP} {CROPS} --set mapped_crops=2"),
    (r"train cryosegnet .*--as", f"{ONE_STEP} {CROPS} --set side_px=128 --set widths=4,4,4,4,4,4"),
    (
        r"train segmentation-crf .*--as",
        f"{ONE_STEP} --set backbone=fcn-resnet50 --set crop_px=64 --set batch_size=2",
    ),
    (r"train segmentation-crf .*large", f"{ONE_STEP} {CROPS} --set crf_crops=1 --set backbone=small"),
    (r"(train|finetune) segmentation-crf", f"{ONE_STEP} {CROPS} --set crf_crops=1"),
    (
        r"train cryoemmae .*(--as|finetune)",
        f"{ONE_STEP} --set batch_size=8 --set windows_per_crop=8 --set clustered_micrographs=1 "
        f"--set width={authors_emmae.WIDTH} --set depth={authors_emmae.DEPTH} "
        f"--set decoder_width={authors_emmae.DECODER_WIDTH} --set decoder_depth={authors_emmae.DECODER_DEPTH}",
    ),
    (
        r"train cryoemmae",
        f"{ONE_STEP} --set batch_size=8 --set simulated_micrographs=1 --set probe_crops=16 --set calibration_crops=16",
    ),
    (r"train deepcryopicker", f"{ONE_STEP} --set batch_size=4 --set validation_windows=8"),
    (r"finetune", f"{ONE_STEP} {CROPS}"),
    (r"pick .*--picker deepcryopicker", "--steps 20"),
    (r"reproduce deepcryopicker", "--only views"),
    (r"reproduce cryosegnet --data", "--only modules"),
    (r"pick .*--picker cryosegnet --as", "--points-per-side 2 --crop-layers 0"),
    (r"pick .*--picker segmentation-crf --as", "--tile-px 128 --rim-px 8"),
    (r"view ", "--no-open --stop-after 1"),
    (r"validate3d (?!.*--engine known)", "--max-particles 30"),  # too few for a map, which is a result
    (r"simulate .*--recipe segmentation-crf", "--count 1 --size 1024x1024 --pixel-size 7 --workers 1"),
    (r"simulate (?!.*--suite)", "--count 1 --size 320x320 --workers 1"),
)
"""Pattern of a command, and options put behind it so that it ends in seconds; the first that matches."""


BEFORE = {
    "cryopick train -o trained/ --resume": f"cryopick train general -o trained/ {ONE_STEP} {CROPS} --steps 2 "
    "--max-minutes 0.0001",  # stops it after its first step
    "cryopick view v3d/": "cryopick validate3d run1 -o v3d/ --truth sim/ --engine known --max-particles 9",
}
"""Commands that go on with something, or show it, and what has begun it."""


ONLY_PLANNED = ("cryopick train cryoemmae --set preprocessing=program",)
"""Trainings that are planned by their command and not begun: published pictures are of whole micrographs, and after a
step the network tells no particle in them from the rest, so that nothing can be calibrated."""


@dataclass(frozen=True)
class Shown:
    """A command line as it is printed, and where."""

    where: str
    line: str


# ----------------------------------------------------------------------------------------------------------- collecting


def commands_of_page(text: str) -> Iterator[str]:
    """Lines of code blocks, and code in sentences that says more than a command's name."""
    block = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)
    for language, code in block.findall(text):
        if language not in ("python", "toml"):  # which have tests of their own
            for line in code.replace("\\\n", " ").splitlines():
                found = re.match(r"\s*(?:\$ )?(?:\S*/)?(cryopick .*)", line)
                if found:
                    yield without_comment(found.group(1))
    for code in re.findall(r"`(cryopick [^`]+)`", block.sub("", text)):
        line = " ".join(code.split())
        if len(line.split()) > 2 or line.split()[1] not in COMMANDS:
            yield line


def without_comment(line: str) -> str:
    return re.split(r"\s+#", line, maxsplit=1)[0].strip()


def commands_of_help() -> Iterator[Shown]:
    yield from (Shown("cryopick", line) for line in shown_in(BEGIN))
    yield from (Shown("cryopick --help", line) for line in shown_in(build_app(None).info.help or ""))
    for name in COMMANDS:
        text = command_of(name).__doc__ or ""
        yield from (Shown(f"cryopick {name} --help", line) for line in shown_in(text))


def shown_in(text: str) -> Iterator[str]:
    """Command lines at the end of lines of a text, behind a colon or alone."""
    for line in text.splitlines():
        found = re.search(r"(?:^|: )\s*(cryopick [a-z]+ .*\S)\s*$", line)
        if found:
            yield found.group(1)


def collect() -> list[Shown]:
    pages = [Shown(page.name, line) for page in PAGES for line in commands_of_page(page.read_text(encoding="utf-8"))]
    examples = [Shown(path.name, line) for path in EXAMPLES for line in shown_in(path.read_text(encoding="utf-8"))]
    return [*pages, *commands_of_help(), *examples]


def different() -> list[Shown]:
    """Each command once, where it is shown first, whatever its output is called and in whatever order its words are."""
    first: dict[str, Shown] = {}
    for shown in collect():
        line = re.sub(r"(-o|--output) \S+", "-o OUTPUT", as_run(shown.line)).replace(" mics/", " micrographs/")
        first.setdefault(" ".join(sorted(line.split())), shown)
    return list(first.values())


# --------------------------------------------------------------------------------------------------- the working folder


def run_command(line: str) -> int:
    """The exit code of a command line, run in this process in the current folder."""
    words = shlex.split(line)
    before = sys.argv
    sys.argv = words
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Of torch: more threads only wait for one another on busy machines, and commands here are small."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def filled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documentation's commands name, made with cryopick: two micrographs of particles 180 Å wide."""
    folder = tmp_path_factory.mktemp("documented")
    volume = random_protein(np.random.default_rng(3), diameter_angstrom=180.0, voxel_size_angstrom=4.0)
    for name in ("map.mrc", "mask.mrc"):
        write_mrc(folder / name, volume.density, pixel_size_angstrom=volume.voxel_size_angstrom, is_volume=True)
    with within(folder):
        simulate = "cryopick simulate -o sim --structure map.mrc --recipe clean --size 384x384 --pixel-size 5 --dose 60"
        assert run_command(f"{simulate} --count 2 --seed 3") == 0
        images = sorted(Path("sim/micrographs").glob("*.mrc"))
        for place in ("micrographs", "mics", "extract", "session/Micrographs"):
            copy_all(images, Path(place))
        labels = [path.with_suffix(".csv") for path in images]
        copy_all(labels, Path("labels"))
        copy_all(labels, Path("truth"))
        for place in ("labelled", "real"):
            copy_all([*images, *labels, images[0].with_name("set.json")], Path(place))
        for number in ("10017", "10028"):
            make_cryoppp_set(Path("cryoppp") / number, images)
        make_released_coco(Path("train_val_test_data"), images)
        assert run_command("cryopick label labelled -o lab") == 0
        copy_all(images, Path("own/images"))
        for place in ("own/masks", "masks"):
            copy_all(sorted(Path("lab/masks").glob("*.png")), Path(place))
        for name in ("x.mrc", "image.mrc"):
            shutil.copy(images[0], name)
        shutil.copy("sim/particles.star", "particles.star")
        shutil.copy("sim/micrographs.star", "micrographs_ctf.star")
        Path("6z6u.pdb").write_text(globular_pdb())
        truth = cryopick.read_picks(Path("labels"))
        for name in ("good.star", "picks.star"):
            cryopick.write_picks([replace(picks, micrograph_name=f"{stem}.mrc") for stem, picks in truth.items()], name)
        Path("CtfFind/job003").mkdir(parents=True)
        rows = "".join(f"micrographs/{path.name}\n" for path in images)
        Path("CtfFind/job003/micrographs_ctf.star").write_text(
            f"data_micrographs\n\nloop_\n_rlnMicrographName #1\n{rows}\n"
        )
        for run in ("run1", "run2", "run"):
            assert run_command(f"cryopick pick micrographs/ -o {run} --diameter 180A --picker blob") == 0
        rng = np.random.default_rng(0)
        picture, vectors = rng.integers(0, 255, (1024, 1024)), rng.normal(size=(500, authors_emmae.WIDTH))
        authors_emmae.write_authors_files(folder, picture=picture.astype(np.uint8), vectors=vectors.astype(np.float32))
        assert run_command("cryopick convert run1 J9_particles_selected.cs --cs-rows relion") == 0
        save_as_authors_of_cryotransformer(Path("CryoTransformer.pth"))
        assert run_command("cryopick import-weights CryoTransformer.pth -o article") == 0
    return folder


def save_as_authors_of_cryotransformer(path: Path) -> None:
    """A small network with random weights, as the authors' program saves it."""
    import torch
    from detr_by_formula import SIZES, authors_tensors

    torch.save({"model": authors_tensors(), "args": Namespace(nheads=SIZES["heads"])}, path)


def copy_all(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copy(path, folder)


def make_cryoppp_set(folder: Path, images: list[Path]) -> None:
    """The layout of CryoPPP, whose tables count y from below."""
    (folder / "ground_truth").mkdir(parents=True)
    copy_all(images, folder / "micrographs")
    tables = folder / "ground_truth" / "particle_coordinates"
    tables.mkdir()
    for path in images:
        (labels,) = cryopick.read_picks(path.with_suffix(".csv")).values()
        height = cryopick.read_micrograph(path).shape_yx[0]
        rows = "".join(f"{x},{height - y},36\n" for x, y in labels.xy_px)
        (tables / f"{path.stem}.csv").write_text(f"X-Coordinate,Y-Coordinate,Diameter\n{rows}")


def make_released_coco(folder: Path, images: list[Path]) -> None:
    """The layout that CryoTransformer's authors released: a folder and a COCO file for each part."""
    (folder / "annotations").mkdir(parents=True)
    for part, path in zip(("train", "val"), images, strict=True):
        copy_all([path], folder / part)
        height, width = cryopick.read_micrograph(path).shape_yx
        (labels,) = cryopick.read_picks(path.with_suffix(".csv")).values()
        boxes = [{"image_id": 1, "category_id": 1, "bbox": [x - 18, y - 18, 36, 36]} for x, y in labels.xy_px.tolist()]
        content = {
            "images": [{"id": 1, "file_name": path.name, "height": height, "width": width}],
            "annotations": [{"id": number, **box} for number, box in enumerate(boxes)],
            "categories": [{"id": 1, "name": "particle"}],
        }
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def globular_pdb() -> str:
    """Carbon atoms at random in a ball of 60 Å, about as dense as protein."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-30, 30, (9000, 3))
    xyz = xyz[np.linalg.norm(xyz, axis=1) < 30]
    return "".join(
        f"ATOM  {i % 99999 + 1:5d}  CA  ALA A{i % 9999 + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           C\n"
        for i, (x, y, z) in enumerate(xyz)
    )


def put_trained_weights(folder: Path, line: str) -> None:
    """Weights at the places where earlier commands of the same page would have put them."""
    shipped = Path(cryopick.__file__).parent / "weights"
    named = re.search(r"--picker ([a-z-]+)", line)
    picker = named.group(1) if named else "general"
    published = re.search(r"pick .*--picker cryoemmae --as .*--weights (\w+)/", line)
    if published:
        assert run_command(f"cryopick import-weights {authors_emmae.WEIGHTS} -o {published.group(1)}/") == 0
        return
    for place, name in (("trained", picker), ("tuned", "general"), ("runs/unet", "cryosegnet")):
        if (shipped / f"{name}.safetensors").is_file():
            (folder / place).mkdir(parents=True)
            for suffix in (".safetensors", ".json"):
                shutil.copy(shipped / f"{name}{suffix}", folder / place / f"weights{suffix}")
    if "cryosegnet.pth" in line:
        import torch
        from authors_unet import authors_unet
        from meta_checkpoint import meta_tensors

        torch.save(authors_unet(), folder / "cryosegnet.pth")
        torch.save(meta_tensors(), folder / "sam_vit_h_4b8939.pth")


def put_published_weights(line: str) -> None:
    """A file of torchvision's, and what is imported of it; only where a command names them, because they are large."""
    is_picked = "--picker segmentation-crf" in line and "--weights published/" in line
    if not is_picked and "network.pth" not in line:
        return
    import torch
    from torchvision.models.segmentation import fcn_resnet50

    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=2, aux_loss=False)
    network.backbone.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.save(network.state_dict(), "network.pth")
    if is_picked:
        assert run_command("cryopick import-weights network.pth -o published") == 0


def put_maps(line: str) -> None:
    """A run with maps, where masks are to be compared with one."""
    if "evaluate maps1" in line:
        pick = "cryopick pick micrographs/ -o maps1 --picker segmentation-crf --diameter 180A --full-maps --views 1"
        assert run_command(pick) == 0


def put_programs(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of others that a command calls, played."""
    if "--ctf estimate" in line:
        write_ctffind(Path("programs").absolute(), {"*": (20000.0, 19500.0, 30.0, 0.0, 0.2, 8.0)})
        monkeypatch.setenv("PATH", f"{Path('programs').absolute()}{os.pathsep}{os.environ['PATH']}")


class within:  # noqa: N801  # reads as what it does
    """The current folder, for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = Path.cwd()
        os.chdir(self.folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self.before)


def place_of_output(words: list[str]) -> str | None:
    """What a command writes, by its line; removed before, so that a command that was run before may be run again."""
    for flag in ("-o", "--output"):
        if flag in words:
            return words[words.index(flag) + 1]
    return words[3] if words[1] == "convert" else None


def as_run(line: str) -> str:
    """The line with everything filled in and made small."""
    filled = " ".join(FOR_PLACEHOLDER.get(word, word) for word in f"{line} {COMPLETED.get(line, '')}".split())
    smaller = next((options for pattern, options in SMALLER if re.search(f"^cryopick {pattern}", filled)), "")
    return f"{filled} {smaller}".strip()


@pytest.fixture
def working_folder(filled_folder: Path, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work"
    shutil.copytree(filled_folder, folder)
    with within(folder):
        yield folder
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize("shown", different(), ids=lambda shown: f"{shown.where}: {shown.line}")
def test_a_documented_command_works_as_printed(
    shown: Shown,
    working_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    line = as_run(shown.line)
    words = shlex.split(line)
    put_trained_weights(working_folder, line)
    put_published_weights(line)
    put_maps(line)
    put_programs(line, monkeypatch)
    output = place_of_output(words)
    if output is not None and Path(output).exists():
        shutil.rmtree(output) if Path(output).is_dir() else Path(output).unlink()
    if shown.line in BEFORE:
        assert run_command(BEFORE[shown.line]) == 0
    make_small_what_has_no_option(monkeypatch)
    if shown.line in ONLY_PLANNED:
        output = None
        monkeypatch.setattr("cryopick.cli.train.train_picker", end_with_a_plan)
    with cluster_for(line, working_folder, request, monkeypatch) as line_there:
        code = run_command(line_there)
    told = capsys.readouterr()
    assert code == 0, f"{line}\n{told.out}{told.err}"
    assert output is None or Path(output).exists(), f"{line} made no {output}"


def end_with_a_plan(plan: object, *_: object, **__: object) -> None:
    assert isinstance(plan, TrainPlan)
    sys.exit(0)


def make_small_what_has_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that a user cannot choose: one set of the suite, few simulated crops, few picks that teach."""
    from cryopick.pickers.cryoemmae import reference as cryoemmae_reference
    from cryopick.pickers.cryoemmae import training as cryoemmae
    from cryopick.pickers.deepcryopicker import self_labels
    from cryopick.simulation import suite
    from cryopick.simulation import suite_files as simulate_suite
    from cryopick.simulation.crops import CropGenerator
    from cryopick.workflows import cryosparc_job, self_train

    images = [f"J7/motioncorrected/{path.name}" for path in Path("micrographs").glob("*.mrc")]
    exposures = exposures_table(images, shape_yx=(384, 384))
    monkeypatch.setattr(cryosparc_job, "connect", lambda url: FakeCryosparc(exposures))  # there is no server
    monkeypatch.setattr(suite, "MICROGRAPHS_PER_SET", 1)
    monkeypatch.setattr(suite, "SHAPE_YX", (256, 256))
    one_set = suite.suite_sets()[:1]
    monkeypatch.setattr(simulate_suite, "suite_sets", lambda *, levels: one_set)
    monkeypatch.setattr(self_train, "FEWEST_TEACHERS", 1)
    for name in ("BANK_CROPS", "HELD_OUT_CROPS"):  # whole shards of crops, kept in the user's cache
        monkeypatch.setattr(cryoemmae, name, 0)
    monkeypatch.setattr(cryoemmae, "VALIDATION_WINDOWS", 32)
    monkeypatch.setattr(cryoemmae, "CLUSTERED_WINDOWS", 64)
    monkeypatch.setattr(cryoemmae_reference, "STARTS", 2)
    monkeypatch.setattr(cryoemmae_reference, "SEARCHED_CROPS", 12)
    monkeypatch.setattr(self_labels, "MINIMUM_EXAMPLES", 10)
    for name in ("pool_size", "views_per_species"):  # of the proteins in simulated crops
        monkeypatch.setitem(CropGenerator.__init__.__kwdefaults__, name, 4)
    monkeypatch.setattr(cryoemmae_reference, "MICROGRAPH_PX", 640)


def python_blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name} {number}", code)
        for page in PAGES
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL))
    ]


@pytest.mark.parametrize(("where", "code"), python_blocks(), ids=lambda value: value.split("\n")[0])
def test_python_in_the_documentation_works_as_printed(
    where: str,
    code: str,
    working_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    shutil.rmtree("run1")
    with cluster_for(code, working_folder, request, monkeypatch) as code_there:
        names = {"image": cryopick.read_micrograph(working_folder / "x.mrc").pixels}
        exec(compile(code_there, where, "exec"), names)


def test_config_files_in_the_documentation_work_as_printed(working_folder: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```toml\n(.*?)```", pages, flags=re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        Path("run.toml").write_text(block, encoding="utf-8")
        if block.startswith("[cluster]"):
            assert cluster_settings(Path("run.toml")) != ClusterSettings()
            continue
        assert run_command(f"cryopick pick micrographs/ -o configured{number} --config run.toml") == 0


def test_the_commands_of_every_page_are_found() -> None:
    """Were the collecting broken, nothing would be run and nothing fail."""
    found = Counter(shown.where for shown in collect())
    for page in PAGES:
        lines = re.findall(r"^cryopick [a-z]+ +[-a-z0-9./]+ .*", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        prose = [line for line in lines if line.startswith("cryopick finds ")]
        assert found[page.name] >= len(lines) - len(prose)
    assert found["cryopick convert --help"] >= 1
    assert found["pick_a_folder.py"] == 3


def test_scripts_that_the_documentation_names_exist() -> None:
    for page in PAGES:
        named = re.findall(r"\b((?:benchmarks|docs|examples|scripts)/[\w/]+\.py)\b", page.read_text(encoding="utf-8"))
        assert [name for name in named if not (ROOT / name).is_file()] == [], page.name
