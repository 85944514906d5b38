"""The tables at the top of a run folder, made from its per-micrograph files for one threshold."""

from __future__ import annotations

import json
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import RunFolderError
from cryopick.geometry.units import Length, share_decimal, share_range_text
from cryopick.io.coordinates.relion import (
    NO_SCORE,
    RELION_LIST_HEAD,
    RELION_PARTICLES_HEAD,
    VERSION,
    coordinate_rows,
    relion_list_rows,
    relion_particle_rows,
    relion_text_of_rows,
)
from cryopick.io.star import LOOP_END, loop_head, loop_rows, make_table
from cryopick.pickers.protocol import gives_probabilities
from cryopick.processing.belief import OpenCandidates
from cryopick.runs.centring import CentringSeen, centring_text, in_angstrom
from cryopick.runs.cut_curve import CutCurve, curve_of_run
from cryopick.runs.expected import expected_of
from cryopick.runs.facts import RunFacts, read_facts
from cryopick.runs.folder import AUTOPICK, MICROGRAPHS, PARTICLES, RECORDS, SUMMARY, DamagedError, RunFolder
from cryopick.runs.place import settle_place
from cryopick.runs.record import Record
from cryopick.runs.settings import PickPlan
from cryopick.runs.sizes import SizesAtPixelSize, SizesSeen, box_doubt, doubt_of_sizes, run_diameter
from cryopick.runs.threshold import (
    Cut,
    at_threshold,
    believed_scores,
    best_score,
    cut_of,
    is_open,
    open_candidates,
    what_would_keep_some,
)
from cryopick.runs.verdicts import GOOD, Verdict, verdict_of
from cryopick.types import Picks

_logger = logging.getLogger(__name__)

MICROGRAPH_COLUMNS = (
    *("rlnMicrographName", "cryopickParticleCount", "cryopickCandidateCount", "cryopickMeanScore", "cryopickSeconds"),
    *("cryopickStatus", "cryopickFilledShare", "cryopickJunkShare", "cryopickExpectedRight", "cryopickVerdict"),
    *("cryopickVerdictReason", "cryopickWarnings"),
)
"""Of `micrographs.star`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicrographTotals:
    """What tables and report tell of one finished micrograph, without its candidates; see `MicrographResult`."""

    record: Record
    count: int
    candidate_count: int
    mean_score: float
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class MicrographResult:
    """One finished micrograph at the run's threshold, with its candidates: too much to be kept of all of a run."""

    record: Record
    candidates: Picks
    """All candidates, the reason filled in for each that is not kept."""
    verdict: Verdict | None = None
    """None while the run goes on: it takes all micrographs."""

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.candidates.is_kept))

    @property
    def mean_score(self) -> float:
        """Of the kept picks; NaN where there is none."""
        score = self.candidates.score[self.candidates.is_kept]
        return float(score.mean(dtype=np.float64)) if len(score) else float("nan")

    def totals(self) -> MicrographTotals:
        """Its counts."""
        return MicrographTotals(
            record=self.record,
            count=self.count,
            candidate_count=len(self.candidates),
            mean_score=self.mean_score,
            verdict=self.verdict,
        )


@dataclass(frozen=True, kw_only=True)
class RunSummary(RunFacts):
    """What a run came to; also `summary.json`."""

    cryopick_version: str
    picker: str
    micrographs: int
    failed: Mapping[str, str]
    """Name and error of each micrograph that could not be picked."""
    particles: int
    candidates: int
    rejected: Mapping[str, int]
    """How many candidates were rejected for which reason."""
    threshold: float
    threshold_source: str
    score_meaning: str
    expected_precision: float | None
    """Share of the picks that should be right, where scores are probabilities; None elsewhere, and without picks. 1 is
    exactly 1."""
    expected_recall: float | None
    """Share of the particles that should be picked; particles that are no candidate at all are not counted."""
    prepared: str
    """What the picker found out about the micrographs before it picked, such as the diameter; empty where nothing."""
    diameter_px: float | None
    diameter_angstrom: float | None
    pixel_size_angstrom: float | None
    box_px: int | None
    binned_box_px: int | None
    binned_pixel_size_angstrom: float | None
    seconds: float
    """Summed over micrographs and workers."""
    warnings: Mapping[str, int]
    """Each different warning, and for how many micrographs it was given."""
    sizes: tuple[SizesAtPixelSize, ...] = ()
    """One entry per pixel size of the micrographs. The fields above are those of the commonest one."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """What is told of each finished micrograph, by name."""
    score_is_probability: bool = False
    """Whether the scores are calibrated probabilities; all else is no base for expected shares or calibration."""
    best_score: float | None = None
    """Of the candidates that are kept or below the threshold; None where there is none."""
    expected_precision_low: float | None = None
    expected_precision_high: float | None = None
    """Range of `expected_precision` for about nine runs of ten, over what the scores say and what the run itself shows,
    with the errors of both."""
    expected_doubt: str = ""
    """Where the scores and the run itself say different things of how many picks are right: what each says."""
    least_centring_error_px: Mapping[str, float] = field(default_factory=dict)
    """As in `Picks`, over all kept picks at the commonest pixel size; empty where the picker estimates none."""
    least_centring_error_angstrom: Mapping[str, float] = field(default_factory=dict)
    """The same in Å; empty where the pixel size is unknown."""
    box_doubt: str = ""
    """Why the suggested box may be wrong, where the given diameter does not fit what is seen."""
    provisional: bool = False
    """Whether the run goes on, following a session: sizes, threshold and all picks may change."""

    @property
    def expected_right(self) -> str:
        """`expected_precision` as it is told, a range such as `85 to 93 %`; "" where it is not known."""
        if self.expected_precision is None:
            return ""
        known = (self.expected_precision_low, self.expected_precision_high)
        low, high = (self.expected_precision if end is None else end for end in known)
        return share_range_text(low, high)

    @property
    def centring(self) -> str:
        """`least_centring_error_px` of the picks, such as `at least 1.6 px (2.0 Å)`; "" where it is not known."""
        known = self._centring_of(self.picker)
        return f"at least {known}" if known else ""

    @property
    def centring_of_members(self) -> str:
        """The same of each member, and what does not show; "" where there are none."""
        told = [f"{whose} {self._centring_of(whose)}" for whose in self.least_centring_error_px if whose != self.picker]
        of_sharing = "what all share comes on top, what most share counts against the rest"
        return f"{', '.join(told)}, by how they differ: {of_sharing}" if told else ""

    def _centring_of(self, whose: str) -> str:
        return centring_text(whose, self.least_centring_error_px, self.least_centring_error_angstrom)


def write_picks(
    folder: RunFolder, record: Record, candidates: Picks, cut: Cut, *, is_durable: bool = False
) -> MicrographResult:
    """Write the coordinate file of one micrograph."""
    return _write_picks(folder, record, candidates, cut, is_durable=is_durable)[0]


def _write_picks(
    folder: RunFolder, record: Record, candidates: Picks, cut: Cut, *, is_durable: bool = False
) -> tuple[MicrographResult, list[str]]:
    """As `write_picks`; also gives the rows of the file, which stand in the table of all particles too."""
    chosen = at_threshold(candidates, cut.threshold, belief=cut.belief_in(record.name))
    rows = coordinate_rows(chosen.kept())
    folder.write(folder.picks_path(record.key), relion_text_of_rows(rows), is_durable=is_durable)
    return MicrographResult(record=record, candidates=chosen), rows


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run folder holds of its micrographs, as far as it is kept in memory.

    Parameters
    ----------
    records : of every micrograph, sorted by name; one whose files are damaged is failed, and its error says what is
        damaged
    candidates : by name, of those that are done, in the order of the records; their tables are read again where more
        is needed
    damaged : what is wrong with records that cannot be read, by key, and with tables of candidates, by name
    """

    records: list[Record]
    candidates: dict[str, OpenCandidates]
    damaged: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """What `write_results` wrote, or `read_results` read: the summary, and what the report shows besides.

    Parameters
    ----------
    micrographs : finished ones, sorted by name
    cut : which candidates are kept
    candidates : see `Finished`
    ruled_out : (n,) scores of the candidates that a rule rejects, each times the belief in its micrograph
    curve : what other thresholds would keep
    """

    summary: RunSummary
    micrographs: list[MicrographTotals]
    cut: Cut
    candidates: Mapping[str, OpenCandidates]
    ruled_out: NDArray[np.float32]
    curve: CutCurve


def read_finished(folder: RunFolder, picker: Any) -> Finished:
    """Read all records and candidates of a run, one micrograph after the other, whether damaged or not."""
    records, unreadable = folder.read_records()
    damaged = {key: f"{folder.path / RECORDS / key}.json ({reason})" for key, reason in unreadable.items()}
    candidates: dict[str, OpenCandidates] = {}
    for position, record in enumerate(records):
        if record.is_done:
            try:
                candidates[record.name] = open_candidates(folder.read_candidates(record), picker)
            except DamagedError as error:
                damaged[record.name] = error.what
                records[position] = replace(record, error=f"its table of candidates is damaged: {error}")
    return Finished(records=records, candidates=candidates, damaged=damaged)


def write_results(
    folder: RunFolder,
    plan: PickPlan,
    finished: Finished,
    *,
    facts: RunFacts,
    notes: Mapping[str, int] | None = None,
    status: Mapping[str, str] | None = None,
    so_far: Cut | None = None,
) -> RunResults:
    """Write every table of a run from its per-micrograph files, which are read again, one micrograph after the other.

    Parameters
    ----------
    facts : where, when and with what it was picked, for the summary
    notes : warnings about the run itself, and for how many micrographs each holds; they join those of the summary
    status : of micrographs that are not simply done or failed, by name, for `micrographs.star`
    so_far : the cut in force, of a run that goes on, which makes everything provisional; None chooses the cut
    """
    place = settle_place(folder, finished.records)
    cut = cut_of(folder, plan, finished.candidates) if so_far is None else replace(so_far, right={})
    status = status or {}
    totals = _Totals(run_diameter(plan.picker, plan.survey))
    name_of = _names_in_particles(folder, plan, finished.records, cut)
    with _writing_tables(folder, place, has_rows=bool(finished.records)) as tables:
        for record in finished.records:
            if record.is_done:
                result, rows = _write_picks(folder, record, folder.read_candidates(record), cut)
                result = _judged(result, cut, plan)
                totals.add(result, belief=cut.belief_in(record.name))
                tables.add(totals.micrographs[-1], record, status.get(record.name, "done"))
                if not plan.settings.run.drop_bad or _is_good(result):
                    tables.add_picks(folder, record, name_of(record), rows)
            else:  # picks of an earlier image, or of a table that is damaged now
                with folder.writing(folder.picks_path(record.key)):
                    folder.picks_path(record.key).unlink(missing_ok=True)
                tables.add(None, record, "failed")
    results = _results(finished, totals, plan, cut, facts)
    summary = replace(results.summary, provisional=so_far is not None)
    if notes:
        summary = replace(summary, warnings=dict(sorted({**summary.warnings, **notes}.items())))
    content = {one.name: getattr(summary, one.name) for one in fields(summary)}
    with folder.writing_piecewise(folder.path / SUMMARY) as write:
        for piece in json.JSONEncoder(indent=1, ensure_ascii=False, default=asdict).iterencode(content):
            write(piece)
        write("\n")
    return replace(results, summary=summary)


def read_results(folder: RunFolder, plan: PickPlan, finished: Finished) -> RunResults:
    """What `write_results` would say of a run, writing nothing; a run that goes on is shown as far as it came.

    Warnings of the run itself, which no file but `summary.json` holds, are not among those of its summary.
    """
    cut = cut_of(folder, plan, finished.candidates)
    totals = _Totals(run_diameter(plan.picker, plan.survey))
    for record in finished.records:
        if record.is_done:
            chosen = at_threshold(folder.read_candidates(record), cut.threshold, belief=cut.belief_in(record.name))
            judged = _judged(MicrographResult(record=record, candidates=chosen), cut, plan)
            totals.add(judged, belief=cut.belief_in(record.name))
    return _results(finished, totals, plan, cut, read_facts(folder))


def _results(finished: Finished, totals: _Totals, plan: PickPlan, cut: Cut, facts: RunFacts) -> RunResults:
    processors = {record.processor for record in finished.records if record.processor}
    summary = replace(
        _summarize(finished, totals, plan, cut), **{**facts.as_fields(), "processors": tuple(sorted(processors))}
    )
    has_probabilities = gives_probabilities(plan.picker)
    return RunResults(
        summary=summary,
        micrographs=totals.micrographs,
        cut=replace(cut, right={}),
        candidates=finished.candidates,
        ruled_out=np.frombuffer(totals.ruled_out, np.float32),
        curve=curve_of_run(
            believed_scores(finished.candidates, cut.belief),
            (lambda scores: plan.picker.run_probabilities(scores, plan.seen)) if has_probabilities else None,
        ),
    )


def read_result(folder: RunFolder, totals: MicrographTotals, cut: Cut) -> MicrographResult:
    """A finished micrograph with its candidates at the run's threshold, read again."""
    record = totals.record
    candidates = at_threshold(folder.read_candidates(record), cut.threshold, belief=cut.belief_in(record.name))
    return MicrographResult(record=record, candidates=candidates, verdict=totals.verdict)


def _judged(result: MicrographResult, cut: Cut, plan: PickPlan) -> MicrographResult:
    verdict = verdict_of(
        result.candidates,
        cut,
        name=result.record.name,
        junk_share=result.record.junk_share,
        has_probabilities=gives_probabilities(plan.picker),
        contrast_doubt=plan.seen.contrast_doubt,
    )
    return replace(result, verdict=verdict)


def _is_good(result: MicrographResult) -> bool:
    return result.verdict is None or result.verdict.verdict == GOOD


def _names_in_particles(
    folder: RunFolder, plan: PickPlan, records: Sequence[Record], cut: Cut
) -> Callable[[Record], str]:
    """What `particles.star` calls a micrograph: its file, or where two of the listed ones share that, the whole name.

    Which are listed is known only where they are judged; those that share the name of their file are, beforehand.
    """
    sharing: dict[str, list[Record]] = {}
    for record in records:
        if record.is_done:
            sharing.setdefault(_file_name(record), []).append(record)

    def is_listed(record: Record) -> bool:
        if not plan.settings.run.drop_bad:
            return True
        candidates = at_threshold(folder.read_candidates(record), cut.threshold, belief=cut.belief_in(record.name))
        return _is_good(_judged(MicrographResult(record=record, candidates=candidates), cut, plan))

    several = (of_one_name for of_one_name in sharing.values() if len(of_one_name) > 1)
    is_unique = not any(sum(map(is_listed, of_one_name)) > 1 for of_one_name in several)
    return _file_name if is_unique else lambda record: record.name


def _file_name(record: Record) -> str:
    return PurePosixPath(record.name).name


@dataclass(frozen=True)
class _Tables:
    """The tables of a run while rows are added to them: each takes text."""

    place: str
    autopick: Callable[[str], object]
    particles: Callable[[str], object]
    micrographs: Callable[[str], object]

    def add(self, totals: MicrographTotals | None, record: Record, status: str) -> None:
        """A row of `micrographs.star`; without `totals` for one that is not finished."""
        mean_score = float("nan") if totals is None else totals.mean_score
        row: dict[str, Any] = {
            "rlnMicrographName": record.relion_name,
            "cryopickParticleCount": 0 if totals is None else totals.count,
            "cryopickCandidateCount": 0 if totals is None else totals.candidate_count,
            "cryopickMeanScore": round(mean_score, 6) if np.isfinite(mean_score) else NO_SCORE,
            "cryopickSeconds": round(record.seconds, 3),
            "cryopickStatus": status,
            **_verdict_columns(None if totals is None else totals.verdict),
            "cryopickWarnings": record.error or "; ".join(record.warnings) or "none",
        }
        columns = {label: [_one_line(row[label])] for label in MICROGRAPH_COLUMNS}
        self.micrographs(loop_rows(make_table("", columns).columns)[0])

    def add_picks(self, folder: RunFolder, record: Record, name: str, rows: Sequence[str]) -> None:
        """The rows of `autopick.star` and `particles.star`, in which the micrograph is called `name`."""
        file = PurePosixPath(self.place) / folder.picks_path(record.key).relative_to(folder.path)
        self.autopick(relion_list_rows([record.relion_name], [file.as_posix()])[0])
        self.particles("".join(relion_particle_rows(name, rows)))


@contextmanager
def _writing_tables(folder: RunFolder, place: str, *, has_rows: bool) -> Iterator[_Tables]:
    """The three tables, empty; each is renamed to its name when the block ends well."""
    heads = {
        AUTOPICK: RELION_LIST_HEAD,
        PARTICLES: RELION_PARTICLES_HEAD,
        MICROGRAPHS: loop_head(
            "micrographs", MICROGRAPH_COLUMNS if has_rows else MICROGRAPH_COLUMNS[:1], version=VERSION
        ),
    }
    with ExitStack() as stack:
        written = [stack.enter_context(folder.writing_piecewise(folder.path / name)) for name in heads]
        for write, head in zip(written, heads.values(), strict=True):
            write(head)
        yield _Tables(place, *written)
        for write in written:
            write(LOOP_END)


def _verdict_columns(verdict: Verdict | None) -> dict[str, Any]:
    shares = {
        "cryopickFilledShare": None if verdict is None else verdict.filled_share,
        "cryopickJunkShare": None if verdict is None else verdict.junk_share,
        "cryopickExpectedRight": None if verdict is None else verdict.expected_right,
    }
    return {
        **{name: NO_SCORE if share is None else share for name, share in shares.items()},
        "cryopickVerdict": "none" if verdict is None else verdict.verdict,
        "cryopickVerdictReason": (verdict.reason if verdict is not None else "") or "none",
    }


def _one_line(value: Any) -> Any:
    return " ".join(value.replace('"', "'").split()) if isinstance(value, str) else value


class _Totals:
    """Counts of a run, to which one micrograph after the other is added."""

    def __init__(self, diameter: Length | None) -> None:
        self.micrographs: list[MicrographTotals] = []
        self.diameter = diameter
        self.sizes = SizesSeen(diameter)
        self.centring = CentringSeen()
        self.rejected: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.ruled_out = array("f")  # grows without a copy of what is there

    def add(self, result: MicrographResult, *, belief: float) -> None:
        candidates = result.candidates
        self.ruled_out.frombytes((candidates.score[~is_open(candidates)] * np.float32(belief)).tobytes())
        self.sizes.add(candidates.kept())
        self.rejected.update(reason for reason in candidates.reason.tolist() if reason)
        self.warnings.update(result.record.warnings)
        self.centring.add(
            result.record.least_centring_error_px,
            pixel_size_angstrom=result.record.pixel_size_angstrom,
            picks=result.count,
        )
        self.micrographs.append(result.totals())


def _summarize(finished: Finished, totals: _Totals, plan: PickPlan, cut: Cut) -> RunSummary:
    from cryopick.version import __version__

    picker, results = plan.picker, totals.micrographs
    sizes = totals.sizes.sizes()
    commonest = max(sizes, key=lambda size: (size.pixel_size_angstrom is not None, size.micrographs))
    expected = expected_of(picker, finished.candidates, cut, plan.seen)
    least_error_px = totals.centring.errors_px(commonest.pixel_size_angstrom)
    warnings = Counter(totals.warnings)
    for doubt in (doubt_of_sizes(sizes, totals.diameter), *plan.seen.doubts):
        if doubt:
            warnings[doubt] = len(results)
    return RunSummary(
        cryopick_version=__version__,
        picker=picker.name,
        micrographs=len(finished.records),
        failed={record.name: record.error for record in finished.records if record.error},
        particles=sum(one.count for one in results),
        candidates=sum(one.candidate_count for one in results),
        rejected=dict(sorted(totals.rejected.items())),
        threshold=cut.threshold,
        threshold_source=cut.source,
        score_meaning=picker.score_meaning,
        expected_precision=None if expected is None else float(share_decimal(expected.precision, 4)),
        expected_precision_low=None if expected is None else float(share_decimal(expected.low, 4)),
        expected_precision_high=None if expected is None else float(share_decimal(expected.high, 4)),
        expected_recall=None if expected is None else float(share_decimal(expected.recall, 4)),
        prepared=plan.seen.sentence,
        diameter_px=commonest.diameter_px,
        diameter_angstrom=commonest.diameter_angstrom,
        pixel_size_angstrom=commonest.pixel_size_angstrom,
        box_px=commonest.box_px,
        binned_box_px=commonest.binned_box_px,
        binned_pixel_size_angstrom=commonest.binned_pixel_size_angstrom,
        seconds=round(sum(record.seconds for record in finished.records), 2),
        warnings=dict(sorted(warnings.items())),
        sizes=sizes if results else (),
        score_is_probability=gives_probabilities(picker),
        verdicts={one.record.name: one.verdict for one in results if one.verdict is not None},
        best_score=best_score(finished.candidates.values()),
        expected_doubt="" if expected is None else expected.doubt,
        least_centring_error_px=least_error_px,
        least_centring_error_angstrom=in_angstrom(least_error_px, commonest.pixel_size_angstrom),
        box_doubt=box_doubt(sizes, plan.seen),
    )


def why_nothing_is_kept(summary: RunSummary) -> str:
    """A sentence on a run that keeps no particle: what became of its candidates."""
    if not summary.candidates:
        return "no particle is kept: the picker found nothing that looks like one"
    reasons = sorted(summary.rejected.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    text = f"no particle is kept at a threshold of {summary.threshold:.4g}: of {summary.candidates:,} candidates {told}"
    return f"{text}; {what_would_keep_some(summary.best_score, summary.score_meaning)}" if summary.best_score else text


def warn_of_lost_records(path: Path, n_records: int, summary: Mapping[str, Any] | None = None) -> None:
    """Say so where the tables of a run folder are of more micrographs than it has records of, finished or failed.

    `summary` is that of the folder, where it was read already.
    """
    try:
        of_tables = (read_summary(path) if summary is None else summary).get("micrographs")
    except RunFolderError:  # missing or damaged: told by whoever needs it
        return
    if isinstance(of_tables, int) and of_tables > n_records:
        _logger.warning(
            "%s: its tables are of %d micrographs and %d of their records are there, so the picks of the others are "
            "not used; run the same `cryopick pick` command again to have them picked again",
            *(path, of_tables, n_records),
        )


def read_summary(path: Path) -> dict[str, Any]:
    """`summary.json` of a run folder.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    file = path / SUMMARY
    try:
        content = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
        threshold, failed = content["threshold"], content.get("failed", {})
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(float(threshold)):
            raise ValueError(f"threshold is {str(threshold)[:60]}")
        if not isinstance(failed, dict):
            raise ValueError(f"failed is {str(failed)[:60]}")
        verdicts = content.get("verdicts", {})
        if not isinstance(verdicts, dict):
            raise ValueError(f"verdicts is {str(verdicts)[:60]}")
        for name, verdict in verdicts.items():
            belief = verdict.get("belief", 1.0)
            if isinstance(belief, bool) or not isinstance(belief, int | float) or not 0 <= belief <= 1:
                raise ValueError(f"belief in {name[:60]} is {str(belief)[:60]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunFolderError(
            f"{file}: expected the summary of a run ({str(error)[:200]}); run the same `cryopick pick` command again, "
            "which writes it again and picks nothing that is finished"
        ) from error
    return dict(content)
