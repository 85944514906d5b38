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
from cryopick.geometry.units import Length
from cryopick.inference.device import require_accelerator
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.weights import Checkpoint, check_architecture
from cryopick.pickers.families import family_of, find_preset, make_finetunable, make_trainable
from cryopick.pickers.published_weights import load_weights
from cryopick.runs.picks import labels_of_run_at
from cryopick.settings import as_plain, convert_settings, to_toml
from cryopick.training.finetuning import Before, MixedTrainable
from cryopick.training.folder import BEFORE, COMMAND, CONFIG, SPLIT, refuse_other_folders, training_folder
from cryopick.training.logs import LoggingMonitor, Monitor, tell_doing
from cryopick.training.loop import TrainResult, require_training_packages, train
from cryopick.training.state import LABELS_DIGEST, STATE_FILE
from cryopick.training.trainable import Preset, Trainable, TrainSettings, later_wins

DEFAULT_CHANGES: Mapping[str, Any] = {
    "steps": 240,
    "warmup_steps": 20,
    "validate_every": 40,
    "checkpoint_every": 40,
    "accumulate": 2,
    "ema_decay": 0.95,
}
"""What fine-tuning changes in a preset's training settings: short, and one batch of new and one of old data a step."""
LEARNING_RATE_FRACTION = 0.1
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
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    labels: str | None = "sparse",
    flip_y: str | None = None,
    validation_fraction: float = 0.2,
    task: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    resume: bool = False,
    command: str | None = None,
    monitor: Monitor | None = None,
) -> FinetuneResult:
    """Adapt a picker's weights to labelled micrographs and keep the better of start and result.

    Every step learns from one batch of the new data and one of the old (simulation). Both are validated; weights that
    lose more than 0.02 of the old score are never kept, and neither are weights worse than the start.

    Parameters
    ----------
    picks : coordinates of particles (any format), or a labelled data set
    micrographs : their images
    weights : name, file or training folder to start from; None takes the picker's own
    labels : "sparse" when not every particle of the micrographs is picked, "complete" when every one is; None takes
        what the data set says
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
    require_training_packages()
    refuse_other_folders(output, resume=resume)
    start = load_weights(picker, weights or picker)
    preset = finetuning_preset(picker, start, task or {}, training or {})
    dataset = open_dataset(
        picks,
        micrographs=micrographs,
        diameter=diameter,
        pixel_size_angstrom=pixel_size_angstrom,
        completeness=labels,
        flip_y=flip_y,
        labels=labels_of_run_at(picks),
    ).labelled()
    new_train, new_validation, split = divide(
        dataset, validation_fraction=validation_fraction, seed=preset.training.seed
    )
    warnings = (*dataset.warnings, *_doubts(new_train, new_validation))
    changed_task = calibrated_shortly(preset, task or {})
    old = make_trainable(picker, changed_task, train=None, validation=None)
    check_architecture(start.card, old.architecture(), where=str(start.path))
    record = {
        "preset": "finetune",
        "task": as_plain(preset.task),
        "started_from": start.card.sha256,
        "training_data": new_train.card_entry(),
        "validation_data": new_validation.card_entry(),
        LABELS_DIGEST: dataset.labels_digest(),
    }
    with training_folder(output, resume=resume):
        tell_doing(monitor, "measuring the weights to start from, on your data and on simulated crops")
        new = make_finetunable(picker, changed_task, train=new_train, validation=new_validation, start=start)
        before = _before(output, new, old, start, resume=resume)
        if not math.isfinite(before.new):
            raise InputError(
                f"{picks}: no labelled particle on the micrographs that validate ({', '.join(split.validation[:3])}); "
                "label particles on more micrographs, or choose another seed"
            )
        head = {"picker": picker, "picks": str(picks), "started_from": str(start.path)}
        _write_settings(output, head, preset, split, command=command)
        result = train(
            MixedTrainable(new=new, old=old, before=before, start=start),
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
    return FinetuneResult(
        training=result,
        before={"new": before.new, "old": before.old},
        after={name: result.scores[name] for name in ("new", "old") if name in result.scores},
        is_better=is_better,
        warnings=warnings,
    )


def finetuning_preset(picker: str, start: Checkpoint, task: Mapping[str, Any], training: Mapping[str, Any]) -> Preset:
    """The settings that the weights were trained with, shortened for fine-tuning, then what the user changes.

    Parameters
    ----------
    task, training : settings that the user changes
    """
    family, base = family_of(picker), find_preset(picker, "small")
    stored = start.card.settings.get("task")
    if isinstance(stored, dict):
        # what the weights' network is counts, whatever the preset has become since they were trained; settings that
        # came later stand at their defaults
        kind = type(base.task)
        own = {field.name for field in fields(kind)}
        stored = {**{name: value for name, value in start.card.architecture.items() if name in own}, **stored}
        task_then = convert_settings(kind, stored, section=f"{start.path}: task")
        base = replace(base, task=kind()).changed(task=task_then, training={})
    changes = later_wins(
        {**DEFAULT_CHANGES, "learning_rate": base.training.learning_rate * LEARNING_RATE_FRACTION},
        family.finetune_training,
        convert_settings(TrainSettings, training, section="[training]"),
    )
    if changes["accumulate"] % 2:
        raise SettingsError(
            f"accumulate is {changes['accumulate']}; fine-tuning needs an even number: new and old data"
        )
    given = convert_settings(type(base.task), task, section="[task]")
    preset = base.changed(task={**family.finetune_task, **given}, training=changes)
    require_accelerator(preset.training.accelerator, devices=preset.training.devices)
    return preset


def calibrated_shortly(preset: Preset, given: Mapping[str, Any]) -> Any:
    """The preset's task, with fewer crops to calibrate on where fewer steps than usual change the weights.

    Calibrating costs as much as a hundred steps. What the user says of `calibration_crops` stands.
    """
    crops = getattr(preset.task, "calibration_crops", None)
    if crops is None or "calibration_crops" in given:
        return preset.task
    share = min(1.0, preset.training.steps / DEFAULT_CHANGES["steps"])
    return replace(preset.task, calibration_crops=min(crops, max(FEWEST_CALIBRATION_CROPS, round(share * crops))))


def _before(output: Path, new: Trainable, old: Trainable, start: Checkpoint, *, resume: bool) -> Before:
    """Scores of the start, measured once per training.

    Without a state nothing is known of the weights and data with which a file that is there was measured.
    """
    path = output / BEFORE
    if resume and path.exists() and (output / STATE_FILE).exists():
        try:
            return Before(**{name: float(value) for name, value in json.loads(path.read_text("utf-8")).items()})
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
        before = Before(new=new.validate(network)["score"], old=old.validate(network)["score"])
    if not (output / STATE_FILE).exists():
        write_text_atomic(path, json.dumps(asdict(before)) + "\n")
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
