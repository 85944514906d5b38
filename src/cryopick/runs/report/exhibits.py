"""Exhibits of a picker's preparation as a section of the report."""

from __future__ import annotations

import base64
from html import escape

from cryopick.pickers.exhibits import Curves, Exhibit, Exhibits, Picture, Table

_COLOURS = ("#006fee", "#c4631a", "#0e793c", "#7828c8", "#c20e4d", "#475467")


def exhibits_html(exhibits: Exhibits | None) -> str:
    """A heading and a panel for each exhibit; "" where there are none."""
    if exhibits is None or not exhibits.items:
        return ""
    panels = "".join(f"<div class=panel>{_panel(item)}</div>" for item in exhibits.items)
    return f"<h2>{escape(exhibits.heading)}</h2><div class=charts>{panels}</div>"


def _panel(item: Exhibit) -> str:
    match item:
        case Picture(png=png):
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            body = f"<img alt='{escape(item.title, quote=True)}' src='{source}' style='max-width:100%;display:block'>"
        case Table():
            body = _table(item)
        case Curves():
            body = _plot(item)
    # a caption must not make its panel wider than what it explains
    caption = f"<div class=muted style='width:0;min-width:100%'>{escape(item.caption)}</div>" if item.caption else ""
    return f"<b>{escape(item.title)}</b>{body}{caption}"


def _table(table: Table) -> str:
    head = "".join(f"<th{' class=n' if index else ''}>{escape(text)}</th>" for index, text in enumerate(table.columns))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if index else ''}>{escape(text)}</td>" for index, text in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _plot(curves: Curves) -> str:
    width, height, left, top, side_x, side_y = 430, 330, 52, 12, 360, 260

    def at(x: float, y: float) -> str:
        return f"{left + side_x * x:.1f},{top + side_y * (1 - y):.1f}"

    grid = "".join(
        f"<path d='M{at(t, 0)}L{at(t, 1)}M{at(0, t)}L{at(1, t)}' stroke='#e4e7ec'/>"
        f"<text x='{left + side_x * t:.0f}' y='{top + side_y + 16}' text-anchor='middle'>{t:.1f}</text>"
        f"<text x='{left - 6}' y='{top + side_y * (1 - t) + 4:.0f}' text-anchor='end'>{t:.1f}</text>"
        for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    lines = names = ""
    for index, (name, points) in enumerate(curves.lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(at(x, y) for x, y in points)
        lines += f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
        y = top + side_y - 14 - 17 * (len(curves.lines) - 1 - index)
        names += f"<path d='M{left + 14} {y - 4}h22' stroke='{colour}' stroke-width='3'/>"
        names += f"<text x='{left + 42}' y='{y}' font-size='12'>{escape(name)}</text>"
    labels = (
        f"<text x='{left + side_x / 2:.0f}' y='{height - 14}' text-anchor='middle'>{escape(curves.x_label)}</text>"
        f"<text transform='translate(14 {top + side_y / 2:.0f}) rotate(-90)' text-anchor='middle'>"
        f"{escape(curves.y_label)}</text>"
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' font-size='11' fill='#475467'>"
        f"{grid}{lines}{names}{labels}</svg>"
    )
