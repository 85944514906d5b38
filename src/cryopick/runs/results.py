"""The tables at the top of a run folder, made from its per-micrograph files for one threshold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cryopick.errors import RunFolderError
from cryopick.geometry.units import share_decimal, share_range_text
from cryopick.io.coordinates.relion import (
    NO_SCORE,
    VERSION,
    relion_list_text,
    relion_micrograph_text,
    relion_particles_text,
)
from cryopick.io.star import make_table, star_text
from cryopick.pickers.protocol import gives_probabilities
from cryopick.runs.expected import expected_of
from cryopick.runs.facts import RunFacts
from cryopick.runs.folder import AUTOPICK, MICROGRAPHS, PARTICLES, RECORDS, SUMMARY, DamagedError, RunFolder
from cryopick.runs.place import settle_place
from cryopick.runs.record import Record
from cryopick.runs.settings import PickPlan
from cryopick.runs.sizes import SizesAtPixelSize, box_doubt, doubt_of_sizes, run_diameter, sizes_of_run
from cryopick.runs.threshold import Cut, at_threshold, best_score, cut_of, what_would_keep_some
from cryopick.runs.verdicts import GOOD, Verdict, verdict_of
from cryopick.types import Picks


@dataclass(frozen=True, kw_only=True)
class MicrographResult:
    """One finished micrograph at the run's threshold."""

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


def write_picks(
    folder: RunFolder, record: Record, candidates: Picks, cut: Cut, *, is_durable: bool = False
) -> MicrographResult:
    """Write the coordinate file of one micrograph."""
    chosen = at_threshold(candidates, cut.threshold, belief=cut.belief_in(record.name))
    result = MicrographResult(record=record, candidates=chosen)
    text = relion_micrograph_text(result.candidates.kept())
    folder.write(folder.picks_path(record.key), text, is_durable=is_durable)
    return result


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Everything that a run folder holds of its micrographs.

    Parameters
    ----------
    records : of every micrograph; one whose files are damaged is failed, and its error says what is damaged
    candidates : by name, of those that are done
    damaged : what is wrong with records that cannot be read, by key, and with tables of candidates, by name
    """

    records: list[Record]
    candidates: dict[str, Picks]
    damaged: dict[str, str]


def read_finished(folder: RunFolder, *, known: Mapping[str, Picks] | None = None) -> Finished:
    """Read all records and candidates of a run, whether damaged or not.

    Parameters
    ----------
    known : candidates as they stand in the folder, by name, which need not be read
    """
    known = known or {}
    records, unreadable = folder.read_records()
    damaged = {key: f"{folder.path / RECORDS / key}.json ({reason})" for key, reason in unreadable.items()}
    candidates: dict[str, Picks] = {}
    for position, record in enumerate(records):
        if record.is_done:
            try:
                one = known.get(record.name)
                candidates[record.name] = folder.read_candidates(record) if one is None else one
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
) -> tuple[RunSummary, list[MicrographResult]]:
    """Write every table of a run from its per-micrograph files.

    Parameters
    ----------
    facts : where, when and with what it was picked, for the summary
    notes : warnings about the run itself, and for how many micrographs each holds; they join those of the summary
    status : of micrographs that are not simply done or failed, by name, for `micrographs.star`
    so_far : the cut in force, of a run that goes on, which makes everything provisional; None chooses the cut
    """
    place = settle_place(folder, finished.records)
    cut = cut_of(folder, plan, finished.candidates) if so_far is None else replace(so_far, right={})
    results = [
        _judged(write_picks(folder, record, finished.candidates[record.name], cut), cut, plan)
        for record in finished.records
        if record.is_done
    ]
    for record in finished.records:
        if not record.is_done:  # picks of an earlier image, or of a table that is damaged now
            with folder.writing(folder.picks_path(record.key)):
                folder.picks_path(record.key).unlink(missing_ok=True)
    told = [one for one in results if _is_good(one)] if plan.settings.run.drop_bad else results
    _write_list(folder, told, place)
    _write_particles(folder, told)
    _write_micrographs(folder, finished.records, results, status or {})
    summary = replace(_summarize(finished.records, results, plan, cut), provisional=so_far is not None)
    processors = {record.processor for record in finished.records if record.processor}
    summary = replace(summary, **{**facts.as_fields(), "processors": tuple(sorted(processors))})
    if notes:
        summary = replace(summary, warnings=dict(sorted({**summary.warnings, **notes}.items())))
    folder.write(folder.path / SUMMARY, json.dumps(asdict(summary), indent=1, ensure_ascii=False) + "\n")
    return summary, results


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


def _write_list(folder: RunFolder, results: list[MicrographResult], place: str) -> None:
    files = [folder.picks_path(result.record.key).relative_to(folder.path) for result in results]
    text = relion_list_text(
        [result.record.relion_name for result in results], [(PurePosixPath(place) / file).as_posix() for file in files]
    )
    folder.write(folder.path / AUTOPICK, text)


def _write_particles(folder: RunFolder, results: list[MicrographResult]) -> None:
    base_names = [PurePosixPath(result.record.name).name for result in results]
    is_unique = len(set(base_names)) == len(base_names)
    picks = [
        replace(result.candidates.kept(), micrograph_name=base if is_unique else result.record.name)
        for result, base in zip(results, base_names, strict=True)
    ]
    folder.write(folder.path / PARTICLES, relion_particles_text(picks))


def _write_micrographs(
    folder: RunFolder, records: list[Record], results: list[MicrographResult], status: Mapping[str, str]
) -> None:
    result_of = {result.record.name: result for result in results}
    rows: list[dict[str, Any]] = []
    for record in records:
        result = result_of.get(record.name)
        mean_score = float("nan") if result is None else result.mean_score
        rows.append(
            {
                "rlnMicrographName": record.relion_name,
                "cryopickParticleCount": 0 if result is None else result.count,
                "cryopickCandidateCount": 0 if result is None else len(result.candidates),
                "cryopickMeanScore": round(mean_score, 6) if np.isfinite(mean_score) else NO_SCORE,
                "cryopickSeconds": round(record.seconds, 3),
                "cryopickStatus": "failed" if record.error else status.get(record.name, "done"),
                **_verdict_columns(None if result is None else result.verdict),
                "cryopickWarnings": record.error or "; ".join(record.warnings) or "none",
            }
        )
    columns = {
        label: [_one_line(row[label]) for row in rows] for label in (rows[0] if rows else ("rlnMicrographName",))
    }
    folder.write(folder.path / MICROGRAPHS, star_text([make_table("micrographs", columns)], version=VERSION))


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


def _summarize(records: list[Record], results: list[MicrographResult], plan: PickPlan, cut: Cut) -> RunSummary:
    from cryopick.version import __version__

    kept = [result.candidates.kept() for result in results]
    picker = plan.picker
    diameter = run_diameter(picker, plan.survey)
    sizes = sizes_of_run(kept, diameter)
    commonest = max(sizes, key=lambda size: (size.pixel_size_angstrom is not None, size.micrographs))
    expected = expected_of(picker, {one.record.name: one.candidates for one in results}, cut, plan.seen)
    reasons = Counter(reason for result in results for reason in result.candidates.reason.tolist() if reason)
    warnings = Counter(warning for result in results for warning in result.record.warnings)
    for doubt in (doubt_of_sizes(sizes, diameter), *plan.seen.doubts):
        if doubt:
            warnings[doubt] = len(results)
    return RunSummary(
        cryopick_version=__version__,
        picker=picker.name,
        micrographs=len(records),
        failed={record.name: record.error for record in records if record.error},
        particles=sum(len(picks) for picks in kept),
        candidates=sum(len(result.candidates) for result in results),
        rejected=dict(sorted(reasons.items())),
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
        seconds=round(sum(record.seconds for record in records), 2),
        warnings=dict(sorted(warnings.items())),
        sizes=sizes if results else (),
        score_is_probability=gives_probabilities(picker),
        verdicts={result.record.name: result.verdict for result in results if result.verdict is not None},
        best_score=best_score([result.candidates for result in results]),
        expected_doubt="" if expected is None else expected.doubt,
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
