"""From real labels to segmentation maps to training to maps to picks: the workflow of the segmentation + CRF abstract.

    python benchmarks/segmentation_masks.py --data path/to/set --work scratch/ --output benchmarks/results

`--data` is a labelled set (images, one CSV each, set.json). Its micrographs are divided by name: the last `--held-out`
of them judge, the others teach. Everything is done by the commands that the documentation shows, which are printed.
Minutes on one core. Writes segmentation_masks.json and segmentation_masks.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryopick.cli.main import main as cryopick_main
from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.report import markdown_table

IMAGES = (".jpg", ".png", ".mrc", ".tif", ".tiff")
CRFS = ("none", "dense", "conv", "learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled set")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder; finished steps are not repeated")
    parser.add_argument("--held-out", type=int, default=3, help="micrographs that judge")
    parser.add_argument("--steps", type=int, default=80, help="of training")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    work: Path = args.work
    images = sorted(one for one in args.data.iterdir() if one.suffix.lower() in IMAGES)
    parts = {"teach": images[: -args.held_out], "judge": images[-args.held_out :]}
    found: dict[str, Any] = {"machine": str(describe_machine()), "steps": args.steps, "commands": [], "seconds": {}}
    for name, some in parts.items():
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*some, *(one.with_suffix(".csv") for one in some), args.data / "set.json"]:
            link = folder / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
    for name in parts:
        run(f"cryopick label {work / name} -o {work / name}-maps", work / f"{name}-maps/labels.json", found)
    crf_from = args.steps * 2 // 3
    run(
        f"cryopick train segmentation-crf --data {work}/teach-maps -o {work}/trained --steps {args.steps} "
        f"--warmup-steps 5 --validate-every {args.steps} --precision 32-true --set batch_size=8 "
        f"--set crf_from_step={crf_from} --set crf_crops=2",
        work / "trained/weights.json",
        found,
    )
    for title, weights in (("shipped weights", ""), ("trained on the maps", f" --weights {work}/trained")):
        for backbone in ("small", "deeplabv3-small"):
            for crf in CRFS:
                place = work / f"run-{title.split()[0]}-{backbone}-{crf}"
                run(
                    f"cryopick pick {work}/judge -o {place} --picker segmentation-crf --diameter 108px "
                    f"--backbone {backbone} --crf {crf} --full-maps{weights}",
                    place / "summary.json",
                    found,
                )
                scores = work / f"scores-{title.split()[0]}-{backbone}-{crf}"
                run(
                    f"cryopick evaluate {place} --masks {work}/judge-maps --truth {work}/judge -o {scores}",
                    scores / "masks.json",
                    found,
                )
                found.setdefault("rows", {})[f"{title}: {backbone}, {crf}"] = row_of(scores)
    args.output.mkdir(parents=True, exist_ok=True)
    found["micrographs"] = {name: [one.name for one in some] for name, some in parts.items()}
    (args.output / "segmentation_masks.json").write_text(json.dumps(found, indent=1) + "\n")
    text = as_markdown(found)
    (args.output / "segmentation_masks.md").write_text(text)
    print(text)


def run(line: str, made: Path, found: dict[str, Any]) -> None:
    """One command, unless what it makes is there."""
    found["commands"].append(line.replace(str(made.parents[1]), "WORK"))
    if made.exists():
        return
    print("$", line, flush=True)
    before, sys.argv = sys.argv, shlex.split(line)
    start = time.perf_counter()
    try:
        cryopick_main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = before
    found["seconds"][line.replace(str(made.parents[1]), "WORK")] = round(time.perf_counter() - start, 1)


def row_of(folder: Path) -> dict[str, Any]:
    """Pixel scores of the particle class and F1 of the picks."""
    masks = json.loads((folder / "masks.json").read_text())
    picks = json.loads((folder / "evaluation.json").read_text())
    maps = masks["maps"]
    final = maps.get("with CRF", maps.get("run"))
    main_scores = picks["tolerances"][0]
    return {
        **{name: final[name][1] for name in ("recall", "precision", "iou", "f1")},
        "accuracy": final["accuracy"],
        "mean_iou": final["mean_iou"],
        "picks": {name: main_scores[name] for name in ("precision", "recall", "f1")},
    }


def as_markdown(found: dict[str, Any]) -> str:
    names = ("accuracy", "recall", "precision", "iou", "f1", "mean_iou")
    rows = [
        [title, *(f"{row[name]:.3f}" for name in names), *(f"{row['picks'][name]:.3f}" for name in row["picks"])]
        for title, row in found["rows"].items()
    ]
    header: Sequence[str] = [
        "weights, network and CRF", "accuracy", "recall", "precision", "IoU", "F1", "mean IoU",
        "picks: precision", "picks: recall", "picks: F1",
    ]  # fmt: skip
    taught, judged = (len(found["micrographs"][name]) for name in ("teach", "judge"))
    return (
        "\n\n".join(
            [
                "# Maps of real micrographs",
                f"By `benchmarks/segmentation_masks.py` on {found['machine']}: {taught} micrographs teach "
                f"({found['steps']} steps), {judged} others judge. Recall, precision, IoU and F1 are of the "
                "particles' pixels.",
                markdown_table(list(header), rows),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
