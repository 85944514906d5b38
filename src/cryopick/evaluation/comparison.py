"""What several sets of picks have in common: who agrees with whom, what only one has, and whether the frames agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, SettingsError
from cryopick.evaluation.report import markdown_table
from cryopick.evaluation.scored_sets import PickedSet, some_names
from cryopick.geometry.cliques import ABSENT, Groups, group_points
from cryopick.geometry.units import Length, share_text
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.files.atomic import write_bytes_atomic, write_text_atomic
from cryopick.metrics.agreement import PickedPair, Placement, offsets, placement
from cryopick.pages.parts import Histogram, Picture, Table, histogram_of
from cryopick.pages.render import render
from cryopick.types import Picks

_TOLD = {
    "flip_y": "counts y from the other end than",
    "flip_x": "counts x from the other end than",
    "transpose": "has x and y exchanged against",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class CommonMicrograph:
    """One micrograph that every set has: the kept picks of each.

    Parameters
    ----------
    picks : one a set, in their order; empty where a set has none there
    """

    name: str
    picks: tuple[Picks, ...]
    diameter_px: float
    shape_yx: tuple[int, int] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparedMicrograph(CommonMicrograph):
    """Also which of the picks mean the same particle."""

    groups: Groups


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Several sets of picks of the same micrographs, compared.

    Parameters
    ----------
    names : of the sets
    micrographs : those that every set has
    agreement : (k, k) share of the row's picks that the column's set has too, one-to-one within the tolerance; 1 in
        the diagonal; NaN for a set without picks
    distances : by two names, (n,) between paired picks, in diameters
    placements : by two names, how the second lies on the first; None where too few coincide to tell
    shared : by the names of those that have it, how many particles
    tolerance : in diameters
    notes : sentences for the user
    """

    names: tuple[str, ...]
    micrographs: tuple[ComparedMicrograph, ...]
    agreement: NDArray[np.float64]
    distances: Mapping[tuple[str, str], NDArray[np.float64]]
    placements: Mapping[tuple[str, str], Placement | None]
    shared: Mapping[tuple[str, ...], int]
    tolerance: float
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Picks of each set on the compared micrographs."""
        return {name: sum(len(one.picks[index]) for one in self.micrographs) for index, name in enumerate(self.names)}

    @property
    def doubts(self) -> list[str]:
        """A sentence for each two sets whose frames differ."""
        return _doubts(self.placements, self.micrographs)


def compare_sets(
    sets: Mapping[str, PickedSet],
    *,
    shapes_yx: Mapping[str, tuple[int, int]] | None = None,
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    tolerance: float = 0.25,
) -> Comparison:
    """Compare the kept picks of several sets, on the micrographs that all of them have.

    Parameters
    ----------
    sets : by the name that each is to have
    shapes_yx : sizes of micrographs by the first set's names, for mirrored picks where no set says them
    diameter : of the particles; None takes the median of those that the sets' picks have
    pixel_size_angstrom : Å per px, for a diameter in Å where no set says
    tolerance : largest distance of two picks of one particle, in diameters

    Raises
    ------
    InputError
        If the sets have no micrograph in common, or there are fewer than two.
    SettingsError
        If no diameter is known.
    """
    if len(sets) < 2:
        raise InputError(f"expected two sets of picks or more, got {len(sets)}")
    if not 0 < tolerance <= 1:
        raise SettingsError(f"tolerance is {tolerance:g} diameters, expected more than 0 and at most 1")
    names = tuple(sets)
    common, notes = _common_micrographs(
        sets, shapes_yx=shapes_yx, diameter=diameter, pixel_size_angstrom=pixel_size_angstrom
    )
    micrographs = [
        ComparedMicrograph(
            name=one.name,
            picks=one.picks,
            diameter_px=one.diameter_px,
            shape_yx=one.shape_yx,
            groups=group_points(
                [each.xy_px for each in one.picks],
                [np.ones(len(each)) for each in one.picks],
                [np.full(len(each), one.diameter_px) for each in one.picks],
                minimum_overlap=_overlap_at(tolerance),
            ),
        )
        for one in common
    ]
    pairs = _pairs(names, common)
    vectors = {both: offsets(pair, tolerance=tolerance) for both, pair in pairs.items()}
    return Comparison(
        names=names,
        micrographs=tuple(micrographs),
        agreement=_agreement(names, micrographs, {both: len(found) for both, found in vectors.items()}),
        distances={both: np.hypot(*found.T) for both, found in vectors.items()},
        placements={both: placement(pair, tolerance=tolerance) for both, pair in pairs.items()},
        shared=_shared(names, micrographs),
        tolerance=tolerance,
        notes=tuple(notes),
    )


def frame_doubts(
    sets: Mapping[str, PickedSet],
    *,
    shapes_yx: Mapping[str, tuple[int, int]] | None = None,
    diameter: Length | None = None,
    pixel_size_angstrom: float | None = None,
    tolerance: float = 0.25,
) -> list[str]:
    """`Comparison.doubts` alone, for which nothing need be grouped; parameters and errors as of `compare_sets`."""
    common, _ = _common_micrographs(
        sets, shapes_yx=shapes_yx, diameter=diameter, pixel_size_angstrom=pixel_size_angstrom
    )
    pairs = _pairs(tuple(sets), common)
    return _doubts({both: placement(pair, tolerance=tolerance) for both, pair in pairs.items()}, common)


def only_in(comparison: Comparison, name: str) -> list[tuple[str, Picks]]:
    """The picks that one set has and no other, by micrograph, the best first."""
    index = comparison.names.index(name)
    found = []
    for one in comparison.micrographs:
        alone = (one.groups.size == 1) & (one.groups.members[:, index] != ABSENT)
        picks = one.picks[index].take(np.sort(one.groups.members[alone, index]))
        found.append((one.name, picks.take(np.argsort(-np.nan_to_num(picks.score, nan=0.0), kind="stable"))))
    return found


def _common_micrographs(
    sets: Mapping[str, PickedSet],
    *,
    shapes_yx: Mapping[str, tuple[int, int]] | None,
    diameter: Length | None,
    pixel_size_angstrom: float | None,
) -> tuple[list[CommonMicrograph], list[str]]:
    """The micrographs that all sets have, under the first set's names; and a sentence where some are left out."""
    (first, reference), *others = sets.items()
    matched = {name: match_micrograph_names(reference.candidates, one.candidates) for name, one in others}
    common = [name for name in sorted(reference.candidates) if all(name in found for found in matched.values())]
    if not common:
        told = "; ".join(f"{name}: {some_names(one.candidates)}" for name, one in sets.items())
        raise InputError(
            f"the sets have no micrograph in common ({told}); names must agree, folder and extension aside"
        )
    notes = []
    for name, one in sets.items():
        used = set(common) if name == first else {matched[name][each] for each in common}
        rest = sorted(set(one.candidates) - used)
        if rest:
            notes.append(f"{name}: {len(rest)} micrographs that not every set has are left out: {some_names(rest)}")
    by_name = {
        name: (reference.candidates[name], *(one.candidates[matched[other][name]] for other, one in others))
        for name in common
    }
    every = [one for picks in by_name.values() for one in picks]
    micrographs = []
    for name, picks in by_name.items():
        kept = tuple(one.kept() for one in picks)
        size = pixel_size_angstrom or next((one.pixel_size_angstrom for one in kept if one.pixel_size_angstrom), None)
        diameter_px = _diameter_px(diameter, every, size, name)
        shape = next((one.shape_yx for one in kept if one.shape_yx), (shapes_yx or {}).get(name))
        micrographs.append(CommonMicrograph(name=name, picks=kept, diameter_px=diameter_px, shape_yx=shape))
    return micrographs, notes


def _diameter_px(
    diameter: Length | None, every: Sequence[Picks], pixel_size_angstrom: float | None, micrograph: str
) -> float:
    if diameter is not None:
        if diameter.unit == "A" and pixel_size_angstrom is None:
            raise SettingsError(
                f"{micrograph}: diameter {diameter.as_typed} is in Å and no set says the pixel size; give --pixel-size "
                "(Å per pixel), or the diameter in pixels, for example 108px"
            )
        return diameter.middle_px(pixel_size_angstrom)
    known = np.concatenate([np.empty(0, np.float32), *(one.diameter_px for one in every)])
    known = known[np.isfinite(known)]
    if not len(known):
        raise SettingsError("no set says how large its particles are; give --diameter, for example 180A or 108px")
    return float(np.median(known))


def _overlap_at(tolerance: float) -> float:
    """Intersection over union of two equal squares that lie `tolerance` of their side apart, along a side."""
    return (1 - tolerance) / (1 + tolerance) * (1 - 1e-9)


def _pairs(names: Sequence[str], micrographs: Sequence[CommonMicrograph]) -> dict[tuple[str, str], list[PickedPair]]:
    """The picks of each two sets, by their names."""
    return {
        (names[a], names[b]): [
            PickedPair(one.picks[a].xy_px, one.picks[b].xy_px, one.diameter_px, one.shape_yx) for one in micrographs
        ]
        for a, b in combinations(range(len(names)), 2)
    }


def _agreement(
    names: Sequence[str], micrographs: Sequence[ComparedMicrograph], paired: Mapping[tuple[str, str], int]
) -> NDArray[np.float64]:
    counts = np.array([sum(len(one.picks[index]) for one in micrographs) for index in range(len(names))], np.float64)
    found = np.diag(counts)
    for (a, b), count in paired.items():
        i, j = names.index(a), names.index(b)
        found[i, j] = found[j, i] = count
    return np.divide(found, counts[:, None], out=np.full_like(found, np.nan), where=counts[:, None] > 0)


def _shared(names: Sequence[str], micrographs: Sequence[ComparedMicrograph]) -> dict[tuple[str, ...], int]:
    """Groups by who has a pick in them, those of most members first."""
    counts: Counter[tuple[str, ...]] = Counter()
    for one in micrographs:
        for members in one.groups.members != ABSENT:
            counts[tuple(name for name, is_there in zip(names, members, strict=True) if is_there)] += 1
    return dict(sorted(counts.items(), key=lambda item: (-len(item[0]), -item[1], item[0])))


def _doubts(
    placements: Mapping[tuple[str, str], Placement | None], micrographs: Sequence[CommonMicrograph]
) -> list[str]:
    diameter_px = float(np.median([one.diameter_px for one in micrographs]))
    return [
        frame_text(names, found, diameter_px=diameter_px, remedy="--flip-y of `cryopick convert` mends it")
        for names, found in placements.items()
        if found is not None and (found.is_mirrored or found.is_shifted)
    ]


def frame_text(names: tuple[str, str], found: Placement, *, diameter_px: float, remedy: str) -> str:
    """How the second of two sets lies on the first, and the remedy where it counts y from the other end."""
    first, second = names
    x, y = (value * diameter_px for value in found.shift_diameters)
    beside = (
        f"lies {abs(x):.1f} px to the {'right' if x > 0 else 'left'} and {abs(y):.1f} px {'down' if y > 0 else 'up'}"
    )
    if found.is_mirrored:
        moved = f", and then {beside}" if found.is_shifted else ""
        return (
            f"{second} {_TOLD[found.transform]} {first}{moved}: {share_text(found.share)} of the picks coincide so, "
            f"{share_text(found.plain_share)} as they are{f' ({remedy})' if found.transform == 'flip_y' else ''}"
        )
    return f"{second} {beside} of {first}: {share_text(found.share)} of the picks coincide so"


# ------------------------------------------------------------------------------------------------------ as text, files


def comparison_tables(comparison: Comparison) -> list[Table]:
    """How many, who agrees with whom, and what is common to whom."""
    names, counts = comparison.names, comparison.counts
    agreement = Table(
        title=f"Share of the row's picks that the column has too, within {comparison.tolerance:g} diameters",
        columns=("", "picks", *names),
        rows=tuple(
            (name, f"{counts[name]:,}", *("-" if np.isnan(share) else f"{share:.3f}" for share in row))
            for name, row in zip(names, comparison.agreement.tolist(), strict=True)
        ),
    )
    shared = Table(
        title="Particles by who has them",
        columns=("had by", "particles", "share"),
        rows=tuple(
            (
                "all" if len(who) == len(names) else "only " + who[0] if len(who) == 1 else " and ".join(who),
                f"{count:,}",
                share_text(count / sum(comparison.shared.values())),
            )
            for who, count in comparison.shared.items()
        ),
    )
    rows = []
    for (first, second), distance in comparison.distances.items():
        found = comparison.placements[first, second]
        shift = "-" if found is None else f"{found.shift_diameters[0]:+.3f}, {found.shift_diameters[1]:+.3f}"
        median = f"{np.median(distance):.3f}" if len(distance) else "-"
        rows.append(
            (f"{first}, {second}", f"{len(distance):,}", median, shift, "-" if found is None else found.transform)
        )
    placed = Table(
        title="Pairs of picks",
        caption="Distances and shifts in particle diameters; the frame is the change under which most picks coincide.",
        columns=("sets", "pairs", "median distance", "shift x, y", "frame"),
        rows=tuple(rows),
    )
    return [agreement, shared, placed]


def as_text(comparison: Comparison) -> str:
    """Tables and sentences to read, also valid Markdown."""
    parts = [f"{len(comparison.micrographs)} micrographs that all have"]
    for table in comparison_tables(comparison):
        parts.append(f"{table.title}:\n\n{markdown_table(list(table.columns), [list(row) for row in table.rows])}")
    parts += [f"Different frames: {doubt}" for doubt in comparison.doubts]
    parts += [f"Note: {note}" for note in comparison.notes]
    return "\n\n".join(parts) + "\n"


def as_json_object(comparison: Comparison) -> dict[str, Any]:
    """Plain numbers, texts and lists; what is undefined is null."""
    placed = {}
    for (first, second), found in comparison.placements.items():
        distance = comparison.distances[first, second]
        placed[f"{first}, {second}"] = {
            "pairs": len(distance),
            "median_distance_diameters": float(np.median(distance)) if len(distance) else None,
            "transform": None if found is None else found.transform,
            "shift_diameters": None if found is None else list(found.shift_diameters),
            "share_that_coincides": None if found is None else found.share,
        }
    return {
        "names": list(comparison.names),
        "micrographs": [one.name for one in comparison.micrographs],
        "tolerance_diameters": comparison.tolerance,
        "picks": comparison.counts,
        "agreement": [[None if np.isnan(value) else value for value in row] for row in comparison.agreement.tolist()],
        "shared": [{"had_by": list(who), "particles": count} for who, count in comparison.shared.items()],
        "pairs": placed,
        "doubts": comparison.doubts,
        "notes": list(comparison.notes),
    }


def distance_histograms(comparison: Comparison) -> list[Histogram]:
    """One for each two sets that agree somewhere."""
    return [
        histogram_of(
            f"Distance of {first} and {second}", distance, low=0.0, x_label="distance (diameters)", y_label="pairs"
        )
        for (first, second), distance in comparison.distances.items()
        if len(distance)
    ]


def write_comparison(comparison: Comparison, folder: Path, galleries: Sequence[Picture]) -> list[Path]:
    """Write comparison.json, comparison.md, comparison.html and, by micrograph, particles.csv with who has each."""
    import json

    def write(name: str, content: str | bytes) -> Path:
        path = folder / name
        if isinstance(content, bytes):
            write_bytes_atomic(path, content)
        else:
            write_text_atomic(path, content)
        return path

    page = render(
        "comparison.html",
        comparison=comparison,
        tables=comparison_tables(comparison),
        histograms=distance_histograms(comparison),
        galleries=galleries,
    )
    return [
        write("comparison.json", json.dumps(as_json_object(comparison), indent=1, ensure_ascii=False) + "\n"),
        write("comparison.md", "# Comparison\n\n" + as_text(comparison)),
        write("particles.csv", particles_csv(comparison)),
        write("comparison.html", page),
    ]


def particles_csv(comparison: Comparison) -> str:
    """One row a particle: its micrograph, the mean of its picks' centres, and each set's score."""
    import csv
    import io

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["micrograph", "x", "y", "had_by", *(f"score_{name}" for name in comparison.names)])
    for one in comparison.micrographs:
        for members in one.groups.members.tolist():
            there = [(index, pick) for index, pick in enumerate(members) if pick != ABSENT]
            x, y = np.mean([one.picks[index].xy_px[pick] for index, pick in there], axis=0)
            scores = [
                "" if pick == ABSENT else f"{one.picks[index].score[pick]:.6g}" for index, pick in enumerate(members)
            ]
            rows.writerow([one.name, f"{x:.3f}", f"{y:.3f}", len(there), *scores])
    return text.getvalue()
