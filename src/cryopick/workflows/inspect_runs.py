"""Say what is in a folder that cryopick made: a picking run, a training, a benchmark."""

from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError
from cryopick.runs.folder import COMMAND, CONFIG, SUMMARY, RunFolder
from cryopick.runs.results import read_summary
from cryopick.runs.settings import make_settings, settings_sections
from cryopick.settings import as_text

PICKING, TRAINING, BENCHMARK = "picking run", "training", "benchmark"
_BENCHMARK_FILE = "benchmark.json"
_TRAINING_SECTIONS = ("train", "finetune")

Description = tuple[str, dict[str, Any], tuple[str, ...]]
"""Kind in words, facts, warnings."""


def describe_run(folder: Path) -> Description | None:
    """What cryopick did in a folder, as far as it came; None where it did nothing.

    Damaged files are told in the warnings; they hide nothing else.
    """
    if (folder / _BENCHMARK_FILE).is_file():
        return _described(_describe_benchmark, folder, BENCHMARK)
    config = _read_toml(folder / CONFIG)
    if config is not None and any(section in config for section in _TRAINING_SECTIONS):
        return _described(_describe_training, folder, TRAINING)
    if config is not None and "run" in config:
        return _described(_describe_picking, folder, PICKING)
    return None


def _described(describe: Any, folder: Path, kind: str) -> Description:
    try:
        described: Description = describe(folder)
    except (CryopickError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return kind, {}, (f"the folder of a {kind}, of which a file is damaged: {error}",)
    return described


def _read_toml(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


# ------------------------------------------------------------------------------------------------------- picking runs


def _describe_picking(folder: Path) -> Description:
    run = RunFolder(folder)
    config = _read_toml(folder / CONFIG) or {}
    picker = str(config["run"].get("picker", ""))
    records = run.records()
    failed = [record for record in records if not record.is_done]
    summary = read_summary(folder) if (folder / SUMMARY).is_file() else None
    facts: dict[str, Any] = {"picker": picker}
    warnings: list[str] = []
    is_complete = summary is not None and summary["micrographs"] == len(records)
    facts["state"] = "complete" if is_complete else f"interrupted after {len(records):,} micrographs"
    if not is_complete:
        command = _command(folder)
        again = f"the same command goes on: {command}" if command else "the same call goes on"
        warnings.append(f"the run is not complete, and its tables are missing or older than its picks; {again}")
    facts["micrographs_picked"] = len(records) - len(failed)
    facts["micrographs_failed"] = len(failed)
    if summary is not None:
        facts |= _facts_of_summary(summary)
        warnings += [
            f"{text} ({count} micrographs)" if count > 1 else text for text, count in summary["warnings"].items()
        ]
    warnings += [f"not picked: {record.name}: {record.error}" for record in failed[:5]]
    if len(failed) > 5:
        warnings.append(f"{len(failed) - 5} more were not picked; run.log names them")
    facts["settings_changed"] = _changed_settings(picker, config)
    return PICKING, facts, tuple(warnings)


def _facts_of_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "particles": summary["particles"],
        "candidates": summary["candidates"],
        "candidates_rejected": dict(summary["rejected"]) or "none",
        "threshold": f"{summary['threshold']:.4g} ({summary['threshold_source']})",
        "score": summary["score_meaning"],
    }
    if summary.get("expected_precision") is not None:
        facts["expected_precision"] = summary["expected_precision"]
        if summary.get("expected_precision_low") is not None:
            facts["expected_precision_range"] = [summary[f"expected_precision_{end}"] for end in ("low", "high")]
        facts["expected_recall"] = summary["expected_recall"]
    names = ("pixel_size_angstrom", "diameter_px", "diameter_angstrom", "box_px")
    groups = summary.get("sizes") or [summary]
    facts |= {name: [group.get(name) for group in groups] for name in names}
    facts["cryopick_version"] = summary["cryopick_version"]
    return facts


def _changed_settings(picker: str, config: Mapping[str, Any]) -> Any:
    """The settings of a run that are not the defaults, as on the command line."""
    try:
        defaults = settings_sections(make_settings(picker))
    except CryopickError:  # a picker that is not installed, or cannot be made without settings
        defaults = {}
    changed = [
        f"{name} = {as_text(value)}"
        for section, values in config.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if name != "picker" and defaults.get(section, {}).get(name) != value
    ]
    return changed or "none"


def _command(folder: Path) -> str:
    path = folder / COMMAND
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


# ------------------------------------------------------------------------------------------------ trainings, benchmarks


def _describe_training(folder: Path) -> Description:
    from cryopick.training.folder import WEIGHTS_FILE
    from cryopick.training.logs import LOSS_TABLE, VALIDATION_TABLE

    config = _read_toml(folder / CONFIG) or {}
    head = next(config[section] for section in _TRAINING_SECTIONS if section in config)
    wanted = config.get("training", {}).get("steps")
    losses, validations = _table(folder / LOSS_TABLE), _table(folder / VALIDATION_TABLE)
    is_finished = (folder / WEIGHTS_FILE).is_file()
    facts: dict[str, Any] = {
        "state": "finished" if is_finished else "not finished",
        **{name: value for name, value in head.items() if value != ""},
        "steps": f"{losses[-1]['step'] if losses else 0} of {wanted}",
    }
    if validations:
        facts["last_validation"] = ", ".join(f"{name} {value}" for name, value in validations[-1].items())
    if is_finished:
        facts["weights"] = str(folder / WEIGHTS_FILE)
    again = f"add --resume to its command to go on: {_command(folder)}"
    return TRAINING, facts, () if is_finished else (f"the training has not finished; {again}",)


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []


def _describe_benchmark(folder: Path) -> Description:
    content = json.loads((folder / _BENCHMARK_FILE).read_text(encoding="utf-8"))
    rows = content["rows"]
    facts: dict[str, Any] = {
        "pickers": list(dict.fromkeys(row["picker"] for row in rows)),
        "sets": list(dict.fromkeys(row["set"] for row in rows)),
        "rows": dict(Counter("failed" if row["error"] else "measured" for row in rows)),
        "tolerance_diameters": content["tolerance_diameters"],
    }
    return BENCHMARK, facts, tuple(f"{row['picker']} on {row['set']}: {row['error']}" for row in rows if row["error"])
