"""The one training loop: any `Trainable`, killed and resumed at will, ends with the weights of an undisturbed run.

Batches, dropout and the learning rate are functions of the seed and the step, so a state holds no random state and no
position in the data; on CPUs a resumed run is exact, on GPUs to within the rounding of non-deterministic kernels.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryopick.errors import OutputError, RunFolderError, TrainingError
from cryopick.extras import require_extra
from cryopick.io.weights import (
    Checkpoint,
    ModelCard,
    check_architecture,
    read_tensors_and_metadata,
    save_checkpoint,
    write_tensors,
)
from cryopick.settings import settings_of
from cryopick.training.folder import BEST_FILE, WEIGHTS_FILE
from cryopick.training.logs import LoggingMonitor, Monitor, RunLogs, tell_doing
from cryopick.training.state import STATE_FILE, Progress, WeightAverage, load_state, read_progress, save_state
from cryopick.training.trainable import GroupsParameters, PreparesData, Trainable, TrainSettings, resolve_epochs
from cryopick.training.workers import WORKER_START, prepare_worker

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

_FREE_ON_RESUME = frozenset(
    (
        *("checkpoint_every", "checkpoint_every_epochs", "checkpoint_minutes", "max_minutes", "workers"),
        *("log_every", "accelerator", "patience"),
    )
)
"""Settings that do not change the weights and may differ when a run is resumed."""
_LATER = {
    setting.name: setting.default
    for setting in settings_of(TrainSettings)
    if setting.name in ("drop_at", "plateau_factor", "plateau_patience")
}
"""Settings that version 0.1 did not have, with what it did; at that they are left out, so that its runs can go on."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a training run ended."""

    weights: Path
    steps: int
    is_finished: bool
    """False when the time was over or the run was interrupted; the same command with `resume` goes on."""
    reason: str
    scores: Mapping[str, float]
    best_step: int


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that a training process gets; picklable, for several devices."""

    trainable: Trainable
    settings: TrainSettings
    folder: Path
    resume: bool
    start_from: Checkpoint | None
    validate_first: bool
    record: Mapping[str, Any] = field(default_factory=dict)
    monitor: Monitor

    def fingerprint(self) -> dict[str, Any]:
        shared = {
            name: value
            for name, value in asdict(self.settings).items()
            if name not in _FREE_ON_RESUME and not (name in _LATER and value == _LATER[name])
        }
        return {**shared, **dict(self.record), "picker": self.trainable.picker, **self.trainable.architecture()}


def train(
    trainable: Trainable,
    settings: TrainSettings,
    folder: Path,
    *,
    resume: bool = False,
    start_from: Checkpoint | None = None,
    validate_first: bool = False,
    record: Mapping[str, Any] | None = None,
    monitor: Monitor | None = None,
) -> TrainResult:
    """Train and write weights, card, logs and state into `folder`.

    Parameters
    ----------
    resume : go on from the folder's state; a folder without one starts at step 0
    start_from : initial weights (fine-tuning); the architecture must be the same
    validate_first : score the initial weights too, so that training never ends with worse ones
    record : plain JSON about data and settings of the family, for the card; a resumed run must have the same

    Raises
    ------
    RunFolderError
        If the folder holds another run, or cannot be written (disk full); the last good state is kept.
    SettingsError
        If the settings are in epochs and the trainable's data have no end.
    TrainingError
        If the loss is not a finite number; the last good state is kept.
    WeightsError
        If `start_from` does not fit.
    """
    settings = resolve_epochs(settings, trainable)
    state = folder / STATE_FILE
    if state.exists() and not resume:
        raise RunFolderError(f"{folder}: holds a training run; pass --resume to go on with it, or use another folder")
    if start_from is not None:
        check_architecture(start_from.card, trainable.architecture(), where=str(start_from.path or "start weights"))
    job = _Job(
        trainable=trainable,
        settings=settings,
        folder=folder,
        resume=resume,
        start_from=start_from,
        validate_first=validate_first,
        record=dict(record or {}),
        monitor=monitor or LoggingMonitor(),
    )
    is_finished = False
    if state.exists():  # other settings are refused before any process is started
        is_finished = read_progress(state, fingerprint=job.fingerprint()).is_finished
    fabric = _make_fabric(settings)
    if isinstance(trainable, PreparesData) and not is_finished:
        trainable.prepare(settings.steps * settings.accumulate * settings.devices, job.monitor.prepared)
    return TrainResult(**fabric.launch(partial(_run, job)))


def require_training_packages() -> None:
    """Raise `MissingExtraError` unless training could start; to be called before the first costly step."""
    require_extra("train", ("torch", "lightning"), "training")


def _make_fabric(settings: TrainSettings) -> Any:
    require_training_packages()
    from lightning.fabric import Fabric

    from cryopick.training.one_machine import OneMachine

    strategy = "auto" if settings.devices == 1 else "ddp_spawn"
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=strategy,
            precision=settings.precision,
            plugins=[OneMachine()],
        )
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            f"cannot train on {settings.devices} device(s) of kind {settings.accelerator!r} "
            f"in {settings.precision}: {error}"
        ) from error


def _run(job: _Job, fabric: Any) -> dict[str, Any]:
    run = _Run(fabric, job)
    with _stop_requests() as stop:
        result = run.run(stop)
    _part(fabric)
    # what comes back from another process must be a plain container for Fabric
    return {f.name: getattr(result, f.name) for f in fields(result)}


def _part(fabric: Any) -> None:
    """Ends the connection of several processes together: one that exits while it stands may be aborted."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


class _Run:
    """One process of a training run."""

    def __init__(self, fabric: Any, job: _Job) -> None:
        import torch

        self.fabric, self.job, self.settings = fabric, job, job.settings
        torch.manual_seed(_torch_seed(self.settings.seed, stream=0, step=0))
        network = job.trainable.build_network()
        if job.start_from is not None:
            job.start_from.load_into(network)
        optimizer = _make_optimizer(job.trainable, network, self.settings)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.plain: nn.Module = self.network.module  # without the wrappers of Fabric
        while hasattr(self.plain, "module") and isinstance(self.plain.module, torch.nn.Module):
            self.plain = self.plain.module
        self.average = WeightAverage(self.plain, decay=self.settings.ema_decay)
        self.fingerprint = job.fingerprint()
        self.state_path = job.folder / STATE_FILE
        self.progress = Progress()
        if job.resume and self.state_path.exists():
            self.progress = load_state(
                self.state_path,
                model=self.plain,
                average=self.average.network,
                optimizer=_plain_optimizer(self.optimizer),
                fingerprint=self.fingerprint,
            )
            self._load_scaler()
        self.saved_at = time.monotonic()
        self.started_at = time.monotonic() - self.progress.seconds
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.logs = RunLogs(job.folder, start_step=self.progress.step) if fabric.is_global_zero else None

    # ------------------------------------------------------------------------------------------------ the loop

    def run(self, stop: threading.Event) -> TrainResult:
        """Steps until the schedule, the patience or the time is over."""
        settings, progress = self.settings, self.progress
        self._tell("started", step=progress.step, steps=settings.steps)
        began = time.monotonic()
        reason = "finished" if progress.is_finished else ""
        if progress.step == 0 and not reason:
            if self.job.validate_first:
                self._validate()
            self._save()
        batches = iter(self._batches())
        while not reason:
            if progress.step >= settings.steps:
                reason = "finished"
                break
            self._step(batches)
            is_last = progress.step >= settings.steps
            if progress.step % settings.log_every == 0 or is_last:
                self._log()
                limit = settings.max_minutes
                is_over = stop.is_set() or (limit is not None and time.monotonic() - began > limit * 60)
                if self.fabric.broadcast(is_over):
                    reason = "interrupted" if stop.is_set() else f"the {limit:g} minutes are over"
            if progress.step % settings.validate_every == 0 or is_last:
                self._validate()
                if settings.patience and progress.validations_without_gain >= settings.patience:
                    reason = f"finished early: no gain in {settings.patience} validations"
            progress.is_finished = is_last or reason.startswith("finished")
            is_late = time.monotonic() - self.saved_at > settings.checkpoint_minutes * 60
            if progress.step % settings.checkpoint_every == 0 or progress.is_finished or reason or is_late:
                self._save()
        del batches  # ends the workers
        return self._finish(reason)

    def _step(self, batches: Iterator[dict[str, Tensor]]) -> None:
        import torch

        settings, step = self.settings, self.progress.step
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate_at(step) * group.get("lr_factor", 1.0)
        # dropout and the like: a new known seed for every step, instead of a random state to save
        torch.manual_seed(_torch_seed(settings.seed, stream=1 + self.fabric.global_rank, step=step))
        for part in range(settings.accumulate):
            # Moments near zero would slow every step on CPUs, so they are flushed; but not where batches are made,
            # because those must not depend on which process makes them
            torch.set_flush_denormal(False)
            batch = self.fabric.to_device(next(batches))
            torch.set_flush_denormal(True)
            with self.fabric.no_backward_sync(self.network, enabled=part < settings.accumulate - 1):
                losses = self.job.trainable.loss(self.network, batch)
                self.fabric.backward(losses["loss"] / settings.accumulate)
            for name, value in losses.items():
                total = self.sums.get(name)
                self.sums[name] = value.detach() if total is None else total + value.detach()
            self.summed += 1
        if settings.gradient_clip > 0:
            limit = settings.gradient_clip
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.plain, step=step)
        torch.set_flush_denormal(False)
        self.progress.step = step + 1
        self.progress.seconds = time.monotonic() - self.started_at

    def _batches(self) -> Any:
        from torch.utils.data import DataLoader

        settings, rank, world = self.settings, self.fabric.global_rank, self.fabric.world_size
        first, last = self.progress.step * settings.accumulate, settings.steps * settings.accumulate
        numbered: Any = _Batches(self.job.trainable, settings.seed)
        return DataLoader(
            numbered,
            sampler=range(first * world + rank, last * world, world),
            batch_size=None,
            num_workers=settings.workers,
            worker_init_fn=prepare_worker,
            prefetch_factor=2 if settings.workers else None,
            multiprocessing_context=WORKER_START if settings.workers else None,
        )

    def _rate_at(self, step: int) -> float:
        return self.settings.learning_rate_at(step, plateaus=self.progress.plateaus)

    # --------------------------------------------------------------------------------- looking, keeping, ending

    def _mean_losses(self) -> dict[str, float]:
        """Mean losses since the last call, over this process; raises where one is not finite."""
        means = {name: float(total) / self.summed for name, total in self.sums.items()}
        self.sums, self.summed = {}, 0
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            kept = read_progress(self.state_path).step if self.state_path.exists() else 0
            raise TrainingError(
                f"{self.job.folder}: {', '.join(broken)} is not a finite number before step {self.progress.step}; the "
                f"state of step {kept} is kept; train with a lower learning_rate or gradient_clip, or in 32-true"
            )
        return means

    def _log(self) -> None:
        means = self._mean_losses()
        rate = self._rate_at(self.progress.step - 1)
        if self.logs is not None:
            self.logs.losses(self.progress.step, means, learning_rate=rate, seconds=self.progress.seconds)
        self._tell("stepped", step=self.progress.step, losses=means)

    def _validate(self) -> None:
        import torch

        scores: dict[str, float] = {}
        if self.fabric.is_global_zero:
            torch.manual_seed(_torch_seed(self.settings.seed, stream=0, step=1))
            network = self._network_to_keep().eval()
            with torch.no_grad(), self.fabric.autocast():
                scores = {name: float(value) for name, value in self.job.trainable.validate(network).items()}
        scores = self.fabric.broadcast(scores)
        if "score" not in scores:
            names = ", ".join(scores)
            raise TrainingError(f"validation of {self.job.trainable.picker!r} gives no 'score', only: {names}")
        progress, best = self.progress, self.progress.best_score
        is_best = math.isfinite(scores["score"]) and (best is None or scores["score"] > best)
        progress.validations_without_gain = 0 if is_best else progress.validations_without_gain + 1
        progress.validations_on_plateau = 0 if is_best else progress.validations_on_plateau + 1
        if progress.validations_on_plateau >= self.settings.plateau_patience:
            progress.validations_on_plateau, progress.plateaus = 0, progress.plateaus + 1
        if is_best:
            progress.best_score, progress.best_step = scores["score"], progress.step
        if self.logs is not None:
            if is_best:
                tensors = network.state_dict()
                metadata = {f"score.{name}": repr(value) for name, value in scores.items()}
                metadata["step"] = str(progress.step)
                self._write(lambda: write_tensors(self.job.folder / BEST_FILE, tensors, metadata=metadata))
            self.logs.scores(progress.step, scores)
            self._write(self.logs.draw)
        self._tell("validated", step=progress.step, scores=scores, is_best=is_best)
        self.fabric.barrier()

    def _network_to_keep(self) -> nn.Module:
        return self.average.network if self.settings.ema_decay > 0 else self.plain

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.sums:
            self._log()  # a state with a broken loss is never written
        if not self.fabric.is_global_zero:
            return
        scaler = getattr(self.fabric._precision, "scaler", None)
        self.progress.scaler = dict(scaler.state_dict()) if scaler is not None else {}
        self._write(
            lambda: save_state(
                self.state_path,
                self.progress,
                model=self.plain,
                average=self.average.network,
                optimizer=_plain_optimizer(self.optimizer),
                fingerprint=self.fingerprint,
            )
        )

    def _load_scaler(self) -> None:
        scaler = getattr(self.fabric._precision, "scaler", None)
        if scaler is not None and self.progress.scaler:
            scaler.load_state_dict(self.progress.scaler)

    def _write(self, write: Any) -> None:
        """Write a file; where that fails, say which state survives."""
        try:
            write()
        except (OSError, OutputError) as error:
            has_state = self.state_path.exists()
            kept = f"the state of step {read_progress(self.state_path).step}" if has_state else "no state"
            raise RunFolderError(
                f"{self.job.folder}: cannot write ({error}); {kept} is kept; free space and run again with --resume"
            ) from error

    def _finish(self, reason: str) -> TrainResult:
        """The kept weights with their card."""
        progress, folder = self.progress, self.job.folder
        scores: dict[str, float] = {}
        weights, kept_step = folder / WEIGHTS_FILE, progress.step
        if self.logs is not None:
            network, best = self._network_to_keep(), folder / BEST_FILE
            if best.exists():
                tensors, metadata = read_tensors_and_metadata(best)
                network.load_state_dict(tensors)
                kept_step = int(metadata["step"])
                scores = {k.removeprefix("score."): float(v) for k, v in metadata.items() if k.startswith("score.")}
            kept = network.state_dict()
            if self.settings.stored_as == "float16":
                kept = _rounded_to_half(kept)
                network.load_state_dict(kept)  # the card is to speak of what is stored
            tell_doing(self.job.monitor, "calibrating: measuring what the scores of the kept weights are worth")
            entries = self.job.trainable.card_entries(network.eval())
            card = ModelCard(
                picker=self.job.trainable.picker,
                architecture=self.job.trainable.architecture(),
                settings={"training": asdict(self.settings), **self.job.record},
                seed=self.settings.seed,
                steps=kept_step,
                scores={name: value for name, value in scores.items() if math.isfinite(value)},
                **entries,
            )
            self._write(lambda: save_checkpoint(weights, kept, card))
            self._write(self.logs.draw)
            self.logs.close()
        self._tell("stopped", step=progress.step, reason=reason)
        self.fabric.barrier()
        return TrainResult(
            weights=weights,
            steps=progress.step,
            is_finished=progress.is_finished,
            reason=reason,
            scores=scores,
            best_step=kept_step,
        )

    def _tell(self, event: str, **values: Any) -> None:
        if self.fabric.is_global_zero:
            getattr(self.job.monitor, event)(**values)


class _Batches:
    """Batches by index, for PyTorch's data loader."""

    def __init__(self, trainable: Trainable, seed: int) -> None:
        self.trainable, self.seed = trainable, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = self.trainable.make_batch(index, np.random.default_rng([self.seed, index]))
        return dict(batch)


def _make_optimizer(trainable: Trainable, network: nn.Module, settings: TrainSettings) -> optim.Optimizer:
    from torch import optim

    if isinstance(trainable, GroupsParameters):
        groups: list[dict[str, Any]] = trainable.parameter_groups(network)
    else:
        groups = [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]
    rate, decay = settings.learning_rate, settings.weight_decay
    is_fused = settings.precision != "16-mixed"  # a fused step unscales gradients itself, which forbids clipping them
    if settings.optimizer == "sgd":
        return optim.SGD(groups, lr=rate, weight_decay=decay, momentum=0.9)
    if settings.optimizer == "muon":
        from cryopick.training.muon import Muon, matrices_first

        return Muon(matrices_first(network, groups), lr=rate, weight_decay=decay)
    if settings.optimizer == "adam":
        return optim.Adam(groups, lr=rate, weight_decay=decay, fused=is_fused)
    return optim.AdamW(groups, lr=rate, weight_decay=decay, fused=is_fused)


def _rounded_to_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.half() if one.is_floating_point() else one for name, one in tensors.items()}


def _plain_optimizer(optimizer: Any) -> Any:
    """The optimizer inside Fabric's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _torch_seed(seed: int, *, stream: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that the run ends with a saved state; the second one kills."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(f"signal {number} came twice")
        stop.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
