"""One whole micrograph with everything known about it, in the order in which electrons meet things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import random_rotations
from cryopick.processing.ctf import CtfParameters
from cryopick.simulation.recipe import Recipe, draw, draw_count, draw_log
from cryopick.simulation.scene import archive as looks
from cryopick.simulation.scene import detector, dirt, layout
from cryopick.simulation.scene.ice import graininess_volt_angstrom, relative_thickness, smooth_field
from cryopick.simulation.scene.optics import contrast_transfer, draw_optics, drift_transfer
from cryopick.simulation.specimens.imaging import SpecimenImager
from cryopick.types import Micrograph

MARGIN_ANGSTROM = 200.0
"""Simulated around the micrograph and cut away: fringes reach about this far, and Fourier transforms wrap around."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What one micrograph was made with; lengths in Å, drawn from a `Recipe`.

    Parameters
    ----------
    optics : CTF
    ice_angstrom : mean thickness
    dose_e_per_angstrom2 : before the specimen
    electrons_per_pixel : mean of those counted, after ice and detective quantum efficiency
    mtf_nyquist : of the camera
    structure_factor, clutter : see `IceRanges`
    dirt : kinds present
    look : what the archive did
    drift_angstrom, drift_angle_deg : how far the film moved during the exposure, and where to: from x towards y
    """

    optics: CtfParameters
    ice_angstrom: float
    dose_e_per_angstrom2: float
    electrons_per_pixel: float
    mtf_nyquist: float
    structure_factor: float
    clutter: float
    dirt: tuple[str, ...]
    look: looks.Look
    drift_angstrom: float = 0.0
    drift_angle_deg: float = 0.0


@dataclass(frozen=True, eq=False)
class SimulatedMicrograph:
    """A micrograph and its truth; all particle arrays have one row per particle.

    Parameters
    ----------
    micrograph : as an archive would hold it, particles dark
    xy_px : (n, 2) float64, exact centres (the projected centre of the volume, voxel `n // 2`), all inside
    species : (n,) int32, index into the specimens
    euler_deg : (n, 3), `rlnAngleRot`, `rlnAngleTilt`, `rlnAnglePsi`
    diameter_px : (n,) float32, largest extent of the species
    snr : (n,) float32, what an ideal matched filter reaches on this particle alone in clean ice
    visibility : (n,) float32 in [0, 1], share of the silhouette inside the micrograph and covered by neither another
        particle nor junk
    is_on_junk : (n,) bool, the centre lies on junk
    instances : (h, w) int32, 0 background, i + 1 the silhouette of particle i (particles of smaller i on top); above n
        particles that reach in from outside
    junk : (h, w) bool, where nothing should be picked
    conditions : see there
    kind : of the micrographs of a session (`cryopick.simulation.session`), "" elsewhere
    """

    micrograph: Micrograph
    xy_px: NDArray[np.float64]
    species: NDArray[np.int32]
    euler_deg: NDArray[np.float64]
    diameter_px: NDArray[np.float32]
    snr: NDArray[np.float32]
    visibility: NDArray[np.float32]
    is_on_junk: NDArray[np.bool_]
    instances: NDArray[np.int32]
    junk: NDArray[np.bool_]
    conditions: Conditions
    kind: str = ""

    @property
    def ctf(self) -> CtfParameters:
        """The optics of this micrograph."""
        return self.conditions.optics

    @property
    def coordinates_px(self) -> NDArray[np.int64]:
        """(n, 2) whole-pixel centres, as `rlnCoordinateX/Y` and extraction use them."""
        return np.rint(self.xy_px).astype(np.int64)

    @property
    def origins_angstrom(self) -> NDArray[np.float64]:
        """(n, 2) `rlnOriginX/YAngst`: the exact centre is coordinate - origin / pixel size."""
        pixel_size = self.micrograph.pixel_size_angstrom or 1.0
        return (self.coordinates_px - self.xy_px) * pixel_size

    @property
    def is_pickable(self) -> NDArray[np.bool_]:
        """(n,) True where missing the particle is a fault: centre off the junk, at least half of it to be seen."""
        return np.asarray(~self.is_on_junk & (self.visibility >= 0.5))


def simulate_micrograph(
    recipe: Recipe,
    seed: int,
    *,
    imagers: Sequence[SpecimenImager],
    index: int = 0,
    name: str = "simulated",
    workers: int = 1,
    target_snr: float | None = None,
    look: looks.Look | None = None,
) -> SimulatedMicrograph:
    """Simulate micrograph number `index` of a seed.

    Parameters
    ----------
    recipe : ranges that everything is drawn from
    seed, index : the result depends on these, the recipe and the specimens alone
    imagers : the species that may occur, at the recipe's pixel size
    name : of the micrograph
    workers : threads for Fourier transforms; the result is the same for any number
    target_snr : sets the dose (then hardly a physical one) so that the median particle of the first species reaches
        this ideal matched-filter SNR in clean ice; None draws the dose from the recipe
    look : what the archive does; None draws it from the recipe

    Raises
    ------
    SettingsError
        No species, or one imaged at another pixel size.
    """
    _check_imagers(recipe, imagers)
    seeds = np.random.SeedSequence(seed, spawn_key=(index,))
    return _Simulation(recipe, seeds, imagers, workers=workers, target_snr=target_snr, look=look).run(name)


def dose_for_snr(recipe: Recipe, rng: np.random.Generator, *, imagers: Sequence[SpecimenImager], snr: float) -> float:
    """Electrons per Å² at which the median particle of the first species reaches a matched-filter SNR in clean ice.

    Parameters
    ----------
    recipe : gives the conditions; where its ranges are wide, those of one draw
    imagers : as in `simulate_micrograph`

    Raises
    ------
    SettingsError
        As `simulate_micrograph`.
    """
    _check_imagers(recipe, imagers)
    small = replace(recipe, shape_yx=(64, 64))  # nothing is imaged, and conditions do not depend on it
    seeds = np.random.SeedSequence(int(rng.integers(2**63)))
    simulation = _Simulation(small, seeds, imagers, workers=1, target_snr=snr, look=None)
    return simulation.draw_conditions(()).dose_e_per_angstrom2


def _check_imagers(recipe: Recipe, imagers: Sequence[SpecimenImager]) -> None:
    if not imagers:
        raise SettingsError("no species given; expected at least one specimen to simulate")
    for imager in imagers:
        if abs(imager.pixel_size_angstrom / recipe.pixel_size_angstrom - 1) > 1e-9:
            raise SettingsError(
                f"{imager.specimen.name} is imaged at {imager.pixel_size_angstrom:g} Å per pixel, the recipe asks for "
                f"{recipe.pixel_size_angstrom:g}; make the imager with the recipe's pixel size"
            )


@dataclass(eq=False)
class _Particles:
    """Truth collected while particles are stamped."""

    xy_px: NDArray[np.float64]
    species: NDArray[np.int32]
    euler_deg: NDArray[np.float64]
    power: NDArray[np.float64] = field(init=False)
    area: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.power = np.zeros(len(self.xy_px))
        self.area = np.zeros(len(self.xy_px), dtype=np.int64)


class _Simulation:
    def __init__(
        self,
        recipe: Recipe,
        seeds: np.random.SeedSequence,
        imagers: Sequence[SpecimenImager],
        *,
        workers: int,
        target_snr: float | None,
        look: looks.Look | None,
    ) -> None:
        # One stream per stage: another number of draws in one stage leaves the others alone.
        stages = [np.random.default_rng(child) for child in seeds.spawn(6)]
        self.rng_layout, self.rng_views, self.rng_dirt, self.rng_optics, self.rng_camera, self.rng_drift = stages
        self.recipe, self.workers, self.target_snr, self.look = recipe, workers, target_snr, look
        self.pixel_size = recipe.pixel_size_angstrom
        margin_px = round(MARGIN_ANGSTROM / self.pixel_size)
        height, width = (int(fft.next_fast_len(side + 2 * margin_px, real=True)) for side in recipe.shape_yx)
        self.shape = height, width  # with the margin; everything is in this frame until `_with_truth`
        top, left = ((outer - inner) // 2 for outer, inner in zip(self.shape, recipe.shape_yx, strict=True))
        self.inner = slice(top, top + recipe.shape_yx[0]), slice(left, left + recipe.shape_yx[1])
        self.corner_xy = np.array([left, top], dtype=np.float64)
        fewest, most = (int(bound) for bound in recipe.layout.species)
        count = min(len(imagers), int(self.rng_layout.integers(max(1, fewest), max(1, most) + 1)))
        chosen = self.rng_layout.choice(len(imagers), count, replace=False)
        self.imagers = {int(number): imagers[int(number)] for number in chosen}
        self.largest_px = max(imager.diameter_px for imager in self.imagers.values())
        self.scene = dirt.Scene(self.shape, self.pixel_size)
        self.instances = np.zeros(self.shape, dtype=np.int32)

    def run(self, name: str) -> SimulatedMicrograph:
        reference = self._reference_view()
        kinds = dirt.draw_kinds(self.rng_dirt, self.recipe.dirt, is_sure=False)
        dirt.add_dirt(
            self.scene,
            self.rng_dirt,
            self.recipe.dirt,
            kinds=kinds,
            particle_angstrom=self.largest_px * self.pixel_size,
            particle_volt_angstrom=float(reference.max()),
        )
        conditions = self.draw_conditions(tuple(kinds))
        particles = self._place_particles()
        transfer = self._transfer(self.shape, conditions)
        power_of = self._stamp_particles(particles, conditions)
        self._add_broken_and_heaped(len(particles.xy_px))
        image = np.ascontiguousarray(self._expose(conditions, transfer)[self.inner])
        self._spoil(image)
        image = looks.apply_look(image, conditions.look, workers=self.workers)
        return self._with_truth(name, image, particles, conditions, power_of)

    def _reference_view(self) -> NDArray[np.float32]:
        largest = max(self.imagers.values(), key=lambda imager: imager.diameter_px)
        view: NDArray[np.float32] = largest.images(np.zeros((1, 3)), np.zeros((1, 2)))[0]
        return view

    def draw_conditions(self, kinds: tuple[str, ...]) -> Conditions:
        """What this micrograph is made with; `kinds` of dirt are passed on."""
        rng, recipe = self.rng_optics, self.recipe
        ice = draw_log(rng, recipe.ice.thickness_angstrom)
        dose = draw_log(rng, recipe.detector.dose_e_per_angstrom2)
        self.mean_free_path = draw(rng, recipe.ice.mean_free_path_angstrom)
        counted = dose * self.pixel_size**2 * draw(rng, recipe.detector.dqe_zero) * np.exp(-ice / self.mean_free_path)
        conditions = Conditions(
            optics=draw_optics(rng, recipe.optics),
            ice_angstrom=ice,
            dose_e_per_angstrom2=dose,
            electrons_per_pixel=float(counted),
            mtf_nyquist=draw(rng, recipe.detector.mtf_nyquist),
            structure_factor=draw(rng, recipe.ice.structure_factor),
            clutter=draw(rng, recipe.ice.clutter),
            dirt=kinds,
            look=looks.draw_look(rng, recipe.look, diameter_px=self.largest_px, pixel_size_angstrom=self.pixel_size),
            drift_angstrom=draw(self.rng_drift, recipe.detector.drift_angstrom),
            drift_angle_deg=float(self.rng_drift.uniform(0, 180)) if recipe.detector.drift_angstrom[1] > 0 else 0.0,
        )
        if self.look is not None:
            conditions = replace(conditions, look=self.look)
        if self.target_snr is None:
            return conditions
        electrons = self._electrons_for(self.target_snr, conditions)
        factor = electrons / conditions.electrons_per_pixel
        return replace(conditions, electrons_per_pixel=electrons, dose_e_per_angstrom2=dose * factor)

    def _electrons_for(self, snr: float, conditions: Conditions) -> float:
        """Electrons per pixel at which the median view of the first species has this matched-filter SNR."""
        imager = next(iter(self.imagers.values()))
        views = imager.images(random_rotations(24, self.rng_optics), np.zeros((24, 2)))
        transfer = self._transfer((imager.size_px, imager.size_px), conditions)
        powers = [_seen_power(view, transfer) for view in views]
        low, high = 1e-6, 1e6
        for _ in range(60):  # bisection: the SNR grows with the dose
            middle = float(np.sqrt(low * high))
            weight = self._filter_weight(transfer, replace(conditions, electrons_per_pixel=middle))
            reached = np.median([float((weight * power).sum()) for power in powers]) ** 0.5
            low, high = (middle, high) if reached < snr else (low, middle)
        return float(np.sqrt(low * high))

    def _transfer(self, shape_yx: tuple[int, int], conditions: Conditions) -> NDArray[np.float32]:
        """From the transform of projected potential to that of contrast, through the optics and over the exposure."""
        transfer = contrast_transfer(shape_yx, self.pixel_size, conditions.optics)
        if conditions.drift_angstrom > 0:
            drift_px = conditions.drift_angstrom / self.pixel_size
            transfer *= drift_transfer(shape_yx, drift_px=drift_px, angle_deg=conditions.drift_angle_deg)
        return transfer

    def _filter_weight(self, transfer: NDArray[np.float32], conditions: Conditions) -> NDArray[np.float32]:
        """The inverse noise power that weighs a signal's squared spectrum, in a box, to SNR²."""
        noise = 1 / conditions.electrons_per_pixel + self._ice_graininess(conditions) ** 2 * transfer**2
        weight = 2 / noise / len(transfer) ** 2  # twice: the half-plane stands for both
        weight[:, 0] /= 2
        return np.asarray(weight, dtype=np.float32)

    # --- particles

    def _place_particles(self) -> _Particles:
        rng, ranges = self.rng_layout, self.recipe.layout
        xy_px = np.zeros((0, 2))
        if rng.random() >= ranges.empty_probability:
            # Particles spread over carbon as well (half of the micrographs), but nothing is seen through gold.
            allowed = None
            if self.scene.film.any() and ("gold" in self.scene.materials or rng.random() < 0.5):
                allowed = (~self.scene.film).astype(np.float32)
            xy_px = layout.draw_centres(rng, self.shape, ranges, diameter_px=self.largest_px, allowed=allowed)
        xy_px = xy_px[np.argsort(~self._is_inside(xy_px), kind="stable")]  # those inside come first
        rng = self.rng_views
        species = rng.choice(list(self.imagers), size=len(xy_px)).astype(np.int32)
        euler = random_rotations(len(xy_px), rng)
        for number, imager in self.imagers.items():
            directions = imager.specimen.preferred_rot_tilt_deg
            members = np.flatnonzero(species == number)
            if len(directions) and len(members):
                gathered = members[rng.random(len(members)) < rng.uniform(0.6, 1.0)]
                spread_deg = rng.uniform(3, 20)
                chosen = directions[rng.integers(len(directions), size=len(gathered))]
                euler[gathered, :2] = chosen + rng.normal(0, spread_deg, chosen.shape)
        return _Particles(xy_px=xy_px, species=species, euler_deg=euler)

    def _is_inside(self, xy_px: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) True where the nearest pixel of a centre is inside the micrograph."""
        column_row = np.rint(xy_px - self.corner_xy)
        return np.asarray(np.all((column_row >= 0) & (column_row < self.recipe.shape_yx[::-1]), axis=1))

    def _images_of(self, particles: _Particles) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(particle, image) in batches that fit in memory, species by species."""
        for number, imager in self.imagers.items():
            members = np.flatnonzero(particles.species == number)
            for first in range(0, len(members), 64):
                batch = members[first : first + 64]
                xy_px = particles.xy_px[batch]
                images = imager.images(particles.euler_deg[batch], xy_px - np.rint(xy_px))
                yield from zip(batch.tolist(), images, strict=True)

    def _stamp_particles(self, particles: _Particles, conditions: Conditions) -> NDArray[np.float64]:
        """Add all particles to the scene; (n,) squared matched-filter SNR of each in clean ice."""
        power = np.zeros(len(particles.xy_px))
        filters: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        silhouettes: dict[int, tuple[slice, slice, NDArray[np.bool_]]] = {}
        for i, image in self._images_of(particles):
            rows, columns, patch = self._clip(image, particles.xy_px[i])
            self.scene.potential[rows, columns] += patch
            silhouette = image > layout.SILHOUETTE_LEVEL * image.max()
            particles.area[i] = np.count_nonzero(silhouette)
            silhouettes[i] = (rows, columns, self._clip(silhouette, particles.xy_px[i])[2])
            size = image.shape[0]
            if size not in filters:
                transfer = self._transfer((size, size), conditions)
                filters[size] = transfer, self._filter_weight(transfer, conditions)
            transfer, weight = filters[size]
            power[i] = float((weight * _seen_power(image, transfer)).sum())
        for i in sorted(silhouettes, reverse=True):
            rows, columns, silhouette = silhouettes[i]
            self.instances[rows, columns][silhouette] = i + 1
        return power

    def _ice_graininess(self, conditions: Conditions) -> float:
        return float(
            graininess_volt_angstrom(
                conditions.ice_angstrom,
                pixel_size_angstrom=self.pixel_size,
                structure_factor=conditions.structure_factor,
            )
        )

    def _clip(self, image: NDArray[Any], xy_px: NDArray[np.float64]) -> tuple[slice, slice, NDArray[Any]]:
        """Where an image with its middle at the pixel nearest to `xy_px` lies in the micrograph, and that part."""
        size = image.shape[0]
        top, left = round(float(xy_px[1])) - size // 2, round(float(xy_px[0])) - size // 2
        return layout.cut_to_scene(image, top=top, left=left, shape_yx=self.shape)

    def _add_broken_and_heaped(self, particle_count: int) -> None:
        rng, ranges = self.rng_dirt, self.recipe.dirt
        imager = next(iter(self.imagers.values()))
        height, width = self.shape
        if rng.random() < ranges.fragment_probability:
            count = round(particle_count * draw(rng, ranges.fragment_count))
            for _ in range(min(count, 500)):
                self._add_junk_particle(imager, rng.uniform([0, 0], [width, height]), is_broken=True)
        if rng.random() < ranges.aggregate_probability:
            for _ in range(max(1, round(particle_count * draw(rng, ranges.aggregate_count)))):
                middle = rng.uniform([0, 0], [width, height])
                members = draw_count(rng, (4, 14))
                spread = imager.diameter_px * 0.14 * np.sqrt(members)
                for xy_px in middle + rng.normal(0, spread, (members, 2)):
                    self._add_junk_particle(imager, xy_px, is_broken=False)

    def _add_junk_particle(self, imager: SpecimenImager, xy_px: NDArray[np.float64], *, is_broken: bool) -> None:
        rng = self.rng_dirt
        image = imager.images(random_rotations(1, rng), np.zeros((1, 2)))[0]
        level = layout.SILHOUETTE_LEVEL * float(image.max())
        if is_broken:
            offset = np.arange(image.shape[0], dtype=np.float32) - image.shape[0] // 2
            angle = rng.uniform(0, 2 * np.pi)
            side = np.float32(np.cos(angle)) * offset[None, :] + np.float32(np.sin(angle)) * offset[:, None]
            image = image * np.clip(side - np.float32(rng.uniform(0.05, 0.3) * imager.diameter_px), 0, 1)
        rows, columns, patch = self._clip(image, xy_px)
        self.scene.potential[rows, columns] += patch
        self.scene.junk[rows, columns] |= patch > level

    # --- beam and camera

    def _expose(self, conditions: Conditions, transfer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Electrons counted per pixel, blurred by the camera, (h, w) float32."""
        rng, ranges, scene = self.rng_camera, self.recipe.ice, self.scene
        film = relative_thickness(
            rng,
            self.shape,
            gradient=draw(rng, ranges.gradient),
            lens=draw(rng, ranges.lens),
            waviness=draw(rng, ranges.waviness),
        )
        grain = np.sqrt(film) * np.float32(self._ice_graininess(conditions))
        if scene.grain.any():
            grain += scene.grain
        white = rng.standard_normal(self.shape, dtype=np.float32)
        white *= grain
        scene.potential += white
        del white, grain
        if conditions.clutter > 0:
            scene.potential += self._clutter(conditions)
        spectrum = fft.rfft2(scene.potential, workers=self.workers)
        spectrum *= transfer
        mtf = self._mtf(conditions.mtf_nyquist)
        spectrum *= mtf
        intensity = fft.irfft2(spectrum, s=self.shape, workers=self.workers).astype(np.float32, copy=False)
        del spectrum
        np.clip(intensity, -0.95, 4.0, out=intensity)
        intensity += 1
        intensity *= np.exp(np.float32(-conditions.ice_angstrom / self.mean_free_path) * (film - 1) - scene.opacity)
        image = detector.expose(rng, intensity, electrons_per_pixel=conditions.electrons_per_pixel)
        image *= np.float32(conditions.electrons_per_pixel)
        # The signal was blurred before counting; counting noise is blurred less (half of the exponent), so that the
        # detective quantum efficiency falls towards Nyquist as it does in cameras.
        spectrum = fft.rfft2(image, workers=self.workers)
        spectrum *= np.sqrt(mtf)
        return np.asarray(fft.irfft2(spectrum, s=self.shape, workers=self.workers), dtype=np.float32)

    def _clutter(self, conditions: Conditions) -> NDArray[np.float32]:
        """Unfolded protein and other debris: small soft lumps everywhere, as strong as the ice's own graininess."""
        rng = self.rng_camera
        longer = max(self.shape)
        length_angstrom = draw_log(rng, (12.0, 40.0))
        cells = int(np.clip(longer * self.pixel_size / length_angstrom, 4, longer))
        # The graininess of ice averaged over one lump, which is what a lump has to compete with.
        per_lump = self._ice_graininess(conditions) * self.pixel_size / length_angstrom
        lumps = smooth_field(rng, self.shape, cells=cells)
        lumps *= np.float32(conditions.clutter * per_lump)
        return lumps

    def _mtf(self, at_nyquist: float) -> NDArray[np.float32]:
        """The camera's blur of the signal, (h, w // 2 + 1)."""
        y = np.abs(fft.fftfreq(self.shape[0]).astype(np.float32))[:, None] * 2
        x = fft.rfftfreq(self.shape[1]).astype(np.float32)[None, :] * 2
        return np.asarray(np.exp(np.float32(np.log(at_nyquist)) * (y * y + x * x)), dtype=np.float32)

    def _spoil(self, image: NDArray[np.float32]) -> None:
        rng, ranges = self.rng_camera, self.recipe.detector
        residue = draw(rng, ranges.gain_residue)
        if rng.random() < 0.5:
            detector.add_gain_residue(rng, image, strength=residue)
        hot = round(draw(rng, ranges.hot_pixel_fraction) * image.size)
        detector.add_hot_pixels(rng, image, count=hot, strength=draw_log(rng, (5.0, 50.0)))
        if rng.random() < ranges.dead_line_probability:
            detector.add_dead_lines(rng, image, count=draw_count(rng, (1, 3)))
        if rng.random() < ranges.border_probability:
            sides = [
                round(draw(rng, ranges.border_share) * side) for side in (*self.shape[:1] * 2, *self.shape[1:] * 2)
            ]
            is_hit = rng.random(4) < 0.6
            top, bottom, left, right = (side if hit else 0 for side, hit in zip(sides, is_hit, strict=True))
            self.scene.junk[self.inner] |= detector.replicate_border(image, widths_px=(top, bottom, left, right))

    def _with_truth(
        self,
        name: str,
        image: NDArray[np.float32],
        particles: _Particles,
        conditions: Conditions,
        power: NDArray[np.float64],
    ) -> SimulatedMicrograph:
        n = int(np.count_nonzero(self._is_inside(particles.xy_px)))
        xy_px = particles.xy_px[:n] - self.corner_xy
        junk, instances = (
            np.ascontiguousarray(self.scene.junk[self.inner]),
            np.ascontiguousarray(self.instances[self.inner]),
        )
        species = particles.species[:n]
        return SimulatedMicrograph(
            micrograph=Micrograph(pixels=image, name=name, pixel_size_angstrom=self.pixel_size),
            xy_px=xy_px,
            species=species,
            euler_deg=particles.euler_deg[:n],
            diameter_px=np.array([self.imagers[int(number)].diameter_px for number in species], dtype=np.float32),
            snr=np.sqrt(power[:n]).astype(np.float32),
            visibility=layout.visible_share(instances, junk, area_px=particles.area[:n]),
            is_on_junk=np.asarray(layout.sample_nearest(junk, xy_px), dtype=bool),
            instances=instances,
            junk=junk,
            conditions=conditions,
        )


def _seen_power(image: NDArray[np.float32], transfer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared spectrum of a projected potential behind the transfer function."""
    signal = fft.rfft2(image) * transfer
    return np.asarray(signal.real**2 + signal.imag**2)
