"""DeepCryoPicker: KLH (Table 7), apoferritin (Table 5), per-view curves (Fig. 4), training sets of 3 to 5 classes."""

from __future__ import annotations

from collections.abc import Iterator

from cryopick.workflows.reproduce.bench import Bench
from cryopick.workflows.reproduce.results import PaperFigure, PaperTable
from cryopick.workflows.reproduce.stand_in import StandIn

STAND_INS: tuple[StandIn, ...] = ()


def tables(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    raise NotImplementedError


PARTS = {"tables": tables}
