"""What a simulation knows of its particles: the map, each one's centre and angles, the optics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError
from cryopick.evaluation.scored_sets import read_truth, some_names
from cryopick.geometry.pairing import pair_points
from cryopick.geometry.rotations import random_rotations
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.set_json import read_set_settings
from cryopick.io.structures.poses import read_poses
from cryopick.io.structures.volume import read_volume
from cryopick.processing.ctf import CtfParameters
from cryopick.processing.volumes import resampled_volume
from cryopick.simulation.series import SETTINGS, imager_of, read_settings
from cryopick.simulation.truth_files import optics_of_micrograph
from cryopick.types import Picks, Volume
from cryopick.workflows.validate3d.geometry import BoxGeometry
from cryopick.workflows.validate3d.picks import CleanPicks, Image, box_fits

MATCH_DIAMETERS = 0.25
"""A pick this near to a particle's centre found it, as in `cryopick evaluate`."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of one simulated set; arrays by image have one entry per image of the validation.

    Parameters
    ----------
    folder : of the simulation
    volume : the structure as it was imaged
    diameter_angstrom : of the particle
    xy_px, euler_deg, is_pickable : of all particles of each image; those that are not pickable lie on junk or are
        mostly hidden, and neither finding nor missing them counts
    """

    folder: Path
    volume: Volume
    diameter_angstrom: float
    xy_px: Sequence[NDArray[np.float64]]
    euler_deg: Sequence[NDArray[np.float64]]
    is_pickable: Sequence[NDArray[np.bool_]]
    optics: Sequence[CtfParameters]

    def picks(self, images: Sequence[Image]) -> list[Picks]:
        """The pickable particles, as a picker without fault would give them."""
        return [
            Picks(xy_px=xy[good], micrograph_name=image.name, shape_yx=image.shape_yx)
            for xy, good, image in zip(self.xy_px, self.is_pickable, images, strict=True)
        ]

    def of_images(self, index: Sequence[int]) -> Truth:
        """Of some of the images alone."""
        return replace(
            self,
            xy_px=[self.xy_px[k] for k in index],
            euler_deg=[self.euler_deg[k] for k in index],
            is_pickable=[self.is_pickable[k] for k in index],
            optics=[self.optics[k] for k in index],
        )


@dataclass(frozen=True, eq=False)
class MatchedPicks:
    """Which picks are particles.

    Parameters
    ----------
    is_true : (n,) the pick lies at a particle, pickable or not
    euler_deg : (n, 3) its particle's angles; of the others random ones
    centre_px : (n, 2) its particle's centre in the micrograph; of the others the pick itself
    counts : (n,) its particle is one that counts: neither on junk, nor hidden, nor at the border
    pickable : how many particles count
    """

    is_true: NDArray[np.bool_]
    euler_deg: NDArray[np.float64]
    centre_px: NDArray[np.float64]
    counts: NDArray[np.bool_]
    pickable: int

    @property
    def precision(self) -> float:
        """Share of the picks that lie at a particle; NaN without picks."""
        return float(self.is_true.mean()) if len(self.is_true) else float("nan")

    @property
    def recall(self) -> float:
        """Share of the particles that count that were found; NaN without any."""
        return float(self.counts.sum()) / self.pickable if self.pickable else float("nan")

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> MatchedPicks:
        """Those of some picks; the others count as not found."""
        return replace(
            self,
            is_true=self.is_true[index],
            euler_deg=self.euler_deg[index],
            centre_px=self.centre_px[index],
            counts=self.counts[index],
        )


def is_simulation(path: Path) -> bool:
    """Whether a folder was made by `cryopick simulate`."""
    return (path / SETTINGS).is_file()


def read_simulation(folder: Path, images: Sequence[Image]) -> Truth:
    """The truth of the images, which are micrographs of the simulation.

    Raises
    ------
    InputError
        If an image is not of this simulation, or it shows several proteins.
    """
    labels, poses = read_truth(folder / "micrographs"), read_poses(folder / "particles.star")
    found = match_micrograph_names([one.name for one in images], labels)
    missing = [one.name for one in images if one.name not in found]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} micrographs of the runs are not of this simulation: {some_names(missing)}; it "
            f"has {some_names(labels)}"
        )
    posed = match_micrograph_names(found.values(), poses)
    species = {int(number) for one in poses.values() for number in one.class_id.tolist()}
    if len(species) > 1:
        raise InputError(
            f"{folder}: shows {len(species)} proteins, and a map is of one; simulate with one structure (--proteins 1)"
        )
    xy, euler, pickable = [], [], []
    for image in images:
        label = labels[found[image.name]]
        pose = poses.get(posed.get(found[image.name], ""))
        count = 0 if pose is None else len(pose.xy_px)
        if count != len(label) or (pose is not None and not np.allclose(pose.xy_px, label.xy_px, atol=0.01)):
            raise InputError(
                f"{folder}: {image.name} has {len(label)} labels and {count} poses that should be the same particles; "
                "simulate it again"
            )
        xy.append(label.xy_px)
        euler.append(np.zeros((0, 3)) if pose is None else pose.rot_tilt_psi_deg)
        pickable.append(~label.is_uncertain)
    settings = read_settings(folder)
    specimen = imager_of(settings, min(species, default=1) - 1).specimen
    told = read_set_settings(folder / "micrographs").get("diameter_px")
    diameter = told * settings.recipe.pixel_size_angstrom if told else specimen.diameter_angstrom
    return Truth(
        folder=folder,
        volume=specimen.volume,
        diameter_angstrom=float(diameter),
        xy_px=xy,
        euler_deg=euler,
        is_pickable=pickable,
        optics=[optics_of_micrograph(folder, Path(found[one.name]).stem) for one in images],
    )


def matched(
    picks: CleanPicks, truth: Truth, images: Sequence[Image], geometry: BoxGeometry, *, seed: int
) -> MatchedPicks:
    """Pair picks and particles one-to-one within a quarter of the diameter; random angles for what is no particle.

    Particles whose box leaves the image do not count as missed, since their picks are left out for all runs.
    """
    diameter_px = geometry.diameter_px
    n = len(picks)
    is_true, centre = np.zeros(n, bool), picks.xy_px.copy()
    euler = random_rotations(n, np.random.default_rng(seed))
    is_counted, count = np.zeros(n, bool), 0
    for number, (xy, angles, image) in enumerate(zip(truth.xy_px, truth.euler_deg, images, strict=True)):
        counts = truth.is_pickable[number] & box_fits(xy, image, diameter_px=diameter_px, box_px=geometry.box_px)
        count += int(counts.sum())
        rows = np.flatnonzero(picks.micrograph == number)
        pairs = pair_points(picks.xy_px[rows], xy, max_distance=MATCH_DIAMETERS * diameter_px)
        mine = rows[pairs.first]
        is_true[mine], euler[mine] = True, angles[pairs.second]
        centre[mine] = xy[pairs.second]
        is_counted[mine] = counts[pairs.second]
    return MatchedPicks(is_true, euler, centre, is_counted, count)


def true_map(truth: Volume | Path, geometry: BoxGeometry) -> Volume:
    """The structure on the voxels of the reconstructions."""
    volume = truth if isinstance(truth, Volume) else read_volume(truth)
    return resampled_volume(volume, size_px=geometry.scaled_px, voxel_size_angstrom=geometry.pixel_size_angstrom)
