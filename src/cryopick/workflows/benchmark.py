"""Any pickers on any labelled sets: one run each through `cryopick pick`, one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

import cryopick
from cryopick.data.datasets import Dataset, open_dataset
from cryopick.data.id_lists import choose_sets
from cryopick.data.parts import parts_of
from cryopick.errors import CryopickError, InputError, SettingsError
from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow, BenchmarkSet
from cryopick.evaluation.machine import describe_machine
from cryopick.evaluation.scores import TOLERANCES
from cryopick.evaluation.usage import Usage, run_measured
from cryopick.io.files.atomic import write_text_atomic
from cryopick.pickers.registry import picker_class
from cryopick.runs.folder import RunFolder
from cryopick.scale.processes import python_command
from cryopick.settings import as_text, settings_of
from cryopick.workflows.evaluate import evaluate

RUNS = "runs"


def benchmark(
    pickers: Sequence[str],
    data: Sequence[Path | str],
    output: Path | str,
    *,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    tolerance: float = TOLERANCES[0],
    workers: int = 1,
    flip_y: str | None = None,
    ids: Sequence[str] = (),
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> Benchmark:
    """Run every picker on every set and score it; the same command again resumes and repeats no finished run.

    Every picker gets the diameter and the pixel size of the set, and its own defaults otherwise. A picker that fails
    on a set has a row that says so.

    Parameters
    ----------
    pickers : registered names
    data : data sets in any layout of `cryopick.data.datasets`, or folders of such
    output : folder for runs; see `cryopick.evaluation.benchmark_report.write_benchmark` for the tables
    settings : picker name -> setting -> value, beyond the defaults
    workers : processes per run; seconds per micrograph are those of one process
    flip_y : whether y of the labels is counted from the other end; see `cryopick.data.datasets.open_dataset`
    ids : of folders of sets, only these EMPIAR numbers or lists of them; see `cryopick.data.id_lists`
    seed : of the bootstrap intervals

    Raises
    ------
    SettingsError
        If a picker is unknown.
    InputError
        If a set cannot be read.
    """
    given = settings or {}
    for name in (*pickers, *given):
        picker_class(name)  # raises with the known names
    tell = on_progress or (lambda _: None)
    sets = open_sets(data, flip_y=flip_y, ids=ids)
    rows = []
    for one in sets:
        for name in pickers:
            tell(f"{name} on {one.name} ({len(one.images)} micrographs)")
            rows.append(
                run_picker(
                    name,
                    one,
                    Path(output) / RUNS / one.name / name,
                    settings=given.get(name, {}),
                    tolerance=tolerance,
                    workers=workers,
                    seed=seed,
                )
            )
    return Benchmark(tuple(rows), tuple(sets), tolerance, describe_machine())


def open_sets(data: Sequence[Path | str], *, flip_y: str | None = None, ids: Sequence[str] = ()) -> list[BenchmarkSet]:
    """The data sets that paths name: each a set itself, or a folder whose sub-folders are sets."""
    sets: list[BenchmarkSet] = []
    found = [folder for path in data for folder in _set_folders(Path(path))]
    if ids:
        by_name = {folder.resolve().name: folder for folder in found}
        if len(by_name) < len(found):
            raise InputError("two of the sets have one name, so that they cannot be chosen by EMPIAR number")
        found = [by_name[name] for name in choose_sets(by_name, ids, where=", ".join(str(path) for path in data))]
    for folder in found:
        try:
            dataset = open_dataset(folder, flip_y=flip_y).labelled()
        except CryopickError as error:
            raise InputError(f"{folder}: not usable as a labelled set: {error}") from error
        sets.append(_benchmark_set(dataset, taken={one.name for one in sets}))
    if not sets:
        raise InputError("no data sets given; give folders with micrographs and labels")
    return sets


def _set_folders(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected a labelled set or a folder of such")
    if path.is_file() or any(
        child.is_file() and not child.name.startswith((".", "README")) for child in path.iterdir()
    ):
        return [path]
    children = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    # CryoPPP keeps the images of one set in a sub-folder; a folder of sets has sub-folders that stand for themselves.
    has_own_layout = any(child.name in ("micrographs", "ground_truth", "images", "masks") for child in children)
    return [path] if has_own_layout or not children or parts_of(path) else children


def _benchmark_set(dataset: Dataset, *, taken: set[str]) -> BenchmarkSet:
    name = dataset.path.stem if dataset.path.is_file() else dataset.path.resolve().name
    number = 2
    while name in taken:
        name, number = f"{dataset.path.resolve().name}-{number}", number + 1
    labels = {item.name: item.labels for item in dataset if item.labels is not None}
    diameters = [one.diameter_px for one in labels.values() if one.diameter_px is not None]
    sizes = {item.pixel_size_angstrom for item in dataset}
    return BenchmarkSet(
        name=name,
        images=tuple(item.source.path for item in dataset),
        labels=labels,
        diameter_px=(min(diameters), max(diameters)) if diameters else None,
        pixel_size_angstrom=sizes.pop() if len(sizes) == 1 else None,
    )


def run_picker(
    name: str,
    data: BenchmarkSet,
    folder: Path,
    *,
    settings: Mapping[str, str],
    tolerance: float,
    workers: int,
    seed: int,
) -> BenchmarkRow:
    """Run `cryopick pick` as a program of its own, so that its peak memory is its own, and score the run folder."""
    options = _options(name, data, settings)
    listing = folder.parent / f"{name}.txt"
    write_text_atomic(listing, "".join(f"{path.absolute()}\n" for path in data.images))
    command = python_command(cryopick.__name__, "pick", f"@{listing}", "-o", str(folder))
    command += ["--picker", name, "--workers", str(workers), "--json"]
    command += [word for flag, value in options.items() for word in (flag, value)]
    usage_file = folder.parent / f"{name}.usage.json"
    usage = _read_usage(usage_file, command)
    if usage is None:
        usage = run_measured(command)
        if usage.exit_code != 0:
            return BenchmarkRow(name, data.name, None, error=usage.last_line, settings=options)
        content = {
            "command": command,
            "wall_seconds": usage.wall_seconds,
            "cpu_seconds": usage.cpu_seconds,
            "peak_memory_bytes": usage.peak_memory_bytes,
        }
        write_text_atomic(usage_file, json.dumps(content, indent=1) + "\n")
    seconds = [record.seconds for record in RunFolder(folder).records() if record.is_done]
    try:
        evaluation = evaluate(folder, data.labels, tolerance=tolerance, seed=seed)
    except CryopickError as error:
        return BenchmarkRow(name, data.name, None, error=str(error), settings=options)
    return BenchmarkRow(
        picker=name,
        set_name=data.name,
        evaluation=evaluation,
        seconds_per_micrograph=float(np.mean(seconds)) if seconds else float("nan"),
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_memory_bytes=usage.peak_memory_bytes,
        settings=options,
    )


def _options(name: str, data: BenchmarkSet, settings: Mapping[str, str]) -> dict[str, str]:
    """Command-line options: the diameter and pixel size of the set where the picker takes them, then `settings`."""
    flag_of = {setting.name: setting.flag for setting in settings_of(picker_class(name))}
    options: dict[str, str] = {}
    if data.pixel_size_angstrom is not None:
        options["--pixel-size"] = as_text(float(data.pixel_size_angstrom))
    if data.diameter_px is not None and "diameter" in flag_of:
        low, high = data.diameter_px
        options["--diameter"] = f"{low:g}px" if low == high else f"{low:g}-{high:g}px"
    for setting, value in settings.items():
        key = setting.replace("-", "_")
        if key not in flag_of:
            raise SettingsError(f"picker {name!r} has no setting {setting}; it has: {', '.join(sorted(flag_of))}")
        options[flag_of[key]] = value
    return options


def _read_usage(path: Path, command: Sequence[str]) -> Usage | None:
    """What was measured when this very command ran before; None when it has not, or was another."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if _interpreter_and_options(content["command"]) != _interpreter_and_options(command):
            return None
        wall, cpu = float(content["wall_seconds"]), float(content["cpu_seconds"])
        return Usage(0, wall, cpu, content["peak_memory_bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not what a benchmark writes ({error}); delete it") from error


def _interpreter_and_options(command: Sequence[str]) -> list[str]:
    """Without how the interpreter is told to run cryopick, which version 0.1 said in other words."""
    return [command[0], *command[command.index("pick") :]]
