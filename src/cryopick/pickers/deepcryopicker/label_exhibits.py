"""Pictures of how a run labelled its own micrographs: clusters, chosen and rejected examples, how the network did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.pages.parts import Curves, Picture, Table
from cryopick.pickers.deepcryopicker.objects import SIDE, TOP, VIEWS
from cryopick.pickers.deepcryopicker.self_labels import LabelledImage
from cryopick.pickers.exhibits import Exhibit
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.processing.spread import evenly_taken

SHOWN_MICROGRAPHS = 2
SHOWN_CHOSEN, SHOWN_REJECTED = 48, 24
"""Examples shown of each view and for each reason, from the best to the worst."""
GREY_SIGMAS = 3.0
PICTURE_PX = 720
"""Longer side of a picture of clusters, about."""
TILE_DIAMETERS, TILE_ZOOM, TILES_PER_ROW = 1.5, 2, 8

Rgb = tuple[int, int, int]
_VIEW_COLOURS: dict[int, Rgb] = {TOP: (23, 201, 100), SIDE: (80, 160, 255)}
_OTHER_COLOUR: Rgb = (200, 120, 255)
_REJECTED_COLOUR: Rgb = (245, 165, 36)
_MASK_COLOUR: Rgb = (190, 50, 90)
_NAMES = {(23, 201, 100): "green", (80, 160, 255): "blue", (200, 120, 255): "violet"}


def label_exhibits(labelled: Sequence[LabelledImage], record: Mapping[str, Any]) -> list[Exhibit]:
    """Everything the report shows of a training on a run's own labels.

    Parameters
    ----------
    labelled : the micrographs that examples were chosen from
    record : of `window_training.training_record`
    """
    order = evenly_taken(range(len(labelled)), SHOWN_MICROGRAPHS)
    colours = ", ".join(f"{_NAMES[_colour(view)]}: {name}" for view, name in VIEWS.items())
    clusters = [
        Picture(
            title=f"Clusters of micrograph {index + 1} of {len(labelled)}",
            caption=f"Red: the darkest intensity cluster. Circles: chosen ({colours}); crosses: rejected.",
            png=as_png(cluster_picture(labelled[index])),
        )
        for index in order
    ]
    views = np.concatenate([image.view for image in labelled])
    reasons = np.concatenate([image.reason for image in labelled])
    chosen = [
        _contact_sheet(labelled, (views == view) & (reasons == ""), f"Chosen as {name}", SHOWN_CHOSEN)
        for view, name in VIEWS.items()
    ]
    rejected = [
        _contact_sheet(labelled, reasons == reason, f"Rejected: {reason}", SHOWN_REJECTED)
        for reason in sorted(set(reasons.tolist()) - {""})
    ]
    sheets = [sheet for sheet in (*chosen, *rejected) if sheet is not None]
    return [*clusters, *sheets, confusion_table(record), precision_recall_plot(record)]


def cluster_picture(image: LabelledImage) -> NDArray[np.uint8]:
    """(h, w, 3) the working image with its mask and its objects, enlarged to about `PICTURE_PX`."""
    import cv2

    zoom = max(1, round(PICTURE_PX / max(image.pixels.shape)))
    rgb = np.repeat(_grey(image.pixels)[..., None], 3, axis=2).astype(np.float32)
    rgb[image.mask] = 0.6 * rgb[image.mask] + 0.4 * np.array(_MASK_COLOUR, np.float32)
    picture = np.ascontiguousarray(np.repeat(np.repeat(rgb.astype(np.uint8), zoom, axis=0), zoom, axis=1))
    radius = round(0.5 * NOMINAL_PARTICLE_PX * zoom)
    centres = np.rint((image.xy_px + 0.5) * zoom - 0.5).astype(int).tolist()
    for (x, y), view, reason in zip(centres, image.view.tolist(), image.reason.tolist(), strict=True):
        if reason:
            cv2.drawMarker(picture, (x, y), _REJECTED_COLOUR, cv2.MARKER_TILTED_CROSS, 5 * zoom, 1)
        else:
            cv2.circle(picture, (x, y), radius, _colour(view), 1, cv2.LINE_AA)
    return picture


def contact_sheet(windows: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """(h, w) grey windows of one size, enlarged, in rows of `TILES_PER_ROW` with a white line between them."""
    side = windows[0].shape[0] * TILE_ZOOM
    columns = min(TILES_PER_ROW, len(windows))
    rows = -(-len(windows) // columns)
    sheet = np.full((rows * (side + 2) - 2, columns * (side + 2) - 2), 255, np.uint8)
    for index, window in enumerate(windows):
        top, left = (side + 2) * (index // columns), (side + 2) * (index % columns)
        tile = np.repeat(np.repeat(_grey(window), TILE_ZOOM, axis=0), TILE_ZOOM, axis=1)
        sheet[top : top + side, left : left + side] = tile
    return sheet


def confusion_table(record: Mapping[str, Any]) -> Table:
    """Held-out windows by what the clusters call them (rows) and what the network does (columns)."""
    names = [str(name) for name in record["classes"]]
    # a view without examples has no row to read anything from
    kept = [index for index, row in enumerate(record["confusion"]) if sum(row)]
    return Table(
        title="Held-out windows: clusters against network",
        caption=f"Rows: what the clusters say. Columns: what the network says. Right: {record['accuracy']:.1%}. The "
        "clusters are not always right, and the network may be where they are not.",
        columns=("", *names),
        rows=tuple((names[index], *(str(count) for count in record["confusion"][index])) for index in kept),
    )


def precision_recall_plot(record: Mapping[str, Any]) -> Curves:
    """Precision against recall of each view in held-out windows, as its score is cut."""
    return Curves(
        title="Precision and recall in held-out windows",
        caption="Of windows from micrographs that were not trained on, against what the clusters say of them.",
        x_label="recall",
        y_label="precision",
        lines={name: tuple(map(tuple, line)) for name, line in record["precision_recall"].items()},
    )


def _contact_sheet(
    labelled: Sequence[LabelledImage], is_shown: NDArray[np.bool_], title: str, most: int
) -> Picture | None:
    """Windows of the objects in question, best first; None where there is none."""
    total = int(is_shown.sum())
    if not total:
        return None
    score = np.concatenate([image.score for image in labelled])
    number = np.repeat(np.arange(len(labelled)), [len(image.view) for image in labelled])
    xy = np.concatenate([image.xy_px for image in labelled])
    order = np.flatnonzero(is_shown)
    order = order[np.argsort(-score[order], kind="stable")]
    shown = order[np.linspace(0, total - 1, min(most, total)).round().astype(int)]
    windows = [_window(labelled[number[index]].pixels, xy[index]) for index in shown.tolist()]
    text = (
        f"{len(shown)} of them, from the highest score of the clustering stage to the lowest." if total > most else ""
    )
    return Picture(title=f"{title}: {total:,}", caption=text, png=as_png(contact_sheet(windows)))


def _window(pixels: NDArray[np.float32], xy: NDArray[np.float64]) -> NDArray[np.float32]:
    reach = round(0.5 * TILE_DIAMETERS * NOMINAL_PARTICLE_PX)
    x, y = np.rint(xy).astype(int) + reach
    padded = np.pad(pixels, reach, mode="symmetric")
    x, y = min(max(x, reach), padded.shape[1] - reach - 1), min(max(y, reach), padded.shape[0] - reach - 1)
    return padded[y - reach : y + reach + 1, x - reach : x + reach + 1]


def _colour(view: int) -> Rgb:
    return _VIEW_COLOURS.get(view, _OTHER_COLOUR)


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Working pixels, of about unit variance, as grey values."""
    return np.asarray(np.clip((pixels / GREY_SIGMAS + 1) * 127.5, 0, 255), np.uint8)


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """PNG of (h, w) grey or (h, w, 3) RGB."""
    import cv2

    ok, encoded = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)
    if not ok:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded")
    return encoded.tobytes()
