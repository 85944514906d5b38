"""What starting and picking with `general` cost, this checkout against an older commit and RELION's LoG, in one run.

    python benchmarks/start_and_speed.py --old 334553c
    python benchmarks/start_and_speed.py --old 334553c --parts start speed --count 20

Seconds are those of processors (user and system, of the program and all that it starts), the least of some tries: wall
time says more of what else the machine does. A micrograph's share is the slope between a run of one and a run of
`--count`, files to STAR, with the diameter given and measured. Both commits are run by the interpreter that runs this.
Writes start_and_speed.json and start_and_speed.md; parts that are not asked for keep what was measured before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.evaluation.machine import describe_machine
from cryopick.io.images.mrc import write_mrc

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("start", "speed", "real")
DIAMETER_PX, PIXEL_ANGSTROM = 108, 1.77
"""As beta-galactosidase of EMPIAR-10017 in its micrographs of 4096 pixels."""
SIDES_PX = (2048, 4096)
TRIES = 2
ACCURACY = """
import json, sys
from pathlib import Path
import general as benchmark
from cryopick.pickers.general.picker import GeneralPicker
found = {}
for precision in ("int8", "float32"):
    sets = benchmark.real_sets(GeneralPicker(precision=precision, device="cpu"), Path(sys.argv[1]))
    for name, entry in sets.items():
        for how in ("diameter given", "diameter measured"):
            found[f"{name}, {how}, {precision}"] = entry[how]["f1"]
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, help="commit that is compared with")
    parser.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "data" / "real", help="labelled sets")
    parser.add_argument("--count", type=int, default=20, help="micrographs of a run")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    path = arguments.output / "start_and_speed.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="cryopick-speed-") as name:
        folder = Path(name)
        old = folder / "old"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", old, arguments.old], cwd=ROOT, check=True)
        try:
            checkouts = {"old": old, "new": ROOT}
            for part in arguments.parts:
                if part == "start":
                    found[part] = {name: start(at, folder) for name, at in checkouts.items()}
                elif part == "speed":
                    found[part] = speed(checkouts, folder, count=arguments.count)
                    found["count"] = arguments.count
                elif arguments.real.is_dir():
                    found[part] = {name: accuracy(at, arguments.real) for name, at in checkouts.items()}
                found["machine"] = {**found.get("machine", {}), part: str(describe_machine())}
                found["old"] = arguments.old
                path.write_text(json.dumps(found, indent=1) + "\n")
                (arguments.output / "start_and_speed.md").write_text(as_markdown(found))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=True)
    print(as_markdown(found))


# ------------------------------------------------------------------------------------------------------- measuring


def processor_seconds(words: Sequence[object], *, at: Path | None = None, cwd: Path | None = None) -> float:
    """Of a program and all that it starts."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if at is not None:
        environment["PYTHONPATH"] = str(at / "src")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(word) for word in words], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start(at: Path, folder: Path) -> dict[str, float]:
    program = [sys.executable, "-m", "cryopick"]
    images = folder / "one"
    make_micrographs(images, count=1, side_px=1024)
    found = {}
    for words in (["--help"], ["pick", "--help"]):
        found[" ".join(words)] = min(processor_seconds([*program, *words], at=at) for _ in range(TRIES))
    for picker in ("general", "blob"):
        found[f"a run of one micrograph, {picker}"] = min(
            processor_seconds(pick_words(images, folder / "run", picker=picker), at=at) for _ in range(TRIES)
        )
    return found


def pick_words(images: Path, output: Path, *, picker: str = "general", options: Sequence[str] = ()) -> list[object]:
    shutil.rmtree(output, ignore_errors=True)
    given = [] if "--measured" in options else ["--diameter", f"{DIAMETER_PX}px"]
    rest = [option for option in options if option != "--measured"]
    return [*(sys.executable, "-m", "cryopick", "pick", images, "-o", output), "--picker", picker, *given, *rest]


def make_micrographs(folder: Path, *, count: int, side_px: int) -> None:
    """Dark discs in noise: what a network has to do does not depend on what it sees."""
    if len(list(folder.glob("*.mrc"))) == count:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    y, x = np.mgrid[:DIAMETER_PX, :DIAMETER_PX] - (DIAMETER_PX - 1) / 2
    disc = np.where(np.hypot(y, x) < DIAMETER_PX / 2, -1, 0).astype(np.float32)
    for number in range(count):
        generator = np.random.default_rng(number)
        pixels = generator.normal(scale=2, size=(side_px, side_px)).astype(np.float32)
        for top, left in generator.integers(0, side_px - DIAMETER_PX, size=((side_px // (2 * DIAMETER_PX)) ** 2, 2)):
            pixels[top : top + DIAMETER_PX, left : left + DIAMETER_PX] += disc
        write_mrc(folder / f"m{number:03}.mrc", pixels, pixel_size_angstrom=PIXEL_ANGSTROM)


def speed(checkouts: dict[str, Path], folder: Path, *, count: int) -> dict[str, dict[str, float]]:
    """Processor seconds a micrograph."""
    found: dict[str, dict[str, float]] = {}
    for side_px in SIDES_PX:
        one, many = folder / f"one-{side_px}", folder / f"many-{side_px}"
        make_micrographs(one, count=1, side_px=side_px)
        make_micrographs(many, count=count, side_px=side_px)
        cases = {f"general, {name}": (at, ()) for name, at in checkouts.items()}
        cases["general, new, diameter measured"] = (checkouts["new"], ("--measured",))
        cases["general, new, one look"] = (checkouts["new"], ("--looks", "1"))
        entry = {}
        for name, (at, options) in cases.items():
            whole = processor_seconds(pick_words(many, folder / "run", options=options), at=at)
            begun = min(
                processor_seconds(pick_words(one, folder / "run", options=options), at=at) for _ in range(TRIES)
            )
            entry[name] = (whole - begun) / (count - 1)
        if program := shutil.which("relion_autopick"):
            entry["RELION LoG"] = relion_seconds(program, many, folder) / count
        found[f"{side_px} x {side_px}"] = entry
    return found


def relion_seconds(program: str, images: Path, folder: Path) -> float:
    low, high = (factor * DIAMETER_PX * PIXEL_ANGSTROM for factor in (0.8, 1.2))
    words = [program, "--i", f"{images}/*.mrc", "--odir", f"{folder}/log/", "--pickname", "log", "--LoG"]
    words += ["--angpix", PIXEL_ANGSTROM, "--LoG_diam_min", low, "--LoG_diam_max", high]
    (folder / "log").mkdir(exist_ok=True)
    return processor_seconds([*words, "--LoG_adjust_threshold", 0, "--shrink", 0, "--lowpass", 20], cwd=folder)


def accuracy(at: Path, sets: Path) -> dict[str, float]:
    """F1 on the labelled sets, by the benchmark of the same checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{at / 'src'}{os.pathsep}{at / 'benchmarks'}"}
    done = subprocess.run(
        [sys.executable, "-c", ACCURACY, sets], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# --------------------------------------------------------------------------------------------------------- writing


def as_markdown(found: dict[str, Any]) -> str:
    lines = [
        "# Start and speed of `general`",
        "",
        f"Made by `python benchmarks/start_and_speed.py --old {found['old']}`.",
    ]
    lines += ["Processor seconds, of two cores; see the script for what is measured.", ""]
    if "start" in found:
        lines += ["| command | old | new |", "| --- | --- | --- |"]
        for name, old in found["start"]["old"].items():
            lines.append(f"| {name} | {old:.2f} | {found['start']['new'][name]:.2f} |")
        lines.append("")
    if "speed" in found:
        sizes = list(found["speed"])
        lines += [
            f"| a micrograph of a run of {found['count']} | {' | '.join(sizes)} |",
            "| --- |" + " --- |" * len(sizes),
        ]
        for name in found["speed"][sizes[0]]:
            lines.append(f"| {name} | {' | '.join(f'{one[name]:.2f}' for one in found['speed'].values())} |")
        lines.append("")
    if "real" in found:
        lines += ["| F1 | old | new | difference |", "| --- | --- | --- | --- |"]
        for name, old in found["real"]["old"].items():
            new = found["real"]["new"][name]
            lines.append(f"| {name} | {old:.4f} | {new:.4f} | {new - old:+.4f} |")
        lines.append("")
    lines += [f"Machine ({part}): {machine}" for part, machine in found["machine"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
