"""Tables of measured figures, made from the results of the benchmarks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
REAL = ("apoferritin", "bgal10017")
PLACE = "<!-- made: {} -->"
"""Where in a page a made table stands."""

NEEDS = {
    "general": "–",
    "consensus": "time",
    "segmentation-crf": "–",
    "cryotransformer": "–",
    "cryosegnet": "–",
    "cryoemmae": "–",
    "deepcryopicker": "ten micrographs",
    "supercryopicker": "–",
    "autocryopicker": "round or square particles",
    "blob": "the diameter",
    "template": "references or a map",
    "RELION LoG": "the diameter",
    "Topaz": "the diameter",
}
"""What a picker must be given, beyond micrographs."""


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table_of_pickers() -> str:
    """One row a picker: F1 on real and simulated sets, and picks where nothing is; "–" where it was not measured."""
    rows = {**_learned(), **_unsupervised(), **_peers()}
    ordered = sorted(rows, key=lambda name: -mean(value for value in (rows[name].get(one, 0.0) for one in REAL)))
    head = ("picker", "needs", "apoferritin", "EMPIAR-10017", "medium", "hard", "picks on empty")
    columns = (*REAL, "medium", "hard", "empty")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in ordered:
        shown = f"`{name}`" if name in NEEDS and name[0].islower() else name
        cells = [_number(rows[name].get(column), 1 if column == "empty" else 3) for column in columns]
        need = next(text for key, text in NEEDS.items() if name.startswith(key))
        lines.append("| " + " | ".join([shown, need, *cells]) + " |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _learned() -> dict[str, dict[str, float]]:
    """Those that were measured on the same sets in one run, and Cryo-EMMAE."""
    sets: Mapping[str, Any] = read("consensus")["sets"]
    found: dict[str, dict[str, float]] = {}
    for name in ("general", "consensus", "segmentation-crf", "cryotransformer", "cryosegnet"):
        row = {one: sets[one][name]["f1"] for one in REAL}
        for level in ("medium", "hard"):
            row[level] = mean(one[name]["f1"] for one in sets.values() if one["level"] == level)
        found[name] = row
    found["general"]["empty"] = read("general")["real"]["empty"]["diameter given"]["picks_per_micrograph"]
    real = read("cryoemmae")["real"]
    found["cryoemmae"] = {one: real[one]["f1"] for one in REAL}
    found["cryoemmae"]["empty"] = real["empty"]["picks_per_micrograph"]
    return found


def _unsupervised() -> dict[str, dict[str, float]]:
    results = read("deepcryopicker")
    found: dict[str, dict[str, float]] = {}
    for name in ("deepcryopicker", "supercryopicker", "autocryopicker"):
        found[name] = {one: results[one][name]["f1"] for one in REAL}
        picks = results["empty"].get(name, {}).get("picks_per_micrograph")
        if picks is not None:
            found[name]["empty"] = picks
    return found


def _peers() -> dict[str, dict[str, float]]:
    """`blob` and other programs, at the default threshold of each."""
    found: dict[str, dict[str, float]] = {}
    for row in read("peers")["rows"]:
        if row["picker"] == "general" or not row["evaluation"]:
            continue
        strict = row["evaluation"]["tolerances"][0]
        ours = found.setdefault(row["picker"], {})
        if row["set"] == "empty":
            ours["empty"] = strict["counts"]["false_positive"] / row["evaluation"]["micrographs"]
        else:
            ours[row["set"]] = strict["f1"]
    return found


def picker_template() -> str:
    """The code of the picker that a package of one's own may begin with."""
    path = RESULTS.parents[1] / "examples" / "picker_plugin" / "src" / "laplacian_picker.py"
    return f"```python\n{path.read_text(encoding='utf-8')}```"


TABLES = {"table of pickers": table_of_pickers, "picker template": picker_template}


def with_tables(markdown: str) -> str:
    """A page with its made tables."""
    for name, make in TABLES.items():
        place = PLACE.format(name)
        if place in markdown:
            markdown = markdown.replace(place, make())
    return markdown
