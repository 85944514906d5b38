"""The five papers: which data each needs, what stands in for them, and what makes its tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryopick.data.id_lists import id_lists
from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.machine import describe_machine
from cryopick.workflows.benchmark import open_sets
from cryopick.workflows.reproduce import cryoemmae, cryosegnet, cryotransformer, deepcryopicker, segmentation_crf
from cryopick.workflows.reproduce.bench import Bench
from cryopick.workflows.reproduce.results import PaperFigure, PaperTable, Reproduction, write_reproduction
from cryopick.workflows.reproduce.stand_in import Barrels, StandIn, make_stand_ins

TRAINING_WORD = "train"
UNNAMED = (
    f"those with {TRAINING_WORD!r} in their names are trained on and the others tested on; where none has it, the last "
    "by name is tested on and the others are trained on"
)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One paper.

    Parameters
    ----------
    training, test : names of the sets, as EMPIAR numbers them; none of both where the paper names none
    stand_in_training, stand_in_test : simulated ones in their place
    parts : what makes its tables and figures, by the name that `--only` takes
    elsewhere : what of the paper this command does not make
    """

    name: str
    title: str
    reference: str
    training: tuple[str, ...]
    test: tuple[str, ...]
    stand_in_training: tuple[StandIn | Barrels, ...]
    stand_in_test: tuple[StandIn | Barrels, ...]
    parts: Mapping[str, Callable[[Bench], Iterator[PaperTable | PaperFigure]]]
    elsewhere: tuple[str, ...] = ()

    @property
    def names_no_sets(self) -> bool:
        """Whether any set will do."""
        return not self.training and not self.test


def _some(prefix: str, seeds: Iterable[int], *, count: int = 2, side_px: int = 512) -> tuple[StandIn, ...]:
    return tuple(
        StandIn(name=f"{prefix}-{number}", seed=seed, count=count, side_px=side_px)
        for number, seed in enumerate(seeds, start=1)
    )


def _ids(name: str) -> tuple[str, ...]:
    return id_lists()[name].ids


PAPERS: Mapping[str, Paper] = {
    paper.name: paper
    for paper in (
        Paper(
            name="cryotransformer",
            title="CryoTransformer",
            reference="A. Dhakal, R. Gyawali, L. Wang, J. Cheng, Bioinformatics 40(3), 2024, btae109",
            training=_ids("cryotransformer-train"),
            test=_ids("cryotransformer-test"),
            stand_in_training=_some("learnt", (11, 12), count=4),
            stand_in_test=_some("unseen", (13, 14)),
            parts=cryotransformer.PARTS,
        ),
        Paper(
            name="cryosegnet",
            title="CryoSegNet",
            reference="R. Gyawali, A. Dhakal, L. Wang, J. Cheng, Briefings in Bioinformatics 25(4), 2024, bbae282",
            training=_ids("cryosegnet-train"),
            test=_ids("cryosegnet-test"),
            stand_in_training=_some("learnt", (21, 22), count=4),
            stand_in_test=_some("unseen", (23, 24)),
            parts=cryosegnet.PARTS,
        ),
        Paper(
            name="cryoemmae",
            title="Cryo-EMMAE",
            reference="A. Zamanos, P. Koromilas, G. Bouritsas, P. L. Kastritis, Y. Panagakis, Patterns 6, 2025",
            training=_ids("cryoemmae-single"),
            test=_ids("cryoemmae-test"),
            stand_in_training=_some("learnt", (31, 32, 33, 34), count=5),
            stand_in_test=_some("unseen", (35, 36, 37), count=1),
            parts=cryoemmae.PARTS,
        ),
        Paper(
            name="deepcryopicker",
            title="DeepCryoPicker",
            reference="A. Al-Azzawi et al., BMC Bioinformatics 21, 2020, 509",
            training=(),
            test=("klh", "apoferritin", "ribosome", "galactosidase", *_ids("deepcryopicker-external")),
            stand_in_training=(),
            stand_in_test=deepcryopicker.STAND_INS,
            parts=deepcryopicker.PARTS,
        ),
        Paper(
            name="segmentation-crf",
            title="Semantic segmentation and conditional random field",
            reference="S.-C. Chung, P.-C. Chou, A novel particle picking pipeline for cryo-EM (extended abstract)",
            training=(),
            test=(),
            stand_in_training=segmentation_crf.STAND_INS_TRAINING,
            stand_in_test=segmentation_crf.STAND_INS_TEST,
            parts=segmentation_crf.PARTS,
        ),
    )
}


def reproduce(
    paper: str,
    output: Path | str,
    *,
    data: Path | str | None = None,
    weights: Mapping[str, Path] | None = None,
    cryolo_model: Path | None = None,
    only: Sequence[str] = (),
    small: bool | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Reproduction:
    """Make the tables and figures of a paper, write them into `output`, and return them.

    The same command again goes on: runs and trainings that are finished are not repeated.

    Parameters
    ----------
    paper : a name of `PAPERS`
    data : folder with the paper's sets, one folder each, named by the EMPIAR number; what is missing is said. Of a
        paper that names no sets, any will do, see `UNNAMED`. None simulates small sets in their place
    weights : the authors' weights by picker, and `sam` for Meta's Segment Anything; without them networks are trained
    cryolo_model : for crYOLO, where it is installed
    only : names of parts; all where empty
    small : reduced networks and short trainings; None: on the stand-in, not on data

    Raises
    ------
    SettingsError
        If the paper or a part is unknown.
    InputError
        If the folder holds none of the paper's sets.
    """
    if paper not in PAPERS:
        raise SettingsError(f"no paper {paper!r}; known: {', '.join(PAPERS)}")
    wanted, output = PAPERS[paper], Path(output)
    unknown = sorted(set(only) - set(wanted.parts))
    if unknown:
        raise SettingsError(f"{paper} has no part {', '.join(unknown)}; it has: {', '.join(wanted.parts)}")
    for name, file in (weights or {}).items():
        if not file.exists():
            raise InputError(f"{file}: no such file; expected weights of {name}")
    started = time.monotonic()
    tell = on_progress or (lambda _: None)
    missing = list(wanted.elsewhere)
    if data is None:
        named = make_stand_ins(output / "stand-in", (*wanted.stand_in_training, *wanted.stand_in_test), tell=tell)
        training = {one.name: named[one.name] for one in wanted.stand_in_training}
        test = {one.name: named[one.name] for one in wanted.stand_in_test}
        told = [f"simulated sets in the place of the paper's: training {_listed(training)}; test {_listed(test)}"]
    else:
        found = sets_in(Path(data))
        training, test = _chosen(found, wanted)
        missing += [_missing("training", wanted.training, training), _missing("test", wanted.test, test)]
        if wanted.names_no_sets:
            if not test:
                raise InputError(f"{data}: holds no folder of a set; expected one folder per set")
            missing += ["the paper names no sets: " + UNNAMED]
        elif not test:
            raise InputError(
                f"{data}: holds none of the test sets of {wanted.title} ({', '.join(wanted.test)}); expected folders "
                "with these numbers in their names, or leave --data out for a simulated stand-in"
            )
        told = [f"{data}: training {_listed(training)}; test {_listed(test)}"]
    bench = Bench(
        output=output,
        test=_opened(test),
        training=_opened(training),
        folders={**training, **test},
        is_small=data is None if small is None else small,
        weights=dict(weights or {}),
        cryolo_model=cryolo_model,
        tell=tell,
    )
    made: list[PaperTable | PaperFigure] = []
    for name, part in wanted.parts.items():
        if not only or name in only:
            made += part(bench)
    if bench.is_small:
        told.append("reduced networks, trained for seconds: the figures show that everything runs, not how good it is")
    result = Reproduction(
        paper=paper,
        title=f"{wanted.title}: its tables, made here",
        reference=wanted.reference,
        data=tuple(told),
        missing=tuple(one for one in (*missing, *bench.told()) if one),
        tables=tuple(one for one in made if isinstance(one, PaperTable)),
        figures=tuple(one for one in made if isinstance(one, PaperFigure)),
        seconds=time.monotonic() - started,
        machine=describe_machine(),
    )
    write_reproduction(result, output)
    return result


def sets_in(folder: Path) -> dict[str, Path]:
    """The folders of sets in a folder, by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; expected one with a folder per set, named by its EMPIAR number")
    return {child.name: child for child in sorted(folder.iterdir()) if child.is_dir() and child.name[0] != "."}


def _chosen(found: Mapping[str, Path], wanted: Paper) -> tuple[dict[str, Path], dict[str, Path]]:
    """Sets to train on, and sets to test on."""
    if not wanted.names_no_sets:
        training, test = (
            {name: path for name, path in found.items() if _is_one_of(name, names)}
            for names in (wanted.training, wanted.test)
        )
        return training, test
    named = [name for name in found if TRAINING_WORD in name.lower()] or list(found)[:-1]
    return {name: found[name] for name in named}, {name: path for name, path in found.items() if name not in named}


def _is_one_of(name: str, wanted: Sequence[str]) -> bool:
    return any(one.lower() in name.lower() for one in wanted)


def _missing(what: str, wanted: Sequence[str], found: Mapping[str, Path]) -> str:
    lacking = [one for one in wanted if not any(_is_one_of(name, [one]) for name in found)]
    return f"{what} sets {', '.join(lacking)}" if lacking else ""


def _opened(folders: Mapping[str, Path]) -> dict[str, BenchmarkSet]:
    return {name: opened for name, path in folders.items() for opened in open_sets([path])}


def _listed(sets: Mapping[str, Path]) -> str:
    return ", ".join(sets) or "none"
