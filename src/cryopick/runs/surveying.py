"""What a picker sees on a few micrographs of a run before it picks: which they are, and how they are read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.errors import CryopickError, UnknownPixelSizeError
from cryopick.io.images.micrographs import probe_image
from cryopick.io.images.pixel_size import choose_pixel_size
from cryopick.pickers.protocol import ChoosesSample, SurveysInFolder
from cryopick.pickers.survey import SURVEYED_MICROGRAPHS, Survey
from cryopick.runs.one import Task, file_stamp, read_task, wide_enough
from cryopick.runs.sample import chosen_sample, sample_order
from cryopick.runs.settings import PickPlan
from cryopick.types import Micrograph


@dataclass(frozen=True, eq=False)
class Surveying:
    """One survey.

    Parameters
    ----------
    tasks : all micrographs of the run, in its order
    plan : how they are read, and by which picker
    model_folder : where a picker that trains puts its model
    log : takes lines for the log of the run
    """

    tasks: Sequence[Task]
    plan: PickPlan
    model_folder: Path
    log: Callable[[str], None]

    def survey(self) -> Survey | None:
        """What the picker sees; None where no micrograph can be read.

        Raises
        ------
        CryopickError
            What the picker raises.
        """
        sample = self._sample()
        sizes = {micrograph.pixel_size_angstrom for micrograph in sample}
        if None in sizes and len(sizes) > 2:  # several magnifications: pixels are no common unit
            sample = self._sample(only_of_known_pixel_size=True)
        if not sample:
            return None
        try:
            return self._surveyed(sample)
        except UnknownPixelSizeError:
            sample = self._sample(only_of_known_pixel_size=True)
            if not sample:
                raise
            return self._surveyed(sample)

    def _surveyed(self, sample: Sequence[Micrograph]) -> Survey:
        picker = self.plan.picker
        sample = wide_enough(picker, sample)
        if isinstance(picker, SurveysInFolder):
            return picker.survey_in(self.model_folder, sample)
        survey: Survey = picker.survey(sample)
        return survey

    def _sample(self, *, only_of_known_pixel_size: bool = False) -> list[Micrograph]:
        picker, count = self.plan.picker, len(self.tasks)
        size = picker.sample_size if isinstance(picker, SurveysInFolder) else SURVEYED_MICROGRAPHS
        wanted = min(size, count)
        readable = self._readable(sample_order(count, wanted), only_of_known_pixel_size=only_of_known_pixel_size)
        if isinstance(picker, ChoosesSample):
            chosen = chosen_sample(readable, picker, wanted=wanted, available=count)
            self.log(chosen.sentence)
            return chosen.micrographs
        return [micrograph for _, micrograph in itertools.islice(readable, wanted)]

    def _readable(self, order: Sequence[int], *, only_of_known_pixel_size: bool) -> Iterator[tuple[int, Micrograph]]:
        """Place in the run and content of the micrographs that can be read, in this order, each read when asked."""
        for index in order:
            task = self.tasks[index]
            if only_of_known_pixel_size and not self._has_pixel_size(task):
                self.log(f"{task.name}: left out of the preparation: its pixel size is unknown")
                continue
            assert task.path is not None
            before = file_stamp(task.path)
            try:
                micrograph = read_task(task, self.plan.settings.run)
            except CryopickError as error:
                self.log(f"{task.name}: left out of the preparation: {error}")
                continue
            if file_stamp(task.path) == before:
                yield index, micrograph
            else:
                self.log(f"{task.name}: left out of the preparation: the file changed while it was read")

    def _has_pixel_size(self, task: Task) -> bool:
        """Whether optics table or header say a pixel size, as the header alone tells."""
        assert task.path is not None
        try:
            header_angstrom = probe_image(task.path).pixel_size_angstrom
            size, _ = choose_pixel_size(
                given_angstrom=self.plan.settings.run.pixel_size_angstrom,
                optics_angstrom=task.optics_pixel_size_angstrom,
                header_angstrom=header_angstrom,
            )
        except CryopickError:  # picking it says what is the matter
            return False
        return size is not None


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What came of a survey that a worker made.

    Parameters
    ----------
    survey : None where no micrograph could be read, or the picker could not do with what it saw
    error : why, in the second case
    log : lines for the log of the run
    """

    survey: Survey | None
    error: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SurveyErrand:
    """The survey of a run as work for one of its workers; see `Surveying`."""

    tasks: tuple[Task, ...]
    model_folder: Path

    def done(self, plan: PickPlan) -> Surveyed:
        """Look at the micrographs by the settings of a plan."""
        lines: list[str] = []
        try:
            survey = Surveying(self.tasks, plan, self.model_folder, lines.append).survey()
        except CryopickError as error:
            return Surveyed(survey=None, error=" ".join(str(error).split()), log=tuple(lines))
        return Surveyed(survey=survey, log=tuple(lines))
