"""Train a picker: settings from preset, file and options, data from a data set or simulation, weights into a folder."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cryopick.data.datasets import Dataset, open_dataset, open_micrographs
from cryopick.data.parts import Part, parts_of
from cryopick.data.prepared_cache import DEFAULT_CACHE_GB, GIGABYTE, Prepared, PreparedCache
from cryopick.data.splits import Split, read_split, refuse_shared, split_by_micrograph
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.units import Length
from cryopick.inference.device import require_accelerator
from cryopick.io.files.atomic import write_text_atomic
from cryopick.pickers.families import family_of, find_preset, make_trainable
from cryopick.pickers.published_weights import load_weights
from cryopick.runs.as_data import RunAsData, run_as_data
from cryopick.settings import as_plain, convert_settings, to_toml
from cryopick.training.folder import COMMAND, CONFIG, SPLIT, TEST_LIST, refuse_other_folders, training_folder
from cryopick.training.logs import LoggingMonitor, Monitor, tell_doing
from cryopick.training.loop import TrainResult, require_training_packages, train
from cryopick.training.state import LABELS_DIGEST, STATE_FILE
from cryopick.training.trainable import Preset, TrainSettings, later_wins

_logger = logging.getLogger(__name__)
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
    contrast: Annotated[
        Literal["dark", "bright"] | None, "how particles look in the files; not set: dark, or as a run says"
    ] = None
    ids: Annotated[
        tuple[str, ...], "of a folder of sets, only these EMPIAR numbers, or a paper's (cryosegnet-train, …)"
    ] = ()
    validation: Annotated[str | None, "a labelled data set of its own that validates"] = None
    validation_fraction: Annotated[float, "else: share of the micrographs of each set that validates"] = 0.2
    test_fraction: Annotated[float, "share of the micrographs of each set that is kept out, for a test"] = 0.0
    split: Annotated[Path | None, "JSON with names under train, validation and test, such as a split.json"] = None
    cache_dir: Annotated[
        Path | None, "keep prepared (denoised, resampled) micrographs in this folder; trainings share it"
    ] = None
    cache_size: Annotated[float, "most GB in the cache folder; what was used longest ago makes room"] = DEFAULT_CACHE_GB
    memory: Annotated[
        float | None, "most GB of prepared micrographs in memory, over all processes; not set: 1 to 4 in each"
    ] = None

    def __post_init__(self) -> None:
        if self.split is not None and self.test_fraction:
            raise SettingsError("data: split and test_fraction both say what is kept for a test; give one of them")
        if self.validation is not None and (self.split is not None or self.test_fraction):
            raise SettingsError("data: with a data set of its own that validates, leave split and test_fraction out")
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
        sections = tomllib.loads(path.read_text(encoding="utf-8-sig"))
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
    data = _open_data(plan, micrographs)
    _say_what_is_learnt_from(data, monitor or LoggingMonitor())
    prepared = plan.data_settings.prepared(processes=_processes_with_data(plan.preset.training))
    training_set, validation_set = (
        None if one is None else replace(one, prepared=prepared) for one in (data.train, data.validation)
    )
    trainable = make_trainable(plan.picker, plan.preset.task, train=training_set, validation=validation_set)
    record: dict[str, Any] = {"preset": plan.preset_name, "task": as_plain(plan.preset.task), "data": plan.data}
    if training_set is not None:
        record["training_data"] = training_set.card_entry()
        record[LABELS_DIGEST] = training_set.labels_digest()
    if validation_set is not None:
        record["validation_data"] = validation_set.card_entry()
    if data.test is not None:
        record["test_data"] = data.test.card_entry()
    start_from = load_weights(plan.picker, plan.start) if plan.start else None
    if start_from is not None:
        record["start"] = {"weights": Path(plan.start).name, "sha256": start_from.card.sha256}
    with training_folder(output, resume=resume):
        if not (output / STATE_FILE).exists():
            write_text_atomic(output / CONFIG, to_toml(plan.sections()))
            if data.split is not None:
                write_text_atomic(output / SPLIT, json.dumps(data.split.as_json(), indent=1) + "\n")
            if data.test is not None:
                paths = "".join(f"{item.source.path.absolute()}\n" for item in data.test)
                write_text_atomic(output / TEST_LIST, paths)
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


def _say_what_is_learnt_from(data: _Data, monitor: Monitor) -> None:
    """How much was read, and what the data sets warn of, before anything is made of it."""
    parts = [one for one in (data.train, data.validation) if one is not None]
    for text in dict.fromkeys(text for part in parts for text in part.warnings):
        _logger.warning("%s", text)
    if data.train is not None:
        validates = "" if data.validation is None else f", validating on {_amount(data.validation)}"
        tell_doing(monitor, f"learning from {_amount(data.train)}{validates}")


def _amount(dataset: Dataset) -> str:
    labelled = [item.labels for item in dataset if item.labels is not None]
    micrographs = f"{len(dataset)} micrograph{'' if len(dataset) == 1 else 's'}"
    if not labelled:
        return f"{micrographs} without labels"
    count = sum(map(len, labelled))
    return f"{micrographs} with {count} labelled particle{'' if count == 1 else 's'}"


def _processes_with_data(settings: TrainSettings) -> int:
    """How many samplers hold prepared micrographs: those that make batches, and the one that validates."""
    return settings.devices * (max(settings.workers, 1) + 1)


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


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What teaches and what validates (None for simulation), what is kept for a test, and who is which, by name."""

    train: Dataset | None = None
    validation: Dataset | None = None
    test: Dataset | None = None
    split: Split | None = None


def _divided(dataset: Dataset, split: Split, *, has_validation: bool = True) -> _Data:
    return _Data(
        train=dataset.take(split.train),
        validation=dataset.take(split.validation) if has_validation else None,
        test=dataset.take(split.test) if split.test else None,
        split=split,
    )


def _open_data(plan: TrainPlan, micrographs: Sequence[Path | str]) -> _Data:
    if plan.data == SIMULATION:
        _refuse_without_data(plan.data_settings)
        return _Data()
    if not family_of(plan.picker).needs_labels:
        return _open_unlabelled(plan, micrographs)
    settings = plan.data_settings
    parts = parts_of(Path(plan.data))
    if parts and settings.validation is None:
        if settings.split is not None or settings.test_fraction:
            raise SettingsError(f"{plan.data}: its authors divided it; leave split and test_fraction out")
        return _as_its_authors_divided(plan, micrographs, parts)
    learnt = _open_labelled(plan.data, plan, micrographs, part="train" if parts else None, ids=settings.ids)
    if settings.validation is not None:
        validation = _open_labelled(
            settings.validation, plan, (), part=_validating(parts_of(Path(settings.validation)))
        )
        return _apart(plan, learnt, validation)
    seed = plan.preset.training.seed
    if settings.split is not None:
        split = read_split(settings.split, learnt)
    else:
        validation_fraction, test_fraction = settings.validation_fraction, settings.test_fraction
        split = split_by_micrograph(
            learnt, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
        )
    return _divided(learnt, split)


def _as_its_authors_divided(plan: TrainPlan, micrographs: Sequence[Path | str], parts: Mapping[Part, Any]) -> _Data:
    """A data set that keeps its parts apart: learns from `train`, validates on `val`, leaves `test` alone."""
    if "train" not in parts or "validation" not in parts:
        raise InputError(
            f"{plan.data}: keeps {' and '.join(parts)} apart, and one to learn from (train) and one to validate on "
            "(val) are needed; name another data set with --validation"
        )
    ids = plan.data_settings.ids
    learnt = _open_labelled(plan.data, plan, micrographs, part="train", ids=ids)
    return _apart(plan, learnt, _open_labelled(plan.data, plan, micrographs, part="validation", ids=ids))


def _validating(parts: Mapping[Part, Any]) -> Part | None:
    """Of a data set named by --validation that keeps parts apart: what its authors validate on, else their test."""
    if not parts:
        return None
    return "validation" if "validation" in parts else "test"


def _open_labelled(
    path: str,
    plan: TrainPlan,
    micrographs: Sequence[Path | str],
    *,
    part: Part | None = None,
    ids: Sequence[str] = (),
) -> Dataset:
    settings, run = plan.data_settings, run_as_data(path)
    if run is not None and settings.labels is None:
        _logger.warning(
            "%s: the picks of the run teach as complete labels: what it did not pick is taken for background; give "
            "--labels sparse where it missed particles",
            path,
        )
    diameter = settings.diameter
    if diameter is None and run is not None and run.labels is None:
        diameter = run.diameter
    dataset = open_dataset(
        path,
        micrographs=micrographs,
        diameter=diameter,
        pixel_size_angstrom=settings.pixel_size_angstrom or (run.pixel_size_angstrom if run is not None else None),
        completeness=settings.labels,
        flip_y=settings.flip_y,
        labels=None if run is None else run.labels,
        part=part,
        ids=ids,
    )
    return dataset.labelled().with_contrast(_contrast(settings, run))


def _contrast(settings: DataSettings, run: RunAsData | None) -> str:
    """As given, else as a run was told, else dark."""
    return settings.contrast or (run.contrast if run is not None else "dark")


def _open_unlabelled(plan: TrainPlan, micrographs: Sequence[Path | str]) -> _Data:
    """For families that learn from micrographs alone: all of them, or those that a split trains on."""
    settings = plan.data_settings
    if settings.validation is not None:
        raise SettingsError(
            f"{plan.picker!r} learns from micrographs alone and validates on none; leave --validation out"
        )
    run = run_as_data(plan.data)
    dataset = open_micrographs(
        plan.data,
        micrographs=micrographs,
        diameter=settings.diameter or (run.diameter if run is not None else None),
        pixel_size_angstrom=settings.pixel_size_angstrom or (run.pixel_size_angstrom if run is not None else None),
        part="train" if parts_of(Path(plan.data)) else None,
        ids=settings.ids,
    ).with_contrast(_contrast(settings, run))
    if settings.split is not None:
        split = read_split(settings.split, dataset, needs_validation=False)
    elif settings.test_fraction:
        split = split_by_micrograph(
            dataset,
            validation_fraction=settings.validation_fraction,
            test_fraction=settings.test_fraction,
            seed=plan.preset.training.seed,
            needs_labels=False,
        )
        # nothing validates, so that what would have teaches too
        split = replace(split, train=tuple(sorted((*split.train, *split.validation))), validation=())
    else:
        return _Data(train=dataset)
    return _divided(dataset, split, has_validation=False)


def _apart(plan: TrainPlan, learnt: Dataset, validation: Dataset) -> _Data:
    """Two data sets that must share nothing."""
    refuse_shared(learnt, validation)
    train, validating = (tuple(item.name for item in part) for part in (learnt, validation))
    split = Split(plan.preset.training.seed, train, validating)
    return _Data(train=learnt, validation=validation, split=split)


def _refuse_without_data(settings: DataSettings) -> None:
    """Nothing that is given is ignored: simulated crops have no sets and no parts."""
    for name in ("ids", "validation", "split", "test_fraction"):
        if getattr(settings, name):
            raise SettingsError(f"data: {name} is given, and what is learnt from is simulated; give --data")
