"""Labels to measure against: true centres, with the ones that must not count either way."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.io.coordinates.csv import BACKGROUND, UNCERTAIN
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.set_json import read_set_settings
from cryopick.types import Picks

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Labels:
    """True particle centres of one micrograph.

    Parameters
    ----------
    xy_px : (n, 2) float64, centres in our frame
    is_uncertain : (n,) True where finding or missing the particle must not count
    diameter_px : particle diameter in px, or None when the files do not say
    micrograph_name : as the label files name it; see `cryopick.io.coordinates.names.match_micrograph_names`
    pixel_size_angstrom : Å per px, or None when the files do not say
    class_id : (n,) int of each particle, such as its view; None where the files have no classes
    score : (n,) as the program that picked gave them, NaN where it gave none; None where the files have no scores
    background_xy_px : (k, 2) places where a person saw that there is no particle; they teach where labels are sparse
    """

    xy_px: NDArray[np.float64]
    is_uncertain: NDArray[np.bool_]
    diameter_px: float | None
    micrograph_name: str
    pixel_size_angstrom: float | None = None
    class_id: NDArray[np.int32] | None = None
    score: NDArray[np.float32] | None = None
    background_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        if self.xy_px.shape != (len(self.is_uncertain), 2):
            raise ValueError(
                f"{self.micrograph_name}: {self.xy_px.shape} centres but {self.is_uncertain.shape} uncertain flags"
            )

    def __len__(self) -> int:
        return len(self.xy_px)

    def doubting_below(self, min_score: float) -> Labels:
        """The same labels, where those with a lower score than `min_score` are uncertain, and count neither way.

        Raises
        ------
        InputError
            If a label has no score.
        """
        if not len(self):
            return self
        if self.score is None or np.isnan(self.score).any():
            raise InputError(f"{self.micrograph_name}: picks without a score, and a least score was asked for")
        return replace(self, is_uncertain=self.is_uncertain | (self.score < np.float32(min_score)))


def read_labels(
    path: Path | str, *, format: str | None = None, shapes_yx: dict[str, tuple[int, int]] | None = None
) -> dict[str, Labels]:
    """Labels by micrograph name, from any coordinate file, or from a folder with one file per micrograph.

    In CSV a column `kind` tells `particle` from `uncertain` and from `background`, where no particle is; in all other
    formats every row is a particle. A file
    `set.json` in the folder (or beside the file) may give `diameter_px` and `pixel_size_angstrom`; otherwise the
    diameter is the median of the rows' diameters, where they have any.

    Parameters
    ----------
    format : see `cryopick.io.coordinates.formats.read_picks`; None detects it
    shapes_yx : image sizes by micrograph, for formats that need them

    Raises
    ------
    InputError, FormatError
        If the path is missing or not readable as labels.
    """
    path = Path(path)
    picks_of = read_picks(path, format=format, shapes_yx=shapes_yx)
    settings = read_set_settings(path)
    diameter_px: float | None = settings.get("diameter_px")
    pixel_size_angstrom: float | None = settings.get("pixel_size_angstrom")
    for warning in dict.fromkeys(text for picks in picks_of.values() for text in picks.warnings):
        _logger.warning("%s", warning)
    labels = {}
    for name, picks in picks_of.items():
        is_uncertain = picks.reason == UNCERTAIN
        is_label = picks.is_kept | is_uncertain  # candidates that a program rejected are no labels
        labels[name] = Labels(
            xy_px=picks.xy_px[is_label],
            is_uncertain=is_uncertain[is_label],
            diameter_px=diameter_px if diameter_px is not None else _median_diameter(picks),
            micrograph_name=name,
            pixel_size_angstrom=pixel_size_angstrom or picks.pixel_size_angstrom,
            class_id=picks.class_id[is_label],
            score=picks.score[is_label] if np.isfinite(picks.score[is_label]).any() else None,
            background_xy_px=picks.xy_px[picks.reason == BACKGROUND],
        )
    return labels


def _median_diameter(picks: Picks) -> float | None:
    known = picks.diameter_px[np.isfinite(picks.diameter_px)]
    return float(np.median(known)) if len(known) else None
