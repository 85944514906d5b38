"""Segmentation + CRF: the pixel table of the abstract, with and without conditional random field, and picks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cryopick.workflows.reproduce.bench import Bench
from cryopick.workflows.reproduce.results import PaperFigure, PaperTable
from cryopick.workflows.reproduce.stand_in import StandIn

STAND_INS_TRAINING = (StandIn(name="train", seed=51, count=4, recipe="segmentation-crf"),)
STAND_INS_TEST = (StandIn(name="test", seed=52, count=2, recipe="segmentation-crf"),)
CRFS = ("none", "dense", "conv", "learned")
NETWORKS = {"FCN": "article", "DeepLabv3": "article-deeplabv3"}
SMALL_TASK: Mapping[str, Any] = {}
SMALL_TRAINING: Mapping[str, Any] = {}


def pixel_table(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    raise NotImplementedError


PARTS = {"pixel-table": pixel_table}
