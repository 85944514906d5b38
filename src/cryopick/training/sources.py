"""Where a training's examples come from: simulated crops, or labelled micrographs. A trainable need not know which."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.metrics.detection import RankedOutcomes
from cryopick.simulation.crops import Crop, CropGenerator
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import detection_scores, labelled_score
from cryopick.training.quarters import Example, QuarterTask, keep_crops, quarter, some_quarters
from cryopick.training.sampling import CropSampler, MicrographSampler, prepare_all

if TYPE_CHECKING:
    from torch import Tensor

    from cryopick.data.datasets import Dataset


@dataclass
class FromSimulation:
    """Simulated crops: of each, two quarters are learnt from, or the whole where the task says so.

    Parameters
    ----------
    example_of : what is learnt from a whole crop
    part_of : a quarter of that, by number
    """

    task: QuarterTask
    example_of: Callable[[Crop], Example]
    part_of: Callable[[Example, int], Example]

    @cached_property
    def crops(self) -> SimulatedCrops | CropGenerator:
        """The crops that teach."""
        return self.task.training_crops()

    @cached_property
    def held_out(self) -> list[Crop]:
        """Crops of another seed."""
        return self.task.crops_to_judge()

    def examples(self, index: int, rng: np.random.Generator) -> Iterator[Example]:
        """Of crops `index * crops_per_batch` onwards."""
        for number in range(index * self.task.crops_per_batch, (index + 1) * self.task.crops_per_batch):
            whole = self.example_of(self.crops.crop(number))
            if self.task.learns_from_quarters:
                yield from (self.part_of(whole, part) for part in some_quarters(rng))
            else:
                yield whole

    def steps_per_epoch(self) -> int:
        """None: simulated crops have no end."""
        raise SettingsError("training: simulated crops have no end, so there are no epochs; give steps")

    def scores(self, outcomes: Sequence[RankedOutcomes]) -> dict[str, float]:
        """Average precision and best F1."""
        return detection_scores(outcomes)

    def card_data(self) -> dict[str, Any]:
        """Seed of the crops."""
        return {"kind": "simulation", "seed": self.task.simulation_seed}


@dataclass(frozen=True)
class Wholes(Sequence[Any]):
    """Every micrograph of a sampler, whole, made when it is asked for."""

    sampler: MicrographSampler[Any]

    def __len__(self) -> int:
        return len(self.sampler.items)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.sampler.whole(number) for number in range(len(self))[index]]
        return self.sampler.whole(range(len(self))[index])


@dataclass
class FromLabels:
    """Augmented crops of labelled micrographs, which are judged whole.

    Parameters
    ----------
    train, validation : labelled, with known particle diameters
    sampler_of : crops of one of them
    example_of : what is learnt from a crop
    batch_size : crops per batch
    """

    train: Dataset
    validation: Dataset
    sampler_of: Callable[[Dataset], MicrographSampler[Any]]
    example_of: Callable[[Any], Example]
    batch_size: int

    @cached_property
    def sampler(self) -> MicrographSampler[Any]:
        """Crops of the micrographs that teach."""
        return self.sampler_of(self.train)

    @cached_property
    def judge(self) -> MicrographSampler[Any]:
        """The micrographs that validate."""
        return self.sampler_of(self.validation)

    @property
    def held_out(self) -> Sequence[Any]:
        """The micrographs that validate, at working scale; as many stay in memory as the sampler keeps there."""
        return Wholes(self.judge)

    def examples(self, index: int, rng: np.random.Generator) -> Iterator[Example]:
        """Of micrographs in turn."""
        for position in range(index * self.batch_size, (index + 1) * self.batch_size):
            yield self.example_of(self.sampler.crop(position, rng))

    def steps_per_epoch(self) -> int:
        """Batches that hold a crop of every micrograph once."""
        return math.ceil(len(self.sampler.items) / self.batch_size)

    def scores(self, outcomes: Sequence[RankedOutcomes]) -> dict[str, float]:
        """Average precision, or what stands for it where labels are sparse."""
        is_complete = all(item.is_complete for item in self.judge.items)
        return {"score": labelled_score(outcomes, is_complete=is_complete)}

    def card_data(self) -> dict[str, Any]:
        """Both data sets."""
        return {"train": self.train.card_entry(), "validation": self.validation.card_entry()}


@dataclass
class LearnsFromCrops:
    """What trainables share that learn from simulated crops, or from labelled micrographs where those are given.

    They say what is learnt from either: `simulated_example` and `labelled_example`.

    Parameters
    ----------
    task : the family's settings
    train, validation : labelled micrographs with known particle diameters, or None for simulated crops
    """

    task: Any
    train: Dataset | None = None
    validation: Dataset | None = None
    most_labelled: ClassVar[int | None] = None
    """Most labelled crops in a batch, where that is fewer than the task's `batch_size`."""

    @cached_property
    def source(self) -> FromSimulation | FromLabels:
        """Where the examples come from."""
        if self.train is None or self.validation is None:
            return FromSimulation(self.task, self.simulated_example, self.part_of)
        batch_size = min(self.most_labelled or self.task.batch_size, self.task.batch_size)
        return FromLabels(self.train, self.validation, self.sampler_of, self.labelled_example, batch_size)

    def simulated_example(self, crop: Crop) -> Example:
        """What is learnt from a simulated crop, all of it known."""
        raise NotImplementedError

    def labelled_example(self, crop: Any) -> Example:
        """What is learnt from a crop of the sampler, of which only what is labelled is known."""
        raise NotImplementedError

    def part_of(self, example: Example, number: int) -> Example:
        """A quarter of a simulated crop's example."""
        return quarter(example, number)

    def sampler_of(self, dataset: Dataset) -> MicrographSampler[Any]:
        """Crops of labelled micrographs."""
        return CropSampler(dataset, crop_px=self.task.example_px)

    def prepare(self, batches: int, tell: Callable[[int, int], None]) -> None:
        """Makes the simulated crops of so many batches, or prepares the micrographs, unless they are on disk or are not
        to be kept there."""
        if isinstance(self.source, FromSimulation):
            keep_crops(self.source.crops, batches * self.task.crops_per_batch, tell)
        else:
            prepare_all([self.source.sampler, self.source.judge], tell)

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The source's examples of that number, stacked."""
        return stacked(self.source.examples(index, rng))

    def steps_per_epoch(self) -> int:
        """Batches that hold a crop of every labelled micrograph once."""
        return self.source.steps_per_epoch()

    def card_data(self) -> dict[str, Any]:
        """What was learnt from."""
        return self.source.card_data()


def stacked(examples: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
    """Examples as one batch, name by name."""
    import torch

    found = list(examples)
    return {name: torch.from_numpy(np.stack([one[name] for one in found])) for name in found[0]}
