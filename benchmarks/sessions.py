"""Whole simulated sessions, most of whose micrographs hold nothing: what pickers make of them, and say of it.

    python benchmarks/sessions.py --sessions judge --workers 2
    python benchmarks/sessions.py --sessions choose --pickers general --levels medium --proteins 0 1

Sessions of `cryopick.simulation.suite.suite_sessions`: constants are chosen on `choose`; `judge` is for judging alone.
Of each the table tells, with the diameter given and measured: false picks per micrograph without a particle, F1 on the
filled ones and that of a run of the filled ones alone, the precision that the picker expects and the one observed. What
is in the file already is not measured again; `--again` does so. Writes sessions.json and sessions.md.

Arrangements: `mostly-empty` (one full, one sparse, three empty), `lone` (one full, 20 empty), `mixed` (one of each
kind); the last two at the level `medium` only.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.metrics.detection import pooled
from cryopick.pickers.protocol import gives_probabilities
from cryopick.pickers.registry import list_pickers, make_picker
from cryopick.runs.in_memory import PickedInMemory, pick_in_memory
from cryopick.simulation.micrograph import SimulatedMicrograph
from cryopick.simulation.session import KINDS
from cryopick.simulation.suite import SESSION_SEEDS, SNR_OF_LEVEL, SuiteSession, suite_sessions
from cryopick.types import Picks
from cryopick.workflows.evaluate import evaluate
from score_summary import simulated_labels

PICKERS = ("general", "cryotransformer", "cryosegnet", "segmentation-crf", "cryoemmae")
ARRANGEMENTS = ("mostly-empty", "lone", "mixed")
LEVEL_OF_SPECIAL = "medium"
"""Of the arrangements `lone` and `mixed`."""
HOWS = ("given", "measured")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", default="judge", choices=list(SESSION_SEEDS))
    parser.add_argument("--pickers", nargs="+", default=["general"], choices=list_pickers())
    parser.add_argument("--arrangements", nargs="+", default=list(ARRANGEMENTS), choices=ARRANGEMENTS)
    parser.add_argument("--levels", nargs="+", default=list(SNR_OF_LEVEL), choices=list(SNR_OF_LEVEL))
    parser.add_argument("--proteins", nargs="+", type=int, default=list(range(8)), help="numbers from 0 to 7")
    parser.add_argument("--workers", type=int, default=1, help="processes, a session each")
    parser.add_argument("--again", action="store_true", help="measure what is in the file already as well")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "sessions.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    tasks = []
    for session in chosen_sessions(args):
        done = found.get(session.purpose, {}).get(session.name, {})
        missing = [name for name in args.pickers if args.again or name not in done]
        if missing:
            tasks.append((session, missing))
    for session, entries in results(tasks, workers=args.workers):
        found.setdefault(session.purpose, {}).setdefault(session.name, {}).update(entries)
        found["machine"] = str(describe_machine())
        # after every session, so that an interrupted measurement keeps what it has
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        (args.output / "sessions.md").write_text(as_markdown(found))
        for name, entry in entries.items():
            print(f"{session.name}: {name}: " + "; ".join(in_short(how, entry[how]) for how in HOWS), flush=True)
    print(as_markdown(found))


def chosen_sessions(args: argparse.Namespace) -> list[SuiteSession]:
    special = [level for level in args.levels if level == LEVEL_OF_SPECIAL]
    sessions = []
    for arrangement in args.arrangements:
        levels = args.levels if arrangement == "mostly-empty" else special
        sessions += suite_sessions(args.sessions, levels=levels, arrangements=[arrangement])
    return [one for one in sessions if one.number in args.proteins]


def results(tasks: Sequence[tuple[SuiteSession, list[str]]], *, workers: int) -> Any:
    """(session, entries by picker) of each task, as they are finished."""
    if workers == 1:
        for session, names in tasks:
            yield session, measure(session, names)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(measure, session, names): session for session, names in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()


# ------------------------------------------------------------------------------------------------------- measuring


def measure(session: SuiteSession, pickers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """One session with several pickers, the diameter given and measured."""
    simulated = list(session.micrographs())
    angstrom = session.protein.diameter_angstrom
    truth = Length(angstrom, angstrom, "A")
    filled = [one for one in simulated if KINDS[one.kind].has_particles]
    found: dict[str, dict[str, Any]] = {}
    for name in pickers:
        entry: dict[str, Any] = {}
        for how in HOWS:
            picker = make_picker(name, diameter=truth if how == "given" else None)
            start = time.process_time()
            together = pick_in_memory(picker, [one.micrograph for one in simulated])
            seconds = time.process_time() - start
            alone = pick_in_memory(picker, [one.micrograph for one in filled])
            entry[how] = {
                **summary(picker, together, simulated, diameter=truth),
                "f1_filled_alone": f1_of(alone.picks, filled, diameter=truth),
                "core_seconds": seconds,
            }
        found[name] = entry
    return found


def summary(
    picker: Any, found: PickedInMemory, simulated: Sequence[SimulatedMicrograph], *, diameter: Length
) -> dict[str, Any]:
    """What came out of a run over a whole session.

    Returns
    -------
    false_picks_on_empty : of each micrograph without particles, with its kind
    f1_by_kind : of each kind with particles
    f1_filled : of all micrographs with particles, pooled
    precision : of all kept picks of the session
    expected_precision, expected_low, expected_high : as the picker tells, with its range; None where it tells none
    measured_over_true_diameter : None where it was given, or nothing was measured
    """
    picks = {one.micrograph_name: one for one in found.picks}
    without = [one for one in simulated if not KINDS[one.kind].has_particles]
    filled = [one for one in simulated if KINDS[one.kind].has_particles]
    by_kind = defaultdict(list)
    for one in filled:
        if one.is_pickable.any():
            by_kind[one.kind].append(one)
    evaluation = evaluate(
        found.picks, {one.micrograph.name: simulated_labels(one) for one in simulated}, diameter=diameter
    )
    size, true_px = found.survey.particle_size, diameter.middle_px(simulated[0].micrograph.pixel_size_angstrom)
    ratio = None if size is None else size.middle_px(simulated[0].micrograph.pixel_size_angstrom) / true_px
    counts = evaluation.main.counts
    judged = counts.true_positive + counts.false_positive
    return {
        "false_picks_on_empty": [[one.kind, int(picks[one.micrograph.name].is_kept.sum())] for one in without],
        "f1_filled": f1_of(found.picks, filled, diameter=diameter),
        "f1_by_kind": {kind: f1_of(found.picks, ones, diameter=diameter) for kind, ones in by_kind.items()},
        "kept": int(sum(one.is_kept.sum() for one in found.picks)),
        "right": counts.true_positive,
        "judged": judged,
        "precision": counts.true_positive / judged if judged else None,
        **expected_precision(picker, found),
        "measured_over_true_diameter": None if picker.diameter is not None else ratio,
    }


def f1_of(picks: Sequence[Picks], simulated: Sequence[SimulatedMicrograph], *, diameter: Length) -> float:
    """F1 over some micrographs of a run, pooled; those without picks count with all particles missed."""
    labels = {one.micrograph.name: simulated_labels(one) for one in simulated}
    chosen = [one for one in picks if one.micrograph_name in labels]
    return pooled(one.counts for one in evaluate(chosen, labels, diameter=diameter).main.micrographs).f1


def expected_precision(picker: Any, found: PickedInMemory) -> dict[str, float | None]:
    """What the picker expects of its kept picks, and its range; 1 where it keeps nothing.

    None where it gives no probabilities.
    """
    names = ("expected_precision", "expected_low", "expected_high")
    if not gives_probabilities(picker):
        return dict.fromkeys(names)
    if found.expected is None:
        return dict.fromkeys(names, 1.0)
    return dict(zip(names, (found.expected.precision, found.expected.low, found.expected.high), strict=True))


# --------------------------------------------------------------------------------------------------------- writing


def false_per_empty(entry: Mapping[str, Any]) -> float:
    """Mean over the micrographs without particles of one session."""
    return float(np.mean([count for _, count in entry["false_picks_on_empty"]]))


def precision_gap(entry: Mapping[str, Any]) -> float:
    """Expected less observed precision; NaN where one of them is unknown."""
    expected, observed = entry["expected_precision"], entry["precision"]
    return float("nan") if expected is None or observed is None else expected - observed


def in_short(how: str, entry: Mapping[str, Any]) -> str:
    return (
        f"{how} {false_per_empty(entry):.1f} false per empty, F1 {entry['f1_filled']:.3f} "
        f"(alone {entry['f1_filled_alone']:.3f})"
    )


def as_markdown(found: Mapping[str, Any]) -> str:
    lines = [
        "# Sessions",
        "",
        "Made by `python benchmarks/sessions.py`; simulated, see `cryopick.simulation.suite`.",
        "",
    ]
    for purpose in SESSION_SEEDS:
        if purpose in found:
            words = "constants were chosen here" if purpose == "choose" else "nothing was chosen here"
            lines += [f"## Sessions to {purpose} ({words})", ""]
            for arrangement in ARRANGEMENTS:
                lines += _tables(found[purpose], arrangement)
    if "machine" in found:
        lines += [f"Machine: {found['machine']}"]
    return "\n".join(lines) + "\n"


def _tables(sessions: Mapping[str, Any], arrangement: str) -> list[str]:
    chosen = {name: entry for name, entry in sessions.items() if name.endswith(f"-{arrangement}")}
    pickers = [name for name in PICKERS if any(name in entry for entry in chosen.values())]
    pickers += sorted({name for entry in chosen.values() for name in entry} - set(pickers))
    if not chosen:
        return []
    lines = [
        f"### {arrangement}",
        "",
        "| picker | diameter | sessions | false picks per empty, mean | worst session | F1 filled | filled alone | "
        "largest loss | smallest share kept | precision | expected | pooled gap | worst gap | in the range | "
        "core s per session |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for picker in pickers:
        for how in HOWS:
            lines.append(_row(picker, how, [entry[picker][how] for entry in chosen.values() if picker in entry]))
    lines.append("")
    if arrangement == "mixed":
        lines += _kinds_table(chosen, pickers)
    for picker in pickers:
        lines += [
            f"{picker}, {arrangement}:",
            "",
            "| session | diameter | false picks per empty | F1 filled | filled alone | precision | expected | range | "
            "measured / true diameter |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, entry in chosen.items():
            for how in HOWS if picker in entry else ():
                one = entry[picker][how]
                columns = [name, how, f"{false_per_empty(one):.1f}", _number(one["f1_filled"])]
                columns += [_number(one["f1_filled_alone"]), _number(one["precision"])]
                columns += [
                    _number(one["expected_precision"]),
                    _range(one),
                    _number(one["measured_over_true_diameter"]),
                ]
                lines.append("| " + " | ".join(columns) + " |")
        lines.append("")
    return lines


def _within(entries: Sequence[Mapping[str, Any]]) -> str:
    """In how many sessions the precision that was observed lies in the expected range, and how wide that is."""
    known = [one for one in entries if one.get("expected_low") is not None]
    if not known:
        return ""
    within = sum(one["expected_low"] <= one["precision"] <= one["expected_high"] for one in known)
    width = np.mean([one["expected_high"] - one["expected_low"] for one in known])
    return f"{within} of {len(known)}, width {width:.3f}"


def _range(entry: Mapping[str, Any]) -> str:
    if entry.get("expected_low") is None:
        return ""
    return f"{_number(entry['expected_low'])} to {_number(entry['expected_high'])}"


def _row(picker: str, how: str, entries: Sequence[Mapping[str, Any]]) -> str:
    false = [false_per_empty(one) for one in entries]
    right, judged = (sum(one[name] for one in entries) for name in ("right", "judged"))
    observed = right / judged if judged else float("nan")
    told = [one for one in entries if one["expected_precision"] is not None]
    kept = sum(one["kept"] for one in told)
    expected = sum(one["expected_precision"] * one["kept"] for one in told) / kept if kept else float("nan")
    gaps = [abs(precision_gap(one)) for one in told if one["precision"] is not None]
    columns = [picker, how, str(len(entries)), f"{np.mean(false):.2f}", f"{max(false):.1f}"]
    columns += [_number(float(np.mean([one["f1_filled"] for one in entries])))]
    columns += [_number(float(np.mean([one["f1_filled_alone"] for one in entries])))]
    columns += [_number(max(one["f1_filled_alone"] - one["f1_filled"] for one in entries))]
    shares = [one["f1_filled"] / one["f1_filled_alone"] for one in entries if one["f1_filled_alone"] > 0]
    columns += [_number(min(shares, default=None))]
    columns += [_number(observed), _number(expected), _number(expected - observed)]
    columns += [_number(max(gaps, default=float("nan")))]
    columns += [_within([one for one in told if one["precision"] is not None])]
    columns += [f"{np.mean([one['core_seconds'] for one in entries]):.0f}"]
    return "| " + " | ".join(columns) + " |"


def _kinds_table(sessions: Mapping[str, Any], pickers: Sequence[str]) -> list[str]:
    lines = ["False picks per micrograph of kinds without particles, F1 of those with:", ""]
    lines += ["| picker | diameter | " + " | ".join(KINDS) + " |", "| --- | --- |" + " --- |" * len(KINDS)]
    for picker in pickers:
        for how in HOWS:
            entries = [entry[picker][how] for entry in sessions.values() if picker in entry]
            columns = []
            for name, kind in KINDS.items():
                if kind.has_particles:
                    values = [one["f1_by_kind"][name] for one in entries if name in one["f1_by_kind"]]
                    columns.append(_number(float(np.nanmean(values)) if values else None))
                else:
                    counts = [n for one in entries for what, n in one["false_picks_on_empty"] if what == name]
                    columns.append(f"{np.mean(counts):.1f}" if counts else "")
            lines.append(f"| {picker} | {how} | " + " | ".join(columns) + " |")
    return [*lines, ""]


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.3f}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
