"""The papers' tables of maps: resolution of what each method's picks give, by `cryopick validate3d`.

CryoTransformer's Tables 1 and 2, CryoSegNet's Tables 2 and 3, Cryo-EMMAE's Tables 2 and 3. All of them used cryoSPARC;
here it is cryopick's own reconstruction, and on the simulated stand-in the known angles. The papers differ in how they
count: the best of three starts (CryoTransformer), their mean (CryoSegNet), failed ones as 10 Å (Cryo-EMMAE).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cryopick.errors import CryopickError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.workflows.benchmark import open_sets
from cryopick.workflows.reproduce.bench import Bench, Method, slug
from cryopick.workflows.reproduce.figures import curves_picture
from cryopick.workflows.reproduce.results import Cell, PaperFigure, PaperTable
from cryopick.workflows.reproduce.stand_in import StandIn, make_stand_ins
from cryopick.workflows.validate3d.run import Validation, validate3d
from cryopick.workflows.validate3d.settings import DEFAULT_SELECTIONS
from cryopick.workflows.validate3d.table import Row
from cryopick.workflows.validate3d.truth import is_simulation

STAND_IN = StandIn(
    name="maps",
    seed=41,
    diameter_angstrom=(190.0, 210.0),
    pixel_size_angstrom=5.0,
    side_px=512,
    count=4,
    snr=None,
    recipe="validation",
)
CTF_FILES = ("micrographs_ctf.star", "exposures.cs")
"""Looked for in a set's folder, since real micrographs do not tell their CTF."""
PENALTY_ANGSTROM = 10.0
COLUMNS = (
    "set",
    "method",
    "N",
    "N with 2D selection",
    "mean",
    "best",
    "mean with 2D selection",
    "best with 2D selection",
    "yield",
    "success",
)
NOTE = (
    "resolution in Å where the half maps' FSC falls below 0.143, mean and best of the starts; the papers' maps are "
    "cryoSPARC's"
)


@dataclass(frozen=True, kw_only=True)
class PaperMaps:
    """What one paper says of maps: a table's name and title, and its rows in `COLUMNS`."""

    name: str
    title: str
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def _printed(
    rows: Sequence[tuple[str, str, int | None, float | None]], *, is_selected: bool, is_best: bool
) -> tuple[tuple[Cell, ...], ...]:
    """A paper's figures as rows: set, method, particles, Å."""
    found: list[tuple[Cell, ...]] = []
    for name, method, particles, angstrom in rows:
        cells: list[Cell] = [name, method, *([None] * 8)]
        cells[3 if is_selected else 2] = particles
        cells[(6 if is_selected else 4) + int(is_best)] = angstrom
        found.append(tuple(cells))
    return tuple(found)


CRYOTRANSFORMER_1 = PaperMaps(
    name="maps-table-1",
    title="Table 1: maps of all micrographs of the test proteins, best of three starts",
    rows=tuple(
        (name, method, particles, kept, None, best, None, kept_best, None, None)
        for name, method, particles, kept, best, kept_best in (
            ("10093", "crYOLO", 53482, 40374, 6.0, 5.57),
            ("10093", "Topaz", 791064, 359619, 4.72, 4.37),
            ("10093", "CryoTransformer", 596192, 204355, 6.11, 4.65),
            ("10345", "crYOLO", 19836, 5377, 7.27, 6.06),
            ("10345", "Topaz", 396882, 155023, 3.5, 3.47),
            ("10345", "CryoTransformer", 182397, 111375, 5.22, 3.45),
        )
    ),
    notes=("the article's rows of 10081 and 10532 are not in its text as it can be had here",),
)
CRYOTRANSFORMER_2 = PaperMaps(
    name="maps-table-2",
    title="Table 2: maps of CryoPPP's micrographs, with 2D selection, best of three starts",
    rows=_printed(
        [
            ("10017", "crYOLO", 283, 10.4), ("10017", "Topaz", 98625, 5.3), ("10017", "CryoTransformer", 43735, 5.61),
            ("10081", "crYOLO", 17550, 9.78), ("10081", "Topaz", 111752, 7.81),
            ("10081", "CryoTransformer", 88632, 5.47),
            ("10093", "crYOLO", 8802, 8.8), ("10093", "Topaz", 257490, 6.06),
            ("10093", "CryoTransformer", 151545, 6.86),
            ("10345", "crYOLO", 4095, 10.2), ("10345", "Topaz", 93699, 8.12),
            ("10345", "CryoTransformer", 105739, 6.43),
            ("10532", "crYOLO", 12166, 15.69), ("10532", "Topaz", 356222, 5.47),
            ("10532", "CryoTransformer", 148345, 3.92),
            ("11056", "crYOLO", 46582, 10.0), ("11056", "Topaz", 144600, 8.34),
            ("11056", "CryoTransformer", 98193, 7.42),
        ],
        is_selected=True,
        is_best=True,
    ),
)  # fmt: skip
CRYOSEGNET_2 = PaperMaps(
    name="maps-table-2",
    title="Table 2: maps of CryoPPP's micrographs, mean of three starts",
    rows=_printed(
        [
            ("10028", "crYOLO", 31699, 4.11), ("10028", "Topaz", 35514, 3.97), ("10028", "CryoSegNet", 45218, 2.72),
            ("10081", "crYOLO", 36821, 5.38), ("10081", "Topaz", 37808, 5.10), ("10081", "CryoSegNet", 44819, 4.18),
            ("10345", "crYOLO", 11369, 3.94), ("10345", "Topaz", 21343, 3.66), ("10345", "CryoSegNet", 15209, 2.89),
            ("11056", "crYOLO", 43599, 8.54), ("11056", "Topaz", 66651, 8.06), ("11056", "CryoSegNet", 53073, 7.17),
            ("10532", "crYOLO", 29434, 4.10), ("10532", "Topaz", 38372, 4.27), ("10532", "CryoSegNet", 30155, 3.92),
            ("10093", "crYOLO", 33183, 6.93), ("10093", "Topaz", 61698, 6.15), ("10093", "CryoSegNet", 27745, 7.06),
            ("10017", "crYOLO", 47704, 4.87), ("10017", "Topaz", 45511, 5.09), ("10017", "CryoSegNet", 10026, 6.91),
            ("average", "crYOLO", 33401, 5.41), ("average", "Topaz", 43842, 5.19),
            ("average", "CryoSegNet", 32321, 4.98),
        ],
        is_selected=True,
        is_best=False,
    ),
)  # fmt: skip
CRYOSEGNET_3 = PaperMaps(
    name="maps-table-3",
    title="Table 3: maps of all micrographs, mean of three starts",
    rows=_printed(
        [
            ("10028", "crYOLO", 63562, 3.96), ("10028", "Topaz", 96352, 2.72), ("10028", "CryoSegNet", 92532, 2.72),
            ("10345", "crYOLO", 40047, 3.54), ("10345", "Topaz", 87472, 3.46), ("10345", "CryoSegNet", 73377, 2.69),
            ("10081", "crYOLO", 123963, 4.18), ("10081", "Topaz", 130941, 4.08),
            ("10081", "CryoSegNet", 153333, 3.48),
            ("10532", "crYOLO", 161497, 3.23), ("10532", "Topaz", 206460, 3.23), ("10532", "CryoSegNet", 90477, 3.21),
            ("10093", "crYOLO", 192337, 4.43), ("10093", "Topaz", 437235, 4.42),
            ("10093", "CryoSegNet", 169330, 4.58),
            ("average", "crYOLO", 116281, 3.87), ("average", "Topaz", 191692, 3.58),
            ("average", "CryoSegNet", 115810, 3.33),
        ],
        is_selected=True,
        is_best=False,
    ),
)  # fmt: skip
CRYOEMMAE_2 = PaperMaps(
    name="maps-table-2",
    title="Table 2: maps without and with 2D selection; in the means failed ones count as 10 Å",
    rows=tuple(
        (name, method, None, None, plain, None, selected, None, None, success)
        for name, method, plain, selected, success in (
            ("mean, trained on 10291", "blob (cryoSPARC)", 6.77, 6.20, "4/7 and 5/7"),
            ("mean, trained on 10291", "Topaz", 8.70, 7.72, "2/7 and 3/7"),
            ("mean, trained on 10291", "crYOLO", 7.61, 6.26, "4/7 and 5/7"),
            ("mean, trained on 10291", "cryo-EMMAE", 6.13, 4.40, "5/7 and 7/7"),
            ("mean, trained on 10077", "blob (cryoSPARC)", 5.91, 5.66, "5/7 and 5/7"),
            ("mean, trained on 10077", "Topaz", 6.36, 5.15, "6/7 and 6/7"),
            ("mean, trained on 10077", "crYOLO", 8.71, 7.81, "4/7 and 4/7"),
            ("mean, trained on 10077", "cryo-EMMAE", 5.20, 3.88, "7/7 and 7/7"),
        )
    ),
    notes=("failed maps count as 10 Å in the row `mean`, as the article does",),
)
CRYOEMMAE_3 = PaperMaps(
    name="maps-table-3",
    title="Table 3: four proteins of one data set (10892), with two rounds of 2D selection",
    rows=tuple(
        (name, method, None, count, None, None, angstrom, None, None, None)
        for name, method, count, angstrom in (
            ("pre-60S ribosome", "cryo-EMMAE", 28008, 4.38),
            ("fatty acid synthase", "cryo-EMMAE", 1135, 5.01),
            ("OGDHc E2 core", "cryo-EMMAE", 162, 9.65),
            ("PDHc E2 core", "cryo-EMMAE", 1139, 4.53),
            ("mean", "cryo-EMMAE", 10094, 5.89),
            ("mean", "Topaz", 4149, 6.91),
            ("mean", "crYOLO", 8518, 7.70),
            ("mean", "blob (cryoSPARC)", 4294, 7.79),
        )
    ),
)


def maps(
    bench: Bench, *, methods: Callable[[Bench], Sequence[Method]], paper: Sequence[PaperMaps]
) -> Iterator[PaperTable | PaperFigure]:
    """The maps that the methods' picks give on every test set whose CTF is known, beside the paper's figures.

    On the stand-in it is one set made for it, and the curve over numbers of micrographs.
    """
    chosen = [one for one in methods(bench) if one.peer is None]
    rows: list[tuple[Cell, ...]] = []
    for data, folder in _sets(bench):
        found = _validated(bench, chosen, data, folder)
        rows += [] if found is None else _rows(data.name, chosen, found)
    rows += _means(rows)
    for number, one in enumerate(paper):
        yield PaperTable(
            name=one.name,
            title=one.title,
            columns=COLUMNS,
            rows=tuple(rows) if number == 0 else (),
            paper=one.rows,
            notes=(NOTE, *one.notes) if number == 0 else (f"measured here: see {paper[0].title}", *one.notes),
        )
    for data, folder in _sets(bench)[:1]:
        yield from _over_micrographs(bench, chosen, data, folder)


def maps_of(
    methods: Callable[[Bench], Sequence[Method]], paper: Sequence[PaperMaps]
) -> Callable[[Bench], Iterator[PaperTable | PaperFigure]]:
    """`maps` for one paper, as a part of it."""
    return partial(maps, methods=methods, paper=paper)


def _sets(bench: Bench) -> list[tuple[BenchmarkSet, Path]]:
    """The sets whose maps can be made, with their folders; of the others `problems` says why not."""
    folders = {name: bench.folders[name] for name in bench.test}
    if folders and all(is_simulation(folder) for folder in folders.values()):
        folders = make_stand_ins(bench.output / "stand-in", [STAND_IN], tell=bench.tell)
    found = []
    for name, folder in folders.items():
        data = bench.test.get(name) or open_sets([folder])[0]
        if is_simulation(folder) or _ctf_of(folder) is not None:
            found.append((data, folder))
        else:
            bench.note(
                f"no CTF, so no map; put RELION's {CTF_FILES[0]} or cryoSPARC's {CTF_FILES[1]} into the set's folder",
                of=f"map of {name}",
            )
    return found


def _ctf_of(folder: Path) -> Path | None:
    return next((folder / name for name in CTF_FILES if (folder / name).is_file()), None)


def _validated(
    bench: Bench, methods: Sequence[Method], data: BenchmarkSet, folder: Path, *, count: int | None = None
) -> Validation | None:
    """The maps of the methods that can pick this set; of its first `count` micrographs, or of all."""
    some = data if count is None else replace(data, name=f"{data.name}-{count}", images=data.images[:count])
    able = [method for method in methods if bench.evaluation(method, some) is not None]
    if not able:
        return None
    is_known = is_simulation(folder)
    bench.tell(f"maps of {some.name}")
    try:
        return validate3d(
            [bench.run_folder(method, some) for method in able],
            output=bench.output / "maps" / slug(some.name),
            engine="known" if is_known else "embedded",
            truth=folder if is_known else None,
            ctf=None if is_known else _ctf_of(folder),
            names=[slug(method.label) for method in able],
            select2d=["none"] if count is not None else DEFAULT_SELECTIONS,
            penalty_angstrom=PENALTY_ANGSTROM if not is_known else 0.0,
        )
    except CryopickError as error:
        bench.note(str(error), of=f"maps of {some.name}")
        return None


def _rows(name: str, methods: Sequence[Method], found: Validation) -> list[tuple[Cell, ...]]:
    labels = {slug(method.label): method.label for method in methods} | {"truth": "true picks"}
    by_run: dict[str, dict[str, Row]] = {}
    for row in found.table:
        by_run.setdefault(row.run, {})[row.selection] = row
    rows: list[tuple[Cell, ...]] = []
    for run, selections in by_run.items():
        plain, selected = selections["none"], selections.get("auto")
        rows.append(
            (
                name,
                labels[run],
                plain.selected,
                None if selected is None else selected.selected,
                _counted(plain),
                plain.best("half_angstrom"),
                None if selected is None else _counted(selected),
                None if selected is None else selected.best("half_angstrom"),
                plain.mean("yield_share"),
                plain.success if selected is None else f"{plain.success} and {selected.success}",
            )
        )
    return rows


def _counted(row: Row) -> float | None:
    """Mean over the starts; a failed one counts with the penalty, where there is one."""
    values = [one.half_angstrom if one.is_right else row.penalty_angstrom for one in row.seeds]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _means(rows: Sequence[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """Each method's mean over the sets, where there are several."""
    if len({row[0] for row in rows}) < 2:
        return []
    found: list[tuple[Cell, ...]] = []
    for method in dict.fromkeys(row[1] for row in rows):
        mine = [row for row in rows if row[1] == method]
        cells: list[Cell] = ["mean", method]
        for column in range(2, 9):
            values = [float(value) for row in mine if isinstance(value := row[column], int | float)]
            cells.append(float(np.mean(values)) if len(values) == len(mine) else None)
        found.append((*cells, None))
    return found


def _over_micrographs(
    bench: Bench, methods: Sequence[Method], data: BenchmarkSet, folder: Path
) -> Iterator[PaperTable | PaperFigure]:
    """Resolution over the number of micrographs, of each method."""
    most = len(data.images)
    counts = sorted({max(1, round(most * share)) for share in (0.25, 0.5, 1.0)})
    rows: list[tuple[Cell, ...]] = []
    lines: dict[str, list[tuple[float, float]]] = {}
    for count in counts:
        found = _validated(bench, methods, data, folder, count=count if count < most else None)
        for row in [] if found is None else [one for one in found.table if one.selection == "none"]:
            angstrom = row.mean("half_angstrom") if row.right else None
            rows.append((count, row.run, row.selected, angstrom, row.mean("yield_share")))
            if angstrom is not None:
                lines.setdefault(row.run, []).append((float(count), angstrom))
    yield PaperTable(
        name="maps-micrographs",
        title=f"Maps over the number of micrographs of {data.name}",
        columns=("micrographs", "method", "N", "Å", "yield"),
        rows=tuple(rows),
        notes=("the yield is relative to the true picks of as many micrographs",),
    )
    if any(math.isfinite(value) for line in lines.values() for _, value in line):
        yield PaperFigure(
            name="maps-micrographs",
            title="Resolution over the number of micrographs",
            png=curves_picture(lines, x_label="micrographs", y_label="Å, half maps at 0.143"),
        )
