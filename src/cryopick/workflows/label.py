"""Training labels as files (masks, boxes, COCO, heatmaps) from data sets, from coordinates, or from poses and a map."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import LabelledMicrograph, open_dataset
from cryopick.data.mask_folders import CENTRES, IGNORED, INSTANCES, MASKS, SUMMARY
from cryopick.errors import InputError, SettingsError
from cryopick.geometry.rotations import euler_to_matrix
from cryopick.geometry.units import Length, as_length
from cryopick.io.coordinates.box import write_box
from cryopick.io.coordinates.coco import write_coco
from cryopick.io.coordinates.csv import UNCERTAIN
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.files.atomic import write_bytes_atomic, write_text_atomic
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.raster import write_png
from cryopick.io.structures.poses import Poses, read_poses
from cryopick.io.structures.volume import read_volume
from cryopick.processing.targets import (
    Instances,
    centre_heatmap,
    density_instances,
    disc_instances,
    disc_mask,
    projected_instances,
)
from cryopick.runs.picks import labels_of_run_at
from cryopick.types import Picks, Volume

KINDS = ("masks", "boxes", "coco", "heatmap")
SHAPES = ("auto", "disc", "density", "projection")
DEFAULT_STRIDE_PX = 4


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What was written.

    Parameters
    ----------
    shapes : micrographs by the way their masks were made: "exact" (of a simulation), "projection", "density", "disc"
    fallbacks : particles whose own shape could not be told, drawn as discs
    """

    folder: Path
    kind: str
    micrographs: int
    particles: int
    uncertain: int
    shapes: Mapping[str, int]
    fallbacks: int
    files: tuple[Path, ...]


def label(
    source: Path | str,
    output: Path | str,
    *,
    kind: str = "masks",
    shape: str = "auto",
    micrographs: Sequence[Path | str] = (),
    diameter: Length | str | float | None = None,
    pixel_size_angstrom: float | None = None,
    map_path: Path | None = None,
    flip_y: str | None = None,
    stride_px: int = DEFAULT_STRIDE_PX,
    on_done: Callable[[str], None] | None = None,
) -> LabelSummary:
    """Write training labels of every labelled micrograph of a data set.

    Files, under the micrographs' names: `masks/*.png` (255 on particles), `instances/*.png` (16-bit, i + 1 particle i),
    `centres/*.csv` (of the same particles, in their order, then the uncertain labels) and, where labels are uncertain
    or particles are cut by the border, `ignore/*.png` (255); or `boxes/*.box`; or `annotations.json` (COCO); or
    `heatmaps/*.npz` (`heat`, `offset_xy`, `diameter_px`, `stride_px`). Uncertain labels are left out of all others.
    A folder of masks is itself a data set: `labels.json` names the micrographs, so that `cryopick train --data FOLDER`
    needs nothing more.

    Parameters
    ----------
    source : what `open_dataset` opens: a simulation, a run, CryoPPP, images with labels, or a coordinate file
    kind : masks, boxes, coco or heatmap
    shape : of masks: disc; density, segmented around each coordinate; projection, from poses in `source` (RELION) and
        the map; auto takes exact masks of simulations, projections where a map is given, else density
    micrographs, diameter, pixel_size_angstrom, flip_y : see `open_dataset`
    map_path : 3D map of the particle
    stride_px : of heatmaps
    on_done : called with each micrograph's name

    Raises
    ------
    SettingsError
        For unknown kinds and shapes, or a missing diameter, map or pixel size.
    InputError, FormatError
        See `open_dataset`; labels without images are an error.
    """
    if kind not in KINDS:
        raise SettingsError(f"labels as {kind!r}: expected one of {', '.join(KINDS)}")
    if shape not in SHAPES:
        raise SettingsError(f"shape is {shape!r}, expected one of {', '.join(SHAPES)}")
    if stride_px < 1:
        raise SettingsError(f"stride is {stride_px}, expected 1 or more pixels")
    if shape == "projection" and map_path is None:
        raise SettingsError("shape projection needs the 3D map of the particle (--map)")
    output = Path(output)
    diameter = None if diameter is None else as_length(diameter)
    dataset = open_dataset(
        source,
        micrographs=micrographs,
        diameter=diameter,
        pixel_size_angstrom=pixel_size_angstrom,
        flip_y=flip_y,
        labels=labels_of_run_at(source),
    ).labelled()
    writer = _Writer(output, shape=shape, stride_px=stride_px)
    if map_path is not None and shape in ("auto", "projection"):
        writer.volume = read_volume(map_path)
        writer.poses = _poses_by_item(Path(source), dataset.items, pixel_size_angstrom)
    for item in dataset.items:
        if kind == "masks":
            writer.masks(item)
        elif kind == "boxes":
            writer.boxes(item)
        elif kind == "heatmap":
            writer.heatmap(item)
        if on_done is not None:
            on_done(item.name)
    if kind == "coco":
        path = output / "annotations.json"
        write_coco(path, [_as_picks(item) for item in dataset.items])
        writer.files.append(path)
    labels = [item.labels for item in dataset.items if item.labels is not None]
    summary = LabelSummary(
        folder=output,
        kind=kind,
        micrographs=len(dataset),
        particles=sum(int((~one.is_uncertain).sum()) for one in labels),
        uncertain=sum(int(one.is_uncertain.sum()) for one in labels),
        shapes=writer.shapes,
        fallbacks=writer.fallbacks,
        files=tuple(writer.files),
    )
    facts: dict[str, Any] = {name: getattr(summary, name) for name in ("kind", "micrographs", "particles", "uncertain")}
    facts |= {"source": str(source), "shapes": dict(summary.shapes), "fallbacks": summary.fallbacks}
    if kind == "masks":
        facts["items"] = [_entry(item, output) for item in dataset.items]
    write_text_atomic(output / SUMMARY, json.dumps(facts, indent=1) + "\n")
    return summary


class _Writer:
    """Writes the labels of one micrograph after the other."""

    def __init__(self, output: Path, *, shape: str, stride_px: int) -> None:
        self.output, self.shape, self.stride_px = output, shape, stride_px
        self.volume: Volume | None = None
        self.poses: Mapping[str, Poses] = {}
        self.files: list[Path] = []
        self.shapes: dict[str, int] = {}
        self.fallbacks = 0

    def masks(self, item: LabelledMicrograph) -> None:
        instances, way = self._instances(item)
        self.shapes[way] = self.shapes.get(way, 0) + 1
        self.fallbacks += int(instances.is_fallback.sum())
        self._png(INSTANCES, item, instances.labels.astype(np.uint16))
        self._png(MASKS, item, np.where(instances.mask, 255, 0).astype(np.uint8))
        self._centres(item, self.poses[item.name].xy_px if way == "projection" else _certain_xy(item))
        ignored = _stored_instances(item) > 0 if way == "exact" else _uncertain_discs(item)
        ignored &= ~instances.mask
        if ignored.any():
            self._png(IGNORED, item, np.where(ignored, 255, 0).astype(np.uint8))

    def _centres(self, item: LabelledMicrograph, certain_xy_px: NDArray[np.float64]) -> None:
        """Of the drawn particles, in the order of their numbers, and of the uncertain labels."""
        labels = item.labels
        uncertain = np.zeros((0, 2)) if labels is None else labels.xy_px[labels.is_uncertain]
        rows = [f"{x:.3f},{y:.3f},particle" for x, y in certain_xy_px.tolist()]
        rows += [f"{x:.3f},{y:.3f},{UNCERTAIN}" for x, y in uncertain.tolist()]
        path = self._path(CENTRES, item, ".csv")
        write_text_atomic(path, "\n".join(["x,y,kind", *rows]) + "\n")
        self.files.append(path)

    def boxes(self, item: LabelledMicrograph) -> None:
        path = self._path("boxes", item, ".box")
        _, diameter_px = _particles(item)
        box_px = float(max(2, 2 * round(float(diameter_px) / 2)))
        write_box(path, replace(_as_picks(item)), box_px=box_px)
        self.files.append(path)

    def heatmap(self, item: LabelledMicrograph) -> None:
        xy_px, diameter_px = _particles(item)
        target = centre_heatmap(xy_px, diameter_px, shape_yx=item.shape_yx, stride_px=self.stride_px)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            heat=target.heat,
            offset_xy=target.offset_xy,
            diameter_px=target.diameter_px,
            stride_px=np.int64(target.stride_px),
        )
        path = self._path("heatmaps", item, ".npz")
        write_bytes_atomic(path, buffer.getvalue())
        self.files.append(path)

    def _instances(self, item: LabelledMicrograph) -> tuple[Instances, str]:
        shape = self.shape
        if shape == "auto" and item.instances_path is not None:
            return self._exact(item), "exact"
        if self.volume is not None and item.name in self.poses:
            return _projected(item, self.poses[item.name], self.volume), "projection"
        if shape == "projection":
            raise InputError(f"{item.name}: no poses; projections need a RELION table with angles for every micrograph")
        xy_px, diameter_px = _particles(item)
        if shape == "disc":
            return disc_instances(xy_px, diameter_px, shape_yx=item.shape_yx), "disc"
        return density_instances(item.read().pixels, xy_px, diameter_px), "density"

    def _exact(self, item: LabelledMicrograph) -> Instances:
        """The simulation's own masks, renumbered to the certain labels."""
        if item.labels is None:
            raise ValueError(f"{item.name}: is not labelled")
        stored = _stored_instances(item)
        is_certain = ~item.labels.is_uncertain
        number = np.zeros(max(int(stored.max()), len(is_certain)) + 1, dtype=np.int32)
        number[1 : len(is_certain) + 1][is_certain] = np.arange(1, int(is_certain.sum()) + 1)
        return Instances(number[stored], np.zeros(int(is_certain.sum()), dtype=np.bool_))

    def _png(self, folder: str, item: LabelledMicrograph, pixels: NDArray[Any]) -> None:
        path = self._path(folder, item, ".png")
        write_png(path, pixels)
        self.files.append(path)

    def _path(self, folder: str, item: LabelledMicrograph, suffix: str) -> Path:
        name = PurePosixPath(without_extension(item.name))
        return self.output / folder / name.parent / (name.name + suffix)


def _entry(item: LabelledMicrograph, folder: Path) -> dict[str, Any]:
    """What training from the folder needs to know of a micrograph; its image by the way there from the folder."""
    try:
        image = Path(os.path.relpath(item.source.path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        image = str(item.source.path.resolve())
    entry = {"name": item.name, "image": image, "completeness": item.completeness}
    known = {"diameter_px": item.diameter_px, "pixel_size_angstrom": item.pixel_size_angstrom}
    return entry | {name: float(value) for name, value in known.items() if value is not None}


def _stored_instances(item: LabelledMicrograph) -> NDArray[np.int64]:
    """(h, w) The silhouettes of a simulation; numbers above those of the labels are particles cut by the border."""
    if item.instances_path is None:
        raise ValueError(f"{item.name}: has no exact masks")
    stored = read_micrograph(item.instances_path).pixels.astype(np.int64)
    if stored.shape != item.shape_yx:
        raise InputError(f"{item.instances_path}: is {stored.shape}, its micrograph {item.shape_yx}; simulate again")
    return stored


def _poses_by_item(
    source: Path, items: Sequence[LabelledMicrograph], pixel_size_angstrom: float | None
) -> dict[str, Poses]:
    star = source / "particles.star" if source.is_dir() else source
    if star.suffix.lower() != ".star" or not star.is_file():
        raise InputError(f"{source}: projections need RELION's particles.star with angles; give that file")
    found = read_poses(star, pixel_size_angstrom=pixel_size_angstrom)
    matched = match_micrograph_names(found, [item.name for item in items])
    return {matched[name]: poses for name, poses in found.items() if name in matched}


def _projected(item: LabelledMicrograph, poses: Poses, volume: Volume) -> Instances:
    return projected_instances(
        volume,
        euler_to_matrix(poses.rot_tilt_psi_deg),
        poses.xy_px,
        pixel_size_angstrom=poses.pixel_size_angstrom,
        shape_yx=item.shape_yx,
    )


def _certain_xy(item: LabelledMicrograph) -> NDArray[np.float64]:
    if item.labels is None:
        raise ValueError(f"{item.name}: is not labelled")
    return item.labels.xy_px[~item.labels.is_uncertain]


def _particles(item: LabelledMicrograph) -> tuple[NDArray[np.float64], float]:
    """Centres of the certain labels and their diameter."""
    return _certain_xy(item), _diameter_px(item)


def _uncertain_discs(item: LabelledMicrograph) -> NDArray[np.bool_]:
    """(h, w) True on uncertain labels; where there are none, nobody need know how large particles are."""
    if item.labels is None:
        raise ValueError(f"{item.name}: is not labelled")
    xy_px = item.labels.xy_px[item.labels.is_uncertain]
    if len(xy_px) == 0:
        return np.zeros(item.shape_yx, np.bool_)
    return disc_mask(xy_px, _diameter_px(item), shape_yx=item.shape_yx)


def _diameter_px(item: LabelledMicrograph) -> float:
    if item.diameter_px is None:
        raise SettingsError(f"{item.name}: the particle diameter is unknown; give it (--diameter 180A or 108px)")
    return item.diameter_px


def _as_picks(item: LabelledMicrograph) -> Picks:
    xy_px, diameter_px = _particles(item)
    return Picks(
        xy_px=xy_px,
        diameter_px=np.full(len(xy_px), diameter_px, dtype=np.float32),
        micrograph_name=item.name,
        shape_yx=item.shape_yx,
        pixel_size_angstrom=item.pixel_size_angstrom,
    )
