"""What the training loop needs to know of a picker family.

The module `training` of a system says `FAMILY = Family(...)`, and the system's package names it (`register_family` in
`pickers/families.py`). A picker class of a plug-in for 0.1 names such a module in the text `trainable` instead, and its
module may hold the fields of a family as loose names, `PRESETS` and the like; see `as_family`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np

from cryopick.errors import SettingsError
from cryopick.settings import as_plain, require_known

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Trainable(Protocol):
    """A network, its data and its loss. Plain and picklable, so that worker processes can have a copy."""

    picker: str
    """Name of the picker that the weights are for."""

    def architecture(self) -> dict[str, Any]:
        """`{"network": name, ...arguments}`, plain JSON; goes into the card and is compared when weights are loaded."""
        ...

    def build_network(self) -> nn.Module:
        """A new network; its initial weights come from torch's generator, which the loop has seeded."""
        ...

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Batch number `index` of an endless sequence, on the CPU; all randomness comes from `rng`, so that the batch
        depends on the seed and on `index` only, whatever the number of workers and restarts."""
        ...

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name; `loss` is minimised, its parts are logged. `batch` is on the network's device."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Scores of the network (in evaluation mode); `score`, higher is better, decides which weights are kept."""
        ...

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """Further entries of the model card: `preprocessing`, `postprocessing` (such as a calibration), `data`."""
        ...


@runtime_checkable
class PreparesData(Protocol):
    """A trainable with something to make before the first step."""

    def prepare(self, batches: int, tell: Callable[[int, int], None]) -> None:
        """Called once, in the process that starts the training, with the number of batches that the whole run takes;
        `tell` gets how many crops of how many are made."""
        ...


@runtime_checkable
class GroupsParameters(Protocol):
    """A trainable whose parts learn at different rates, or not at all."""

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Groups for the optimizer; `lr_factor` (default 1) multiplies the learning rate of a group."""
        ...


@runtime_checkable
class CountsEpochs(Protocol):
    """A trainable whose training data have an end, so that its training can be told in passes over them (epochs)."""

    def steps_per_epoch(self) -> int:
        """Steps of one batch each that go once through the training data, at least 1. Where a step takes several
        batches (`accumulate`, `devices`), the loop divides.

        Raises
        ------
        SettingsError
            If the data have no end (simulated crops).
        """
        ...


@runtime_checkable
class TellsData(Protocol):
    """A trainable that can say what it learns from without the costly rest of its card."""

    def card_data(self) -> dict[str, Any]:
        """The entry `data` of `card_entries`."""
        ...


IN_EPOCHS: Mapping[str, str] = {
    "steps": "epochs",
    "warmup_steps": "warmup_epochs",
    "validate_every": "validate_every_epochs",
    "checkpoint_every": "checkpoint_every_epochs",
}
"""What can be told in steps or in epochs, and its name in epochs."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long and how to train; shared by all picker families.

    What is told in epochs (passes over the training data) counts before the same in steps, and needs a trainable whose
    data have an end (`CountsEpochs`): labelled or own micrographs, not simulated crops.
    """

    steps: Annotated[int, "optimizer steps of the whole schedule"] = 10_000
    epochs: Annotated[float | None, "instead of steps: passes over the training data, for the whole schedule"] = None
    learning_rate: Annotated[float, "highest learning rate"] = 1e-3
    optimizer: Annotated[
        Literal["adamw", "adam", "sgd", "muon"], "optimizer; sgd has momentum 0.9, muon is AdamW for biases and norms"
    ] = "adamw"
    weight_decay: Annotated[float, "weight decay of the optimizer"] = 1e-2
    schedule: Annotated[
        Literal["cosine", "constant", "drop", "plateau"],
        "learning rate after the warm-up: falls as a cosine, stays, drops once to a tenth, or falls whenever "
        "validations bring no gain",
    ] = "cosine"
    drop_at: Annotated[float, "share of the schedule after which `drop` takes a tenth of the learning rate"] = 2 / 3
    plateau_factor: Annotated[float, "what `plateau` multiplies the learning rate with"] = 0.1
    plateau_patience: Annotated[
        int, "validations in a row without a new best score before `plateau` acts (one more than PyTorch counts)"
    ] = 10
    warmup_steps: Annotated[int, "steps of linear warm-up"] = 100
    warmup_epochs: Annotated[float | None, "instead of warmup_steps: passes over the training data"] = None
    final_lr_fraction: Annotated[float, "learning rate at the end of the cosine, as a fraction of the highest"] = 0.01
    gradient_clip: Annotated[float, "largest norm of the gradient; 0 switches clipping off"] = 1.0
    accumulate: Annotated[int, "batches per optimizer step"] = 1
    ema_decay: Annotated[float, "decay of the moving average of weights that is kept; 0 switches it off"] = 0.999
    seed: Annotated[int, "seed of weights and data"] = 0
    validate_every: Annotated[int, "steps between validations"] = 500
    validate_every_epochs: Annotated[float | None, "instead of validate_every: passes over the training data"] = None
    patience: Annotated[int, "validations without improvement before stopping; 0 never stops early"] = 0
    checkpoint_every: Annotated[int, "steps between checkpoints"] = 500
    checkpoint_every_epochs: Annotated[float | None, "instead of checkpoint_every: passes over the training data"] = (
        None
    )
    checkpoint_minutes: Annotated[float, "also a checkpoint after so many minutes"] = 5.0
    max_minutes: Annotated[float | None, "stop after so many minutes; --resume goes on from there"] = None
    precision: Annotated[Literal["32-true", "bf16-mixed", "16-mixed"], "number format; mixed ones suit GPUs"] = (
        "32-true"
    )
    accelerator: Annotated[Literal["auto", "cpu", "gpu", "mps"], "kind of device"] = "auto"
    devices: Annotated[int, "number of devices; each adds its own batch to every step"] = 1
    stored_as: Annotated[Literal["float32", "float16"], "number format of the weights file"] = "float32"
    workers: Annotated[int, "processes that make batches; 0 makes them in the training process"] = 0
    log_every: Annotated[int, "steps between lines of the loss log"] = 10

    def __post_init__(self) -> None:
        counts = (
            *("steps", "accumulate", "validate_every", "checkpoint_every", "devices", "log_every"),
            "plateau_patience",
        )
        for name in (*counts, "learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"training: {name} is {getattr(self, name)}, expected more than 0")
        whole = ("warmup_steps", "patience", "workers", "seed")
        for name in (*whole, "weight_decay", "gradient_clip", "checkpoint_minutes"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"training: {name} is {getattr(self, name)}, expected 0 or more")
        for name in ("ema_decay", "final_lr_fraction", "drop_at"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"training: {name} is {getattr(self, name)}, expected 0 to 1")
        if not 0 < self.plateau_factor < 1:
            raise SettingsError(
                f"training: plateau_factor is {self.plateau_factor}, expected more than 0 and less than 1"
            )
        for name in IN_EPOCHS.values():
            value = getattr(self, name)
            if value is not None and not (value > 0 or (value == 0 and name == "warmup_epochs")):
                raise SettingsError(f"training: {name} is {value}, expected more than 0")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise SettingsError(f"training: max_minutes is {self.max_minutes}, expected more than 0")

    @property
    def is_in_epochs(self) -> bool:
        """Whether anything is told in passes over the training data; see `in_steps`."""
        return any(getattr(self, name) is not None for name in IN_EPOCHS.values())

    def in_steps(self, steps_per_epoch: int) -> TrainSettings:
        """These settings with everything that is told in epochs in steps as well.

        Parameters
        ----------
        steps_per_epoch : steps of one batch that go once through the training data; see `CountsEpochs`
        """
        per_epoch = steps_per_epoch / (self.accumulate * self.devices)
        changes: dict[str, Any] = {}
        for in_steps, in_epochs in IN_EPOCHS.items():
            epochs = getattr(self, in_epochs)
            if epochs is not None:
                changes[in_steps] = max(round(epochs * per_epoch), 0 if in_steps == "warmup_steps" else 1)
        return replace(self, **changes)

    def as_asked(self) -> dict[str, Any]:
        """Plain values without the steps of what is told in epochs: what a config file should say."""
        unused = {in_steps for in_steps, in_epochs in IN_EPOCHS.items() if getattr(self, in_epochs) is not None}
        return {name: value for name, value in as_plain(self).items() if name not in unused}

    def learning_rate_at(self, step: int, *, plateaus: int = 0) -> float:
        """Learning rate of step 0, 1, …: a function of the step, so that a resumed run follows the same curve.

        Parameters
        ----------
        plateaus : with `schedule="plateau"`, how often validations have brought no gain for too long
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "plateau":
            return self.learning_rate * self.plateau_factor**plateaus
        if self.schedule == "drop":
            return self.learning_rate * (0.1 if step >= self.drop_at * self.steps else 1.0)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + float(np.cos(np.pi * min(progress, 1.0))))
        return self.learning_rate * (self.final_lr_fraction + (1 - self.final_lr_fraction) * cosine)


def later_wins(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training from several places, the later ones first in rank; steps given in one replace epochs
    given in an earlier one, and the other way round."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for in_steps, in_epochs in IN_EPOCHS.items():
            if layer.get(in_steps) is not None and layer.get(in_epochs) is None:
                merged.pop(in_epochs, None)
            elif layer.get(in_epochs) is not None and layer.get(in_steps) is None:
                merged.pop(in_steps, None)
        merged |= layer
    return merged


def in_one_unit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Given settings, where those in steps switch off what a preset says of the same in epochs.

    Raises
    ------
    SettingsError
        If one thing is given in steps and in epochs.
    """
    changes = dict(given)
    for in_steps, in_epochs in IN_EPOCHS.items():
        if given.get(in_epochs) is None and in_steps in given:
            changes[in_epochs] = None
        elif given.get(in_epochs) is not None and in_steps in given:
            raise SettingsError(f"training: {in_steps} and {in_epochs} are both given; leave one of them out")
    return changes


def resolve_epochs(settings: TrainSettings, trainable: Trainable) -> TrainSettings:
    """Settings with everything in steps.

    Raises
    ------
    SettingsError
        If something is told in epochs and the trainable's data have no end.
    """
    if not settings.is_in_epochs:
        return settings
    if not isinstance(trainable, CountsEpochs):
        asked = ", ".join(name for name in IN_EPOCHS.values() if getattr(settings, name) is not None)
        raise SettingsError(
            f"training: {asked} is given, and {trainable.picker!r} cannot tell how many steps go once through its "
            "training data; give steps"
        )
    return settings.in_steps(trainable.steps_per_epoch())


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named starting point: the family's own settings (`task`, a frozen dataclass) and the shared ones."""

    task: Any
    training: TrainSettings = field(default_factory=TrainSettings)
    about: str = ""

    def changed(self, *, task: Mapping[str, Any], training: Mapping[str, Any]) -> Preset:
        """This preset with some settings replaced; unknown names are listed against the known ones."""
        for title, target, given in (("task", self.task, task), ("training", self.training, training)):
            known = {f.name for f in fields(target)} if is_dataclass(target) else set()
            require_known(given, known, where=f"[{title}]")
        new_task = replace(self.task, **task) if task else self.task
        return replace(self, task=new_task, training=replace(self.training, **in_one_unit(training)))


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the networks of one picker are trained.

    Parameters
    ----------
    presets : by name; `small` is there always
    make_trainable : called with `(task, train=…, validation=…)`, where `task` is an instance of the preset's task
        dataclass and the others are data sets, or None for simulation
    make_finetunable : called with `(task, train=…, validation=…, start=…)`; makes what learns from labelled data alone
        and knows the weights at the start. Without it, `make_trainable` is called with the data
    finetune_task, finetune_training : settings of the task and of the training that fine-tuning changes
    needs_labels : False for a family that learns from micrographs alone; it is then given all micrographs of a folder
        to train on, and none to validate
    learns_from_background : whether places that labels call background teach where labels are sparse; complete labels
        say of all else that it is background, whatever the family
    """

    presets: Mapping[str, Preset]
    make_trainable: Callable[..., Trainable]
    make_finetunable: Callable[..., Trainable] | None = None
    finetune_task: Mapping[str, Any] = field(default_factory=dict)
    finetune_training: Mapping[str, Any] = field(default_factory=dict)
    needs_labels: bool = True
    learns_from_background: bool = False


def as_family(module: Any) -> Family:
    """The family that a module describes: its `FAMILY`, or the loose names of plug-ins for 0.1."""
    family = getattr(module, "FAMILY", module)
    if isinstance(family, Family):
        return family
    return Family(
        presets=module.PRESETS,
        make_trainable=module.make_trainable,
        make_finetunable=getattr(module, "make_finetunable", None),
        finetune_task=getattr(module, "FINETUNE_TASK", {}),
        finetune_training=getattr(module, "FINETUNE_TRAINING", {}),
        needs_labels=getattr(module, "NEEDS_LABELS", True),
    )
