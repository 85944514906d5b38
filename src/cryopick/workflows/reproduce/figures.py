"""The pictures that several papers show: picks on a micrograph, curves, bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.report import png_of
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import read_micrograph
from cryopick.runs.folder import SUMMARY
from cryopick.workflows.reproduce.bench import Bench, Method
from cryopick.workflows.reproduce.results import PaperFigure

SHOWN_PX = 512
"""Micrographs are binned to about this side for pictures."""


def picks_picture(bench: Bench, data: BenchmarkSet, methods: Sequence[Method]) -> bytes:
    """PNG: one micrograph of a set, with its labels and with the picks of every picker, side by side."""
    from matplotlib.figure import Figure

    path = data.images[0]
    micrograph = read_micrograph(path)
    step = max(1, round(max(micrograph.shape_yx) / SHOWN_PX))
    height, width = (side // step * step for side in micrograph.shape_yx)
    grey = micrograph.pixels[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    low, high = np.percentile(grey[np.isfinite(grey)], [1, 99])
    shown = shown_picks(bench, data, methods)
    name = match_micrograph_names([path.stem], data.labels)[path.stem]
    radius = (data.labels[name].diameter_px or 20.0) / step / 2
    figure = Figure(figsize=(3.2 * len(shown), 3.5), dpi=110, layout="constrained")
    for axes, (title, xy_px) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        axes.imshow(grey, cmap="gray", vmin=low, vmax=high)
        x, y = (np.reshape(xy_px, (-1, 2)).T + 0.5) / step - 0.5
        colour = "lime" if title == "labels" else "red"
        # a marker's size is an area in points squared
        points = 3.0 * 72 / max(grey.shape) * 2 * radius
        axes.scatter(x, y, s=points**2, facecolors="none", edgecolors=colour, linewidths=0.8)
        axes.set(title=f"{title} ({len(x)})", xticks=[], yticks=[])
    return png_of(figure)


def picks_figure(bench: Bench, methods: Sequence[Method], *, name: str, title: str) -> PaperFigure:
    """`picks_picture` of the first test set; its name goes behind the title."""
    first = next(iter(bench.test.values()))
    return PaperFigure(name=name, title=f"{title} {first.name}", png=picks_picture(bench, first, methods))


def shown_picks(bench: Bench, data: BenchmarkSet, methods: Sequence[Method]) -> dict[str, NDArray[np.float64]]:
    """(n, 2) centres on the first micrograph of a set: its `labels`, and the picks of every picker that has some."""
    stem = data.images[0].stem
    shown = {"labels": data.labels[match_micrograph_names([stem], data.labels)[stem]].xy_px}
    for method in methods:
        if (bench.run_folder(method, data) / SUMMARY).is_file():
            picks = bench.picked(method, data).candidates
            names = match_micrograph_names([stem], picks)
            if names:
                shown[method.label] = picks[names[stem]].kept().xy_px
    return shown


def curves_picture(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    is_share: bool = False,
) -> bytes:
    """PNG: lines through points, one per name.

    Parameters
    ----------
    is_share : both axes from 0 to 1
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.2, 3.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        x, y = np.reshape(np.asarray(points, np.float64), (-1, 2)).T
        axes.plot(x, y, marker="" if is_share else "o", label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    if is_share:
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
    elif lines and all(float(x).is_integer() for points in lines.values() for x, _ in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.93")
    if lines:
        axes.legend(fontsize=8)
    return png_of(figure)


def bars_picture(values: Mapping[str, float], *, x_label: str) -> bytes:
    """PNG: one horizontal bar per name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 0.8 + 0.4 * max(1, len(values))), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.barh(list(values), list(values.values()))
    axes.set(xlabel=x_label)
    axes.invert_yaxis()
    return png_of(figure)
