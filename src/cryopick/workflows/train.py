"""Train a picker: settings from preset, file and options, data from a data set or simulation, weights into a folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cryopick.data.datasets import Dataset, open_dataset, open_micrographs
from cryopick.data.prepared_cache import DEFAULT_CACHE_GB, GIGABYTE, Prepared, PreparedCache
from cryopick.data.splits import Split, split_by_micrograph
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.device import require_accelerator
from cryopick.io.files.atomic import write_text_atomic
from cryopick.pickers.families import family_of, find_preset, make_trainable
from cryopick.pickers.published_weights import load_weights
from cryopick.settings import as_plain, convert_settings, to_toml
from cryopick.training.folder import COMMAND, CONFIG, SPLIT, refuse_other_folders, training_folder
from cryopick.training.logs import Monitor
from cryopick.training.loop import TrainResult, require_training_packages, train
from cryopick.training.state import LABELS_DIGEST, STATE_FILE
from cryopick.training.trainable import Preset, TrainSettings, later_wins

SIMULATION = "simulation"
_SECTIONS = ("train", "data", "task", "training")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How to read a data set, where its files do not say; see `cryopick.data.datasets.open_dataset`."""

    diameter: Annotated[Length | None, "particle diameter (180A, 108px)"] = None
    pixel_size_angstrom: Annotated[float | None, "Å per pixel"] = None
    labels: Annotated[
        Literal["complete", "sparse"] | None, "whether unlabelled places are background, or may hold particles"
    ] = None
    flip_y: Annotated[Literal["auto", "yes", "no"] | None, "count y of the labels from the other end"] = None
    validation_fraction: Annotated[float, "share of the micrographs kept for validation"] = 0.2
    cache_dir: Annotated[
        Path | None, "keep prepared (denoised, resampled) micrographs in this folder; trainings share it"
    ] = None
    cache_size: Annotated[float, "most GB in the cache folder; what was used longest ago makes room"] = DEFAULT_CACHE_GB
    memory: Annotated[
        float | None, "most GB of prepared micrographs in memory, over all processes; not set: 1 to 4 in each"
    ] = None

    def __post_init__(self) -> None:
        for name in ("cache_size", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"data: {name} is {value:g} GB, expected more than 0")

    def prepared(self, *, processes: int) -> Prepared:
        """Where prepared micrographs are kept, in a training with so many processes that make batches."""
        cache = None
        if self.cache_dir is not None:
            cache = PreparedCache(self.cache_dir.expanduser().absolute(), int(self.cache_size * GIGABYTE))
        return Prepared(cache, None if self.memory is None else int(self.memory * GIGABYTE / processes))


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Everything that decides the outcome of a training run; saved beside the weights."""

    picker: str
    preset_name: str
    data: str
    data_settings: DataSettings
    preset: Preset
    start: str = ""
    """Weights to start from: a picker's name for those shipped with the package, or a file; empty for random ones."""

    def sections(self) -> dict[str, dict[str, Any]]:
        """Plain values as they stand in the config file."""
        return {
            "train": {"picker": self.picker, "preset": self.preset_name, "data": self.data, "start": self.start},
            "data": as_plain(self.data_settings),
            "task": as_plain(self.preset.task),
            "training": self.preset.training.as_asked(),
        }


def plan_training(
    picker: str | None = None,
    *,
    data: str | None = None,
    preset: str | None = None,
    start: str | None = None,
    config: Path | None = None,
    data_settings: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> TrainPlan:
    """Put a plan together: the preset, then what the config file changes, then what is given here.

    Parameters
    ----------
    picker, data, preset, start : None takes the config file's; else data is simulation, the preset is `small`, and the
        first weights are random
    config : TOML with any of the sections `[train]`, `[data]`, `[task]`, `[training]`, as a training folder holds it
    data_settings, task, training : settings by name, as values or as texts of the command line

    Raises
    ------
    SettingsError
        For unknown pickers, presets and settings (the known ones are listed) and impossible values.
    """
    sections = {} if config is None else read_plan_file(config)
    head = sections.get("train", {})
    chosen = picker or head.get("picker")
    if not chosen:
        raise SettingsError("no picker to train; name one, or give a config file with picker under [train]")
    if picker and head.get("picker", picker) != picker:
        raise SettingsError(f"{config}: is for picker {head['picker']!r}, not {picker!r}; leave one of them out")
    preset_name = preset or head.get("preset") or "small"
    found = find_preset(chosen, preset_name)
    given_task = {**sections.get("task", {}), **(task or {})}
    given_training = later_wins(sections.get("training", {}), training or {})
    given_data = {**sections.get("data", {}), **(data_settings or {})}
    changed = found.changed(
        task=convert_settings(type(found.task), given_task, section="[task]"),
        training=convert_settings(TrainSettings, given_training, section="[training]"),
    )
    require_accelerator(changed.training.accelerator, devices=changed.training.devices)
    return TrainPlan(
        picker=chosen,
        preset_name=preset_name,
        data=str(data or head.get("data") or SIMULATION),
        data_settings=DataSettings(**convert_settings(DataSettings, given_data, section="[data]")),
        preset=changed,
        start=str(start if start is not None else head.get("start") or ""),
    )


def read_plan_file(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a training config file; unknown ones are an error that lists the known ones."""
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not TOML ({error})") from error
    unknown = [name for name, value in sections.items() if name not in _SECTIONS or not isinstance(value, dict)]
    if unknown:
        raise SettingsError(f"{path}: unknown section {unknown[0]!r}; known: {', '.join(_SECTIONS)}")
    return sections


def train_picker(
    plan: TrainPlan,
    output: Path | str,
    *,
    resume: bool = False,
    micrographs: Sequence[Path | str] = (),
    command: str | None = None,
    monitor: Monitor | None = None,
) -> TrainResult:
    """Train a picker and write weights with their card, logs, curves, split and settings into `output`.

    Parameters
    ----------
    resume : go on with the run in `output`; it ends with the weights of an undisturbed run
    micrographs : images of the data set, where they do not lie where its layout has them
    command : what the user typed, for the record

    Raises
    ------
    InputError, FormatError
        If the data cannot be used.
    MissingExtraError
        If the packages that train are not installed; found before any data are read.
    RunFolderError, TrainingError
        See `cryopick.training.loop.train` and `cryopick.training.folder.training_folder`.
    """
    output = Path(output)
    require_training_packages()
    refuse_other_folders(output, resume=resume)
    training_set, validation_set, split = _open_data(plan, micrographs)
    prepared = plan.data_settings.prepared(processes=_processes_with_data(plan.preset.training))
    training_set, validation_set = (
        None if one is None else replace(one, prepared=prepared) for one in (training_set, validation_set)
    )
    trainable = make_trainable(plan.picker, plan.preset.task, train=training_set, validation=validation_set)
    record: dict[str, Any] = {"preset": plan.preset_name, "task": as_plain(plan.preset.task), "data": plan.data}
    if training_set is not None:
        record["training_data"] = training_set.card_entry()
        record[LABELS_DIGEST] = training_set.labels_digest()
    if validation_set is not None:
        record["validation_data"] = validation_set.card_entry()
    start_from = load_weights(plan.picker, plan.start) if plan.start else None
    if start_from is not None:
        record["start"] = {"weights": Path(plan.start).name, "sha256": start_from.card.sha256}
    with training_folder(output, resume=resume):
        if not (output / STATE_FILE).exists():
            write_text_atomic(output / CONFIG, to_toml(plan.sections()))
            if split is not None:
                write_text_atomic(output / SPLIT, json.dumps(split.as_json(), indent=1) + "\n")
        if command is not None:
            earlier = (output / COMMAND).read_text(encoding="utf-8") if (output / COMMAND).exists() and resume else ""
            write_text_atomic(output / COMMAND, f"{earlier}{command}\n")
        return train(
            trainable,
            plan.preset.training,
            output,
            resume=resume,
            start_from=start_from,
            validate_first=start_from is not None,
            record=record,
            monitor=monitor,
        )


def _processes_with_data(settings: TrainSettings) -> int:
    """How many hold prepared micrographs: workers make batches, and the training process validates."""
    return settings.devices * (settings.workers + 1)


def resumed_plan(output: Path | str, given: TrainPlan | None, **changes: Any) -> TrainPlan:
    """The plan saved in `output`, with changed settings of the training (workers, minutes, …); else `given`.

    Raises
    ------
    InputError
        If the folder holds no plan and none is given.
    RunFolderError
        If it is the folder of another command.
    """
    saved = Path(output) / CONFIG
    refuse_other_folders(Path(output), resume=True)
    if saved.exists():
        return plan_training(config=saved, **changes)
    if given is None:
        raise InputError(f"{output}: holds no training run to resume ({CONFIG} is missing); start without --resume")
    return given


def _open_data(
    plan: TrainPlan, micrographs: Sequence[Path | str]
) -> tuple[Dataset | None, Dataset | None, Split | None]:
    if plan.data == SIMULATION:
        return None, None, None
    settings = plan.data_settings
    if not family_of(plan.picker).needs_labels:
        unlabelled = open_micrographs(
            plan.data,
            micrographs=micrographs,
            diameter=settings.diameter,
            pixel_size_angstrom=settings.pixel_size_angstrom,
        )
        return unlabelled, None, None
    dataset = open_dataset(
        plan.data,
        micrographs=micrographs,
        diameter=settings.diameter,
        pixel_size_angstrom=settings.pixel_size_angstrom,
        completeness=settings.labels,
        flip_y=settings.flip_y,
    ).labelled()
    fraction, seed = settings.validation_fraction, plan.preset.training.seed
    split = split_by_micrograph(dataset, validation_fraction=fraction, seed=seed)
    return dataset.take(split.train), dataset.take(split.validation), split
