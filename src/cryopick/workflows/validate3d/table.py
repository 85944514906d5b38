"""The table of a validation, as the papers print theirs: a row a run and selection; seeds as mean and best."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cryopick.evaluation.report import markdown_table

COLUMNS = (
    "run",
    "selection",
    "given",
    "duplicates",
    "at border",
    "N",
    "N selected",
    "precision",
    "recall",
    "expected yield",
    "yield",
    "success",
    "half .143",
    "truth .5",
    "counted mean",
    "CPU s",
)
_ALWAYS = ("run", "selection", "N", "success", "half .143")


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """What one start came to.

    Parameters
    ----------
    failure : why there is no map, in words; "" where there is one
    is_right : the map is right as far as can be told; see `measure.SUCCESS_FSC`
    half_angstrom, truth_angstrom : None without a map, or where the curve is below its threshold from the start
    yield_share : of the perfect picks' SSNR; None where there is no yardstick
    evenness : of the viewing directions relative to the true picks', 1 as even as they; None where unknown
    """

    seed: int
    failure: str = ""
    is_right: bool = False
    half_angstrom: float | None = None
    truth_angstrom: float | None = None
    yield_share: float | None = None
    score: float | None = None
    mirrored: bool | None = None
    evenness: float | None = None
    cpu_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run under one selection.

    Parameters
    ----------
    given, duplicates, at_border, left_out : picks, and those of them that were dropped, by reason
    particles : extracted; `selected` of them went into the map
    true_particles : of the selected, where the truth is known
    precision, recall : of the selected
    expected_yield : precision x recall, what the yield is if false and missed picks do no other harm
    nyquist_angstrom : finest detail that the pixels hold
    penalty_angstrom : what a failed map counts with in `counted_mean`
    """

    run: str
    selection: str
    given: int
    duplicates: int
    at_border: int
    left_out: int
    particles: int
    selected: int
    true_particles: int | None
    precision: float | None
    recall: float | None
    expected_yield: float | None
    seeds: tuple[SeedResult, ...]
    nyquist_angstrom: float
    penalty_angstrom: float | None = None

    @property
    def right(self) -> list[SeedResult]:
        """The starts that gave a right map."""
        return [one for one in self.seeds if one.is_right]

    @property
    def success(self) -> str:
        """Right starts of all starts."""
        return f"{len(self.right)}/{len(self.seeds)}"

    def mean(self, name: str) -> float | None:
        """Mean of a figure over the right starts; over all that gave one where none is right."""
        values = [value for one in self.right or self.seeds if (value := getattr(one, name)) is not None]
        return float(np.mean(values)) if values else None

    def best(self, name: str) -> float | None:
        """Smallest of a resolution over the starts that are right, or over all where none is."""
        values = [value for one in self.right or self.seeds if (value := getattr(one, name)) is not None]
        return float(min(values)) if values else None

    @property
    def headline(self) -> str:
        """Which resolution counts: against the truth where it is known."""
        return "truth_angstrom" if any(one.truth_angstrom is not None for one in self.seeds) else "half_angstrom"

    @property
    def counted_mean(self) -> float | None:
        """Mean resolution over all starts, failed ones with the penalty (Cryo-EMMAE, Table 2)."""
        values = []
        for one in self.seeds:
            value = getattr(one, self.headline) if one.is_right else self.penalty_angstrom
            if value is None:
                return None
            values.append(value)
        return float(np.mean(values))


def cells(row: Row) -> tuple[str, ...]:
    """The row as texts, in the order of `COLUMNS`."""
    nyquist = row.nyquist_angstrom
    return (
        row.run,
        row.selection,
        f"{row.given:,}",
        f"{row.duplicates:,}",
        f"{row.at_border:,}",
        f"{row.particles:,}",
        f"{row.selected:,}",
        share(row.precision),
        share(row.recall),
        share(row.expected_yield),
        share(row.mean("yield_share")),
        row.success,
        _mean_and_best(row, "half_angstrom"),
        _mean_and_best(row, "truth_angstrom"),
        angstrom(row.counted_mean, nyquist),
        f"{sum(one.cpu_seconds for one in row.seeds):.0f}",
    )


def _mean_and_best(row: Row, name: str) -> str:
    mean = angstrom(row.mean(name), row.nyquist_angstrom)
    return mean if len(row.seeds) == 1 else f"{mean} ({angstrom(row.best(name), row.nyquist_angstrom)})"


def share(value: float | None) -> str:
    """A share of 1 with two digits; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def angstrom(value: float | None, nyquist_angstrom: float) -> str:
    """A resolution in Å; "<=" where it is the pixels that end it."""
    if value is None:
        return "-"
    return f"<= {nyquist_angstrom:.1f}" if value <= nyquist_angstrom * (1 + 1e-6) else f"{value:.1f}"


def shown_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns that say something, and every row's texts in them."""
    every = [cells(row) for row in rows]
    shown = [
        k
        for k, name in enumerate(COLUMNS)
        if name in _ALWAYS or any(row[k] not in ("-", "- (-)", "0") for row in every)
    ]
    return tuple(COLUMNS[k] for k in shown), [tuple(row[k] for k in shown) for row in every]


def table_text(rows: Sequence[Row]) -> str:
    """The table in Markdown, without columns that say nothing."""
    columns, every = shown_cells(rows)
    return markdown_table(list(columns), [list(row) for row in every])


def table_csv(rows: Sequence[Row]) -> str:
    """One row a run, selection and seed, plain numbers; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of_row = [
        "run", "selection", "given", "duplicates", "at_border", "left_out", "particles", "selected", "true_particles",
        "precision", "recall", "expected_yield", "nyquist_angstrom", "penalty_angstrom",
    ]  # fmt: skip
    of_seed = [
        "seed", "failure", "is_right", "half_angstrom", "truth_angstrom", "yield_share", "score", "mirrored",
        "evenness", "cpu_seconds",
    ]  # fmt: skip
    writer.writerow([*of_row, *of_seed])
    for row in rows:
        for one in row.seeds:
            values = [getattr(row, name) for name in of_row] + [getattr(one, name) for name in of_seed]
            writer.writerow(["" if value is None else _plain(value) for value in values])
    return text.getvalue()


def _plain(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON takes them, with their means."""
    found = []
    for row in rows:
        content = asdict(row)
        content["success"] = row.success
        for name in ("half_angstrom", "truth_angstrom"):
            content[f"{name}_mean"], content[f"{name}_best"] = row.mean(name), row.best(name)
        content["yield_mean"], content["counted_mean_angstrom"] = row.mean("yield_share"), row.counted_mean
        found.append({key: _finite(value) for key, value in content.items()})
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sentences(rows: Sequence[Row], flags: Sequence[str]) -> list[str]:
    """What the table says, in words, the flags first."""
    found = list(flags)
    by_run: Mapping[str, Row] = {row.run: row for row in reversed(rows)}  # of several selections the first
    with_yield = sorted(
        ((value, row.run) for row in by_run.values() if (value := row.mean("yield_share")) is not None), reverse=True
    )
    for value, run in with_yield:
        if run != "truth":
            found.append(f"{run} is worth {100 * value:.0f} % of the perfect picks")
    for row in rows:
        failed = [one for one in row.seeds if not one.is_right]
        if failed:
            why = next((one.failure for one in failed if one.failure), "the map is not right, or no two starts agree")
            found.append(
                f"{row.run} ({row.selection}): {len(failed)} of {len(row.seeds)} reconstructions failed: {why}"
            )
    halves = [(row.mean("half_angstrom"), row.run) for row in by_run.values() if row.right]
    known = [(value, run) for value, run in halves if value is not None]
    if len(known) > 1 and with_yield:
        low, high = min(known), max(known)
        if high[0] / low[0] < _SAME_RESOLUTION and len({run for _, run in known}) > 1:
            found.append(
                f"half maps alone hardly tell them apart: {low[0]:.1f} Å ({low[1]}) to {high[0]:.1f} Å ({high[1]})"
            )
    for row in by_run.values():
        if row.duplicates > _MANY_DUPLICATES * max(1, row.given):
            found.append(
                f"{row.run} picked {row.duplicates:,} of its {row.given:,} particles twice; the second ones were left "
                "out, since they make half maps agree without a better map"
            )
    return found


_SAME_RESOLUTION = 1.05
_MANY_DUPLICATES = 0.05
