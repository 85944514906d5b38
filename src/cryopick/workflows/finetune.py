"""Fine-tune a trained picker on a user's own picks, without forgetting what it knew."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cryopick.data.datasets import Dataset, open_dataset
from cryopick.data.splits import Split, divide
from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.geometry.units import Length, as_length
from cryopick.inference.device import require_accelerator
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.weights import Checkpoint, check_architecture, is_published_file
from cryopick.pickers.configurations import CONFIGURATION_NAMES, require_configuration_name
from cryopick.pickers.families import (
    OLDER_NAME_OF_ARTICLE,
    family_of,
    find_preset,
    make_finetunable,
    make_trainable,
)
from cryopick.pickers.published_weights import load_weights
from cryopick.runs.as_data import run_as_data
from cryopick.settings import as_plain, convert_settings, to_toml
from cryopick.training.finetuning import Before, MixedTrainable
from cryopick.training.folder import BEFORE, COMMAND, CONFIG, SPLIT, refuse_other_folders, training_folder
from cryopick.training.logs import LoggingMonitor, Monitor, tell_doing
from cryopick.training.loop import TrainResult, require_training_packages, train
from cryopick.training.state import LABELS_DIGEST, STATE_FILE
from cryopick.training.trainable import Preset, Trainable, TrainSettings, later_wins
from cryopick.workflows.train import plan_training, train_picker

DEFAULT_CHANGES: Mapping[str, Any] = {
    "steps": 240,
    "warmup_steps": 20,
    "validate_every": 40,
    "checkpoint_every": 40,
    "accumulate": 2,
    "ema_decay": 0.95,
}
"""What fine-tuning changes in a preset's training settings: short, and one batch of new and one of old data a step."""
LENGTH_CHANGES = {
    name: DEFAULT_CHANGES[name] for name in ("steps", "warmup_steps", "validate_every", "checkpoint_every")
}
LEARNING_RATE_FRACTION = 0.1
ADAPTING_PRESET = "adapt"
"""Of pickers that learn without labels: trains their weights on, on a user's own micrographs."""
PUBLISHED_EPOCHS_WITHOUT_LABELS = 50.0
"""Cryo-EMMAE's authors fine-tune for as many."""
FEWEST_CALIBRATION_CROPS = 32
"""Probabilities calibrated on as few differ by about 0.03 from those calibrated on 128, for a third of the time."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """How fine-tuning ended.

    Parameters
    ----------
    before, after : scores by name, `new` on the user's data and `old` on what the picker was trained on; `after` is
        that of the weights that were kept
    is_better : False when no step beat the start, and the weights are the original ones
    """

    training: TrainResult
    before: Mapping[str, float]
    after: Mapping[str, float]
    is_better: bool
    warnings: tuple[str, ...]


def finetune(
    picker: str,
    picks: Path | str,
    output: Path | str,
    *,
    micrographs: Sequence[Path | str] = (),
    weights: Path | str | None = None,
    diameter: Length | str | float | None = None,
    pixel_size_angstrom: float | None = None,
    contrast: str | None = None,
    labels: str | None = "sparse",
    min_score: float | None = None,
    flip_y: str | None = None,
    validation_fraction: float = 0.2,
    as_: str | None = None,
    task: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    resume: bool = False,
    command: str | None = None,
    monitor: Monitor | None = None,
) -> FinetuneResult:
    """Adapt a picker's weights to labelled micrographs and keep the better of start and result.

    Every step learns from one batch of the new data and one of the old (simulation). Both are validated; weights that
    lose more than 0.02 of the old score are never kept, and neither are weights worse than the start. Networks that
    cannot learn from simulation, such as the published ones that see whole micrographs, learn from the new data alone;
    a warning says so. Pickers that learn without labels learn from the micrographs of the picks.

    Parameters
    ----------
    picks : coordinates of particles (any format), a labelled data set, or a run folder of `cryopick pick`, whose
        micrographs, diameter, pixel size and contrast are then those of the run
    micrographs : their images
    weights : name, file or training folder to start from, the authors' files too; None takes those that a run of this
        picker was told to pick with, else the picker's own
    diameter, pixel_size_angstrom, contrast : above what files and a run say; `contrast` is "dark" or "bright"
    labels : "sparse" when not every particle of the micrographs is picked, "complete" when every one is; None takes
        what the data set says
    min_score : picks with a lower score teach neither that there is a particle nor that there is none, and do not
        count where the training is validated; None lets all picks teach
    as_ : "article" or "program": the weights are of the published network, and are trained as published; None goes by
        the run whose weights are taken, else by the card of the weights
    task, training : settings to change

    Raises
    ------
    InputError, FormatError, SettingsError
        If the picks cannot be used.
    WeightsError
        If there are no weights to start from, or they belong to another picker.
    MissingExtraError
        If the packages that train are not installed; found before any data are read.
    RunFolderError, TrainingError
        See `cryopick.training.loop.train` and `cryopick.training.folder.training_folder`.
    """
    output, monitor = Path(output), monitor or LoggingMonitor()
    diameter = None if diameter is None else as_length(diameter)
    require_training_packages()
    refuse_other_folders(output, resume=resume)
    run = run_as_data(picks)
    if run is not None and run.picker == picker and weights is None and run.weights is not None:
        weights, as_ = run.weights, as_ or run.as_
        _logger.info("starts from the weights of the run, %s", weights)
    start = load_weights(picker, weights or picker)
    if run is not None:
        pixel_size_angstrom = pixel_size_angstrom or run.pixel_size_angstrom
        contrast = contrast or run.contrast
        if diameter is None and run.labels is None:
            diameter = run.diameter
    if not family_of(picker).needs_labels:
        return _finetune_without_labels(
            picker,
            picks,
            output,
            start=start,
            data_settings={
                "diameter": diameter or (run.diameter if run is not None else None),
                "pixel_size_angstrom": pixel_size_angstrom,
                "contrast": contrast or "dark",
            },
            micrographs=micrographs,
            preset=as_,
            min_score=min_score,
            task=task or {},
            training=training or {},
            resume=resume,
            command=command,
            monitor=monitor,
        )
    base_name = base_preset(picker, start, as_)
    dataset = (
        open_dataset(
            picks,
            micrographs=micrographs,
            diameter=diameter,
            pixel_size_angstrom=pixel_size_angstrom,
            completeness=labels,
            flip_y=flip_y,
            labels=None if run is None else run.labels,
        )
        .labelled()
        .with_contrast(contrast or "dark")
        .doubting_below(min_score)
    )
    old, reason = _old_data(picker, start, base_name, task or {})
    preset = finetuning_preset(picker, start, task or {}, training or {}, base=base_name, is_mixed=old is not None)
    new_train, new_validation, split = divide(
        dataset, validation_fraction=validation_fraction, seed=preset.training.seed
    )
    warnings = (*dataset.warnings, *_doubts(new_train, new_validation))
    changed_task = calibrated_shortly(preset, task or {})
    if old is None:
        warnings = (*warnings, f"learns from the new data alone, and what it knew may be forgotten: {reason}")
    else:
        old = make_trainable(picker, changed_task, train=None, validation=None)
        check_architecture(start.card, old.architecture(), where=str(start.path))
    record = {
        "preset": "finetune",
        "base_preset": base_name,
        "task": as_plain(preset.task),
        "started_from": start.card.sha256,
        "training_data": new_train.card_entry(),
        "validation_data": new_validation.card_entry(),
        **({} if min_score is None else {"min_score": min_score}),
        LABELS_DIGEST: dataset.labels_digest(),
    }
    with training_folder(output, resume=resume):
        tell_doing(monitor, "measuring the weights to start from, on your data and on simulated crops")
        new = make_finetunable(picker, changed_task, train=new_train, validation=new_validation, start=start)
        check_architecture(start.card, new.architecture(), where=str(start.path))
        before = _before(output, new, old, start, resume=resume)
        if not math.isfinite(before.new):
            raise InputError(
                f"{picks}: no labelled particle on the micrographs that validate ({', '.join(split.validation[:3])}); "
                "label particles on more micrographs, or choose another seed"
            )
        head = {"picker": picker, "picks": str(picks), "started_from": str(start.path)}
        _write_settings(output, head, preset, split, command=command)
        result = train(
            new if old is None else MixedTrainable(new=new, old=old, before=before, start=start),
            preset.training,
            output,
            resume=resume,
            start_from=start,
            validate_first=True,
            record=record,
            monitor=monitor,
        )
    is_better = result.best_step > 0
    if not is_better:
        warnings = (*warnings, "fine-tuning did not improve on the start: the weights are the original ones")
    for text in warnings:
        _logger.info("%s", text)
    after = {name: result.scores[name] for name in ("new", "old") if name in result.scores}
    if old is None:
        after = {"new": result.scores.get("score", math.nan)}
    if not is_better:  # one set of weights has one score; measured again, in the training's precision, it would differ
        after = {name: value for name, value in asdict(before).items() if name in after or not math.isnan(value)}
    return FinetuneResult(
        training=result,
        before={"new": before.new, "old": before.old},
        after=after,
        is_better=is_better,
        warnings=warnings,
    )


def base_preset(picker: str, start: Checkpoint, as_: str | None) -> str:
    """The preset that weights are trained on with: as asked, else the one that their card says they are of.

    Raises
    ------
    SettingsError
        If the picker has no preset of the name that is asked for.
    """
    presets = family_of(picker).presets
    if as_ is not None:
        require_configuration_name(as_)
        find_preset(picker, as_)  # raises with the known names
        return as_
    settings = start.card.settings
    stored = settings.get("base_preset") or settings.get("preset")
    if stored == OLDER_NAME_OF_ARTICLE and stored not in presets:
        stored = "article"
    if isinstance(stored, str) and stored in presets:
        return stored
    is_published = "imported_from" in start.card.data or (start.path is not None and is_published_file(start.path))
    return "program" if is_published and "program" in presets else "small"


def _old_data(picker: str, start: Checkpoint, base: str, task: Mapping[str, Any]) -> tuple[Trainable | None, str]:
    """What the network was trained on, simulated anew, to be learnt along; None, and why, where it cannot be."""
    changed = finetuning_preset(picker, start, task, {}, base=base).task
    try:
        return make_trainable(picker, changed, train=None, validation=None), ""
    except SettingsError as error:
        return None, str(error)


def _finetune_without_labels(
    picker: str,
    picks: Path | str,
    output: Path,
    *,
    start: Checkpoint,
    data_settings: Mapping[str, Any],
    micrographs: Sequence[Path | str],
    preset: str | None,
    min_score: float | None,
    task: Mapping[str, Any],
    training: Mapping[str, Any],
    resume: bool,
    command: str | None,
    monitor: Monitor | None,
) -> FinetuneResult:
    """For pickers that learn from micrographs alone: a training that starts from the weights, on the run's."""
    if min_score is not None:
        raise SettingsError(f"{picker} learns from micrographs alone, no pick teaches it: leave out the least score")
    presets = family_of(picker).presets
    chosen = base_preset(picker, start, preset)
    if chosen not in CONFIGURATION_NAMES and ADAPTING_PRESET in presets:
        chosen = ADAPTING_PRESET
    same = chosen in CONFIGURATION_NAMES and chosen == base_preset(picker, start, None)
    of_weights = _task_of_weights(start, type(presets[chosen].task), is_whole=same)
    changes = later_wins({} if chosen == ADAPTING_PRESET else {"epochs": PUBLISHED_EPOCHS_WITHOUT_LABELS}, training)
    plan = plan_training(
        picker,
        data=str(picks),
        preset=chosen,
        start=str(start.path),
        data_settings={name: value for name, value in data_settings.items() if value is not None},
        task={**of_weights, **task},
        training=changes,
    )
    result = train_picker(plan, output, resume=resume, micrographs=micrographs, command=command, monitor=monitor)
    text = f"{picker} learns without labels: the micrographs taught, the picks did not"
    _logger.info("%s", text)
    return FinetuneResult(
        training=result,
        before={"new": math.nan, "old": math.nan},
        after={"new": result.scores.get("score", math.nan)},
        is_better=result.best_step > 0,
        warnings=(text,),
    )


def finetuning_preset(
    picker: str,
    start: Checkpoint,
    task: Mapping[str, Any],
    training: Mapping[str, Any],
    *,
    base: str | None = None,
    is_mixed: bool = True,
) -> Preset:
    """The settings that the weights were trained with, shortened for fine-tuning, then what the user changes.

    A published network is trained on as its authors train it: of `article` and `program` only the length is changed,
    and that only where the preset is not in epochs.

    Parameters
    ----------
    task, training : settings that the user changes
    base : the preset that they change, see `base_preset`; None finds it out
    is_mixed : whether every step takes batches of new and of old data
    """
    name = base or base_preset(picker, start, None)
    family, found = family_of(picker), find_preset(picker, name)
    is_published = name in CONFIGURATION_NAMES
    kind = type(found.task)
    of_weights = _task_of_weights(start, kind, is_whole=True)
    if of_weights:
        # what the weights' network is counts, whatever the preset has become since they were trained; settings that
        # came later stand at their defaults
        task_then = convert_settings(kind, of_weights, section=f"{start.path}: task")
        is_stored = isinstance(start.card.settings.get("task"), dict)
        found = (replace(found, task=kind()) if is_stored else found).changed(task=task_then, training={})
    given_training = convert_settings(TrainSettings, training, section="[training]")
    if is_published:
        length = {} if found.training.epochs is not None else LENGTH_CHANGES
        changes = later_wins(length, {"accumulate": 2} if is_mixed else {}, given_training)
    else:
        usual = {**DEFAULT_CHANGES, "learning_rate": found.training.learning_rate * LEARNING_RATE_FRACTION}
        changes = later_wins(usual, family.finetune_training, given_training)
    accumulate = changes.get("accumulate", found.training.accumulate)
    if is_mixed and accumulate % 2:
        raise SettingsError(f"accumulate is {accumulate}; fine-tuning needs an even number: new and old data")
    given = convert_settings(kind, task, section="[task]")
    preset = found.changed(task={**({} if is_published else family.finetune_task), **given}, training=changes)
    require_accelerator(preset.training.accelerator, devices=preset.training.devices)
    return preset


def _task_of_weights(start: Checkpoint, kind: type[Any], *, is_whole: bool) -> dict[str, Any]:
    """Plain settings of the task that weights were trained with, as far as their card tells: what the network is, and,
    where `is_whole`, all of them."""
    own = {field.name for field in fields(kind)}
    of_network = {name: value for name, value in start.card.architecture.items() if name in own}
    stored = start.card.settings.get("task")
    return {**of_network, **stored} if is_whole and isinstance(stored, dict) else of_network


def calibrated_shortly(preset: Preset, given: Mapping[str, Any]) -> Any:
    """The preset's task, with fewer crops to calibrate on where fewer steps than usual change the weights.

    Calibrating costs as much as a hundred steps. What the user says of `calibration_crops` stands.
    """
    crops = getattr(preset.task, "calibration_crops", None)
    if crops is None or "calibration_crops" in given:
        return preset.task
    share = min(1.0, preset.training.steps / DEFAULT_CHANGES["steps"])
    return replace(preset.task, calibration_crops=min(crops, max(FEWEST_CALIBRATION_CROPS, round(share * crops))))


def _before(output: Path, new: Trainable, old: Trainable | None, start: Checkpoint, *, resume: bool) -> Before:
    """Scores of the start, measured once per training; the old one is NaN where nothing old is learnt from.

    Without a state nothing is known of the weights and data with which a file that is there was measured.
    """
    path = output / BEFORE
    if resume and path.exists() and (output / STATE_FILE).exists():
        try:
            stored = {name: float(value) for name, value in json.loads(path.read_text("utf-8")).items()}
            if stored.keys() != ({"new"} if old is None else {"new", "old"}):
                raise ValueError(f"it has {', '.join(stored) or 'none'}")
            return Before(**stored)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RunFolderError(
                f"{path}: expected the scores of the start, new and old ({error}); delete it and run the same command "
                "again, it is measured anew"
            ) from error
    import torch

    network = new.build_network()
    start.load_into(network)
    network.eval()
    with torch.no_grad():
        old_score = math.nan if old is None else old.validate(network)["score"]
        before = Before(new=new.validate(network)["score"], old=old_score)
    if not (output / STATE_FILE).exists():
        known = {name: value for name, value in asdict(before).items() if not math.isnan(value)}
        write_text_atomic(path, json.dumps(known) + "\n")
    return before


def _doubts(train_data: Dataset, validation: Dataset) -> list[str]:
    counts = [
        sum(len(item.labels) for item in part.items if item.labels is not None) for part in (train_data, validation)
    ]
    doubts = []
    if sum(counts) < 30:
        doubts.append(f"only {sum(counts)} labelled particles; 100 or more, over several micrographs, are safer")
    if len(train_data) == 1:
        doubts.append("labels of one micrograph: views or ice that it lacks cannot be learnt; label others too")
    return doubts


def _write_settings(output: Path, head: dict[str, Any], preset: Preset, split: Split, *, command: str | None) -> None:
    if (output / STATE_FILE).exists():
        return
    sections = {
        "finetune": head,
        "task": as_plain(preset.task),
        "training": preset.training.as_asked(),
    }
    write_text_atomic(output / CONFIG, to_toml(sections))
    write_text_atomic(output / SPLIT, json.dumps(split.as_json(), indent=1) + "\n")
    if command is not None:
        write_text_atomic(output / COMMAND, command + "\n")
