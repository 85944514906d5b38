"""Endless training crops at working scale: small images in which the particle has about a given number of pixels.

A crop is simulated directly at the pixel size at which a picker looks at it, so it costs milliseconds. Lengths, CTF and
potentials stay physical; the dose does not: it is set so that the particle is as easy or hard to see as drawn
(`detection_snr`), because small proteins would otherwise always be invisible and large ones always trivial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.geometry.units import Range
from cryopick.processing.ctf import CtfParameters
from cryopick.simulation.recipe import Recipe, draw, draw_count, draw_log
from cryopick.simulation.scene import archive as looks
from cryopick.simulation.scene import dirt, layout
from cryopick.simulation.scene.detector import add_dead_lines, add_hot_pixels, replicate_border, transfer
from cryopick.simulation.scene.ice import smooth_field
from cryopick.simulation.scene.optics import contrast_transfer, draw_optics
from cryopick.simulation.specimens.species_pool import STOCK_DIAMETERS_PX, SpeciesPool, StockedSpecies

MARGIN_PX = 16
"""Simulated around the crop and cut away, so that particles are cut by its border and little wraps around."""
SECOND_SPECIES_PROBABILITY = 0.15
FILM_MARGIN_PX = 56
"""The same where a support film would otherwise send strong fringes around the border."""


@dataclass(frozen=True, kw_only=True)
class CropRanges:
    """What crops vary beyond a `Recipe`.

    Parameters
    ----------
    detection_snr : signal-to-noise ratio of an ideal matched filter on one particle, log-uniform; near 4 even the
        ideal detector misses a third
    diameter_error : factor by which the particle is larger or smaller than nominal, log-uniform
    diameter_angstrom : of the species, log-uniform
    empty_probability, junk_only_probability : crops without particles: clean, and with dirt alone
    solvent_noise : power of noise that passed the CTF, relative to the shot noise
    gradient_sigma, wave_sigma : slow brightness changes across the crop in standard deviations of the noise
    blotch_probability, blotch_strength, blotch_diameters : soft dark patches of thicker ice over and between particles,
        which stay to be picked; strength relative to the particle's peak, size in particle diameters
    ghost_probability, ghost_share, ghost_strength : faint things that are not to be picked, in crops with and without
        particles: thin round ice of any size and blurred protein; their number relative to the particles, their
        contrast relative to a particle's peak
    strength_spread : standard deviation of the logarithm of the contrast of one particle relative to the others
    """

    detection_snr: Range = (3.8, 30.0)
    diameter_error: Range = (0.6, 1.6)
    diameter_angstrom: Range = (60.0, 600.0)
    empty_probability: float = 0.06
    junk_only_probability: float = 0.12
    solvent_noise: Range = (0.0, 1.0)
    gradient_sigma: Range = (0.03, 4.0)
    wave_sigma: Range = (0.01, 0.6)
    blotch_probability: float = 0.3
    blotch_strength: Range = (0.15, 1.2)
    blotch_diameters: Range = (1.5, 6.0)
    ghost_probability: float = 0.4
    ghost_share: Range = (0.05, 0.6)
    ghost_strength: Range = (0.1, 0.5)
    strength_spread: Range = (0.0, 0.2)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, tuple) and value[0] > value[1]:
                raise SettingsError(f"{name} is {value[0]:g} to {value[1]:g}: the lowest value is above the highest")


@dataclass(frozen=True, eq=False)
class Crop:
    """A training image and its truth.

    Parameters
    ----------
    image : (h, w) float32, arbitrary brightness and contrast, particles dark
    xy_px : (n, 2) float64, centres of the particles to be picked; all lie inside and off the junk
    diameter_px : (n,) float32, largest extent of the species
    snr : (n,) float32, what an ideal matched filter would reach on this particle alone
    visibility : (n,) float32 in [0, 1], share of the silhouette that is inside, uncovered by other particles and junk
    instances : (h, w) int32, 0 background, i + 1 the silhouette of particle i; above n: particles that are not to be
        picked because their centre is outside or on junk
    junk : (h, w) bool, film, contamination, heaps, fragments, replicated borders
    pixel_size_angstrom : of the crop
    optics : its CTF
    """

    image: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    diameter_px: NDArray[np.float32]
    snr: NDArray[np.float32]
    visibility: NDArray[np.float32]
    instances: NDArray[np.int32]
    junk: NDArray[np.bool_]
    pixel_size_angstrom: float
    optics: CtfParameters


class CropGenerator:
    """Crops without end or repetition; crop `i` depends on the seed and `i` alone.

    Parameters
    ----------
    recipe : ranges of optics, dirt, layout and looks; its shape, pixel size, ice and dose are not used
    seed : of everything
    crop_px : side of the crop
    particle_px_range : nominal particle diameter in pixels, before `ranges.diameter_error`
    ranges : see `CropRanges`
    pool_size, views_per_species, crops_per_species : see `SpeciesPool`

    Examples
    --------
    >>> generator = CropGenerator(seed=1)          # doctest: +SKIP
    >>> crop = generator.crop(0)                   # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        seed: int = 0,
        *,
        crop_px: int = 256,
        particle_px_range: Range = (16.0, 24.0),
        ranges: CropRanges | None = None,
        pool_size: int = 24,
        views_per_species: int = 64,
        crops_per_species: int = 200,
    ) -> None:
        if crop_px < 64:
            raise SettingsError(f"crop_px is {crop_px}, expected at least 64")
        if not 4 <= particle_px_range[0] <= particle_px_range[1] <= crop_px / 3:
            raise SettingsError(
                f"particle_px_range is {particle_px_range}, expected 4 <= low <= high <= a third of crop_px ({crop_px})"
            )
        self.recipe = recipe or Recipe()
        if self.recipe.detector.drift_angstrom[1] > 0:
            raise SettingsError("crops are made without drift; give drift_angstrom = (0, 0), or use MicrographCrops")
        self.ranges = ranges or CropRanges()
        self.seed, self.crop_px, self.particle_px_range = seed, crop_px, particle_px_range
        self.pool = SpeciesPool(
            seed,
            size=pool_size,
            views_per_species=views_per_species,
            crops_per_species=crops_per_species,
            diameter_angstrom=self.ranges.diameter_angstrom,
            preferred_probability=self.recipe.layout.preferred_probability,
        )

    def crops(self, start: int = 0, step: int = 1) -> Iterator[Crop]:
        """Crops number start, start + step, ...: worker k of n takes `crops(k, n)`."""
        index = start
        while True:
            yield self.crop(index)
            index += step

    def crop(self, index: int) -> Crop:
        """Crop number `index`."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(0, index)))
        species = self.pool.species_for_crop(index, rng)
        nominal_px = draw(rng, self.particle_px_range) * draw_log(rng, self.ranges.diameter_error)
        painter = _Painter(self, rng, species, nominal_px)
        if rng.random() < SECOND_SPECIES_PROBABILITY:
            painter.add_species(self.pool.species_for_crop(index, rng))
        return painter.paint()


@dataclass(eq=False)
class _Stamp:
    """One particle drawn at its place."""

    xy_px: tuple[float, float]
    diameter_px: float
    power: float
    rows: slice
    columns: slice
    silhouette: NDArray[np.bool_]
    area: int = field(init=False)

    def __post_init__(self) -> None:
        self.area = int(np.count_nonzero(self.silhouette))


class _Painter:
    """Makes one crop; the steps follow the electrons."""

    def __init__(
        self, generator: CropGenerator, rng: np.random.Generator, species: StockedSpecies, diameter_px: float
    ) -> None:
        self.rng, self.recipe, self.ranges = rng, generator.recipe, generator.ranges
        self.crop_px = generator.crop_px
        kind = rng.random()
        self.is_empty = kind < self.ranges.empty_probability
        self.has_particles = kind > self.ranges.empty_probability + self.ranges.junk_only_probability
        is_sure = not self.is_empty and not self.has_particles
        kinds = dirt.draw_kinds(rng, self.recipe.dirt, is_sure=is_sure)
        self.dirt_kinds = [] if self.is_empty else kinds
        has_film = "carbon" in self.dirt_kinds or "gold" in self.dirt_kinds
        margin_px = FILM_MARGIN_PX if has_film else MARGIN_PX
        self.size = fft.next_fast_len(generator.crop_px + 2 * margin_px, real=True)
        self.shape = (self.size, self.size)
        self.diameter_px = diameter_px
        self.pixel_size = species.diameter_angstrom / diameter_px
        self.species = [species]
        self.optics = draw_optics(rng, self.recipe.optics)
        self.transfer = contrast_transfer(self.shape, self.pixel_size, self.optics)
        self.scene = dirt.Scene(self.shape, self.pixel_size)
        self.peak = float(np.median(species.views.max(axis=(1, 2))))  # V Å, what dirt is compared with
        self.particles = np.zeros(self.shape, dtype=np.float32)
        self.stamps: list[_Stamp] = []
        self.strength_spread = draw(rng, self.ranges.strength_spread)

    def add_species(self, species: StockedSpecies) -> None:
        """A second species, when it is not too different in size to share a field of view."""
        if 0.5 < species.diameter_angstrom / self.species[0].diameter_angstrom < 1.5:
            self.species.append(species)

    def paint(self) -> Crop:
        dirt.add_dirt(
            self.scene,
            self.rng,
            self.recipe.dirt,
            kinds=self.dirt_kinds,
            particle_angstrom=self.diameter_px * self.pixel_size,
            particle_volt_angstrom=self.peak,
            is_covering=not self.has_particles,
        )
        if self.has_particles:
            for xy_px in self._centres():
                self._stamp(xy_px)
            self._add_broken_and_heaped()
        if not self.is_empty and self.rng.random() < self.ranges.ghost_probability:
            self._add_ghosts()
        image = self._expose()
        image = self._spoil(image)
        image = self._look(image)
        return self._cut(image)

    # --- layout

    def _centres(self) -> list[tuple[float, float]]:
        xy_px = layout.draw_centres(self.rng, self.shape, self.recipe.layout, diameter_px=self.diameter_px)
        return [(float(x), float(y)) for x, y in xy_px]

    # --- particles

    def _draw_view(
        self, species: StockedSpecies, xy_px: tuple[float, float]
    ) -> tuple[slice, slice, NDArray[np.float32]]:
        """A random view of a species, turned and scaled, centred at `xy_px`, cut to the scene."""
        import cv2

        rng = self.rng
        diameter_px = species.diameter_angstrom / self.pixel_size
        views, stocked_px = species.views_for(diameter_px)
        number = int(rng.integers(len(views)))
        view = views[number]
        scale = diameter_px / stocked_px
        column, row = round(xy_px[0]), round(xy_px[1])
        reach = int(np.ceil(float(species.reach[number]) * diameter_px + 1.5))
        angle = rng.uniform(0, 2 * np.pi)
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
        middle = view.shape[-1] // 2
        offset_x, offset_y = reach + xy_px[0] - column, reach + xy_px[1] - row  # the centre inside the patch
        matrix = np.array(
            [
                [mirror * cosine, -mirror * sine, middle - mirror * (cosine * offset_x - sine * offset_y)],
                [sine, cosine, middle - sine * offset_x - cosine * offset_y],
            ]
        )
        if scale < 0.7:  # what would alias is blurred away first
            view = np.asarray(cv2.GaussianBlur(view, (0, 0), 0.4 / scale), dtype=np.float32)
        side = 2 * reach + 1
        warped = cv2.warpAffine(view, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        patch = np.asarray(warped, dtype=np.float32)
        top, left = row - reach, column - reach
        return layout.cut_to_scene(patch, top=top, left=left, shape_yx=self.shape)

    def _stamp(self, xy_px: tuple[float, float]) -> None:
        which = 0 if len(self.species) == 1 else int(self.rng.integers(len(self.species)))
        species = self.species[which]
        rows, columns, patch = self._draw_view(species, xy_px)
        if patch.size == 0:
            return
        patch = patch * np.float32(np.exp(self.strength_spread * self.rng.standard_normal()))
        self.particles[rows, columns] += patch
        self.stamps.append(
            _Stamp(
                xy_px=xy_px,
                diameter_px=species.diameter_angstrom / self.pixel_size,
                power=float(np.vdot(patch, patch)),
                rows=rows,
                columns=columns,
                silhouette=patch > layout.SILHOUETTE_LEVEL * patch.max(),
            )
        )

    def _add_broken_and_heaped(self) -> None:
        rng, ranges = self.rng, self.recipe.dirt
        scene, species = self.scene, self.species[0]
        if rng.random() < ranges.fragment_probability:
            for _ in range(max(1, round(len(self.stamps) * draw(rng, ranges.fragment_count)))):
                xy_px = tuple(rng.uniform(0, self.size, 2))
                rows, columns, patch = self._draw_view(species, xy_px)
                if patch.size == 0:
                    continue
                angle = rng.uniform(0, 2 * np.pi)
                y = np.arange(rows.start, rows.stop)[:, None] - xy_px[1]
                x = np.arange(columns.start, columns.stop)[None, :] - xy_px[0]
                side = np.cos(angle) * x + np.sin(angle) * y - rng.uniform(0.05, 0.3) * self.diameter_px
                patch = patch * np.clip(side, 0, 1).astype(np.float32)
                scene.potential[rows, columns] += patch
                scene.junk[rows, columns] |= patch > layout.SILHOUETTE_LEVEL * max(self.peak, 1e-6)
        if rng.random() < ranges.aggregate_probability:
            for _ in range(draw_count(rng, (1, 2))):
                middle = rng.uniform(0, self.size, 2)
                members = draw_count(rng, (4, 14))
                spread = self.diameter_px * 0.28 * np.sqrt(members)
                for x, y in middle + rng.normal(0, spread / 2, (members, 2)):
                    rows, columns, patch = self._draw_view(species, (float(x), float(y)))
                    if patch.size:
                        scene.potential[rows, columns] += patch
                        scene.junk[rows, columns] |= patch > layout.SILHOUETTE_LEVEL * patch.max()

    def _add_ghosts(self) -> None:
        """Faint round ice and blurred protein: what a careful eye leaves out although it is darker than the ice."""
        import cv2

        rng = self.rng
        likely = len(self.stamps) or 0.3 * self.size**2 / self.diameter_px**2
        typical = draw_log(rng, (0.4, 1.6))  # size of the round ones, particle diameters
        is_round = rng.random() < 0.6
        for _ in range(max(1, round(likely * draw_log(rng, self.ranges.ghost_share)))):
            x, y = rng.uniform(0, self.size, 2)
            volt_angstrom = np.float32(self.peak * draw_log(rng, self.ranges.ghost_strength))
            if not is_round:
                rows, columns, patch = self._draw_view(self.species[0], (float(x), float(y)))
                if patch.size and patch.max() > 0:
                    blurred = cv2.GaussianBlur(patch, (0, 0), self.diameter_px * rng.uniform(0.08, 0.2))
                    patch = np.asarray(blurred, dtype=np.float32)
                    self.scene.potential[rows, columns] += patch * (volt_angstrom / max(float(patch.max()), 1e-6))
                continue
            radius = 0.5 * self.diameter_px * typical * float(np.exp(rng.normal(0, 0.35)))
            soft = radius * rng.uniform(0.1, 0.5)
            reach = int(np.ceil(1.3 * radius + 3 * soft))
            rows = slice(max(0, round(y) - reach), min(self.size, round(y) + reach + 1))
            columns = slice(max(0, round(x) - reach), min(self.size, round(x) + reach + 1))
            aspect = np.float32(np.exp(rng.normal(0, 0.15)))
            dy = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y)) * aspect
            dx = (np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(x)) / aspect
            disc = 0.5 * (1 + np.tanh((np.float32(radius) - np.hypot(dx, dy)) / np.float32(soft)))
            self.scene.potential[rows, columns] += volt_angstrom * 1.6 * disc

    # --- optics and camera

    def _expose(self) -> NDArray[np.float32]:
        rng, scene = self.rng, self.scene
        solvent = draw(rng, self.ranges.solvent_noise)
        power, noise_gain = self._matched_filter_power(solvent)
        snr = draw_log(rng, self.ranges.detection_snr)
        electrons = snr**2 / max(power, 1e-12)  # per pixel: the ideal SNR grows with the square root of the dose
        self.snr_per_root_power = snr / np.sqrt(max(self._reference_power, 1e-12))
        noise = np.float32(1 / np.sqrt(electrons))
        self.noise = float(noise)
        solvent_volt_angstrom = noise * np.float32(np.sqrt(solvent) / noise_gain)

        potential = scene.potential
        potential += self.particles
        if rng.random() < self.ranges.blotch_probability:
            cells = max(2, round(self.size / (self.diameter_px * draw_log(rng, self.ranges.blotch_diameters))))
            blotches = np.clip(smooth_field(rng, self.shape, cells=cells) - np.float32(rng.uniform(0, 1.5)), 0, 2)
            potential += np.float32(self.peak * draw_log(rng, self.ranges.blotch_strength)) * blotches
        spectrum = fft.rfft2(potential)
        if solvent > 0.02 or scene.film.any():
            graininess = np.full(self.shape, solvent_volt_angstrom)
            if scene.film.any():  # evaporated carbon is grainier than ice
                graininess += scene.film * np.float32(noise / noise_gain * rng.uniform(0.5, 2.5))
            graininess *= rng.standard_normal(self.shape, dtype=np.float32)
            grain_spectrum = fft.rfft2(graininess)
            if rng.random() < 0.5:  # unfolded protein and debris are coarser than water
                grain_spectrum *= self._coarse_response(rng)
            spectrum += grain_spectrum
        spectrum *= self.transfer
        contrast = fft.irfft2(spectrum, s=self.shape)
        intensity = np.clip(contrast, -0.95, 4.0)
        intensity += 1
        if self.dirt_kinds:
            intensity *= np.exp(-scene.opacity)
        shot = rng.standard_normal(self.shape, dtype=np.float32)
        shot *= np.sqrt(intensity)
        image = intensity + noise * shot
        gradient = draw_log(rng, self.ranges.gradient_sigma) * self.noise
        image += np.float32(gradient) * smooth_field(rng, self.shape, cells=1)
        waves = draw_log(rng, self.ranges.wave_sigma) * self.noise
        image += np.float32(waves) * smooth_field(rng, self.shape, cells=draw_count(rng, (3, 7)))
        return np.asarray(image, dtype=np.float32)

    def _matched_filter_power(self, solvent: float) -> tuple[float, float]:
        """Squared SNR per electron per pixel of one particle, and the rms of the transfer function."""
        species = self.species[0]
        view = species.views[int(self.rng.integers(len(species.views)))]
        stock_pixel = species.diameter_angstrom / STOCK_DIAMETERS_PX[0]
        transfer_stock = contrast_transfer(view.shape, stock_pixel, self.optics)
        # The crop's grid ends at its own Nyquist frequency: what lies beyond it is not seen.
        y = fft.fftfreq(view.shape[0])[:, None]
        x = fft.rfftfreq(view.shape[1])[None, :]
        is_seen = np.hypot(y, x) < 0.5 * stock_pixel / self.pixel_size
        noise_gain = float(np.sqrt(np.mean(self.transfer**2)))
        weight = np.full(x.shape, 2.0)
        weight[0, 0] = 1.0
        signal = np.abs(fft.rfft2(view) * transfer_stock) ** 2 * weight * is_seen
        signal = signal / (1 + solvent * transfer_stock**2 / noise_gain**2)
        area_ratio = (stock_pixel / self.pixel_size) ** 2  # stock pixels to crop pixels
        power = float(signal.sum()) / view.size * area_ratio
        self._reference_power = float(np.vdot(view, view)) * area_ratio
        return power, noise_gain

    def _coarse_response(self, rng: np.random.Generator) -> NDArray[np.float32]:
        length_px = np.float32(self.diameter_px * rng.uniform(0.08, 0.3))
        y = fft.fftfreq(self.size).astype(np.float32)[:, None]
        x = fft.rfftfreq(self.size).astype(np.float32)[None, :]
        boost = np.float32(rng.uniform(0.5, 3.0))
        return np.asarray(1 + boost * np.exp(-(y * y + x * x) * (np.float32(np.pi) * length_px) ** 2), dtype=np.float32)

    def _spoil(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        rng, ranges = self.rng, self.recipe.detector
        if rng.random() < 0.1:
            add_hot_pixels(rng, image, count=draw_count(rng, (1, 12)), strength=draw_log(rng, (3.0, 40.0)))
        if rng.random() < ranges.dead_line_probability:
            add_dead_lines(rng, image, count=draw_count(rng, (1, 3)))
        if rng.random() < ranges.border_probability:
            inset = (self.size - self.crop_px) // 2
            widths = [inset + int(rng.integers(2, 14)) if rng.random() < 0.4 else 0 for _ in range(4)]
            self.scene.junk |= replicate_border(image, widths_px=(widths[0], widths[1], widths[2], widths[3]))
        return image

    # --- looks

    def _look(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        rng = self.rng
        response = None
        if rng.random() < 0.5:
            y = np.abs(fft.fftfreq(self.size).astype(np.float32))[:, None] * 2
            x = fft.rfftfreq(self.size).astype(np.float32)[None, :] * 2
            response = transfer(np.sqrt(y * y + x * x), at_nyquist=rng.uniform(0.3, 0.95))
        look = looks.draw_look(rng, self.recipe.look, diameter_px=self.diameter_px, pixel_size_angstrom=self.pixel_size)
        image = looks.apply_look(image, look, response=response)
        return image if look.is_8_bit else np.asarray(image * np.float32(draw_log(rng, (0.1, 1000.0))))

    # --- truth

    def _cut(self, image: NDArray[np.float32]) -> Crop:
        inset = (self.size - self.crop_px) // 2
        inner = slice(inset, inset + self.crop_px)
        junk = self.scene.junk[inner, inner]
        is_picked = []
        for stamp in self.stamps:
            x, y = stamp.xy_px[0] - inset, stamp.xy_px[1] - inset
            is_inside = -0.5 <= x < self.crop_px - 0.5 and -0.5 <= y < self.crop_px - 0.5
            is_picked.append(is_inside and not junk[round(y), round(x)])
        order = sorted(range(len(self.stamps)), key=lambda i: not is_picked[i])
        n = sum(is_picked)
        instances = np.zeros(self.shape, dtype=np.int32)
        for label, i in reversed(list(enumerate(order, start=1))):  # particles to be picked lie on top
            stamp = self.stamps[i]
            instances[stamp.rows, stamp.columns][stamp.silhouette] = label
        instances = instances[inner, inner]
        picked = [self.stamps[i] for i in order[:n]]
        area = np.array([stamp.area for stamp in picked], dtype=np.int64)
        power = np.array([stamp.power for stamp in picked])
        return Crop(
            image=np.ascontiguousarray(image[inner, inner]),
            xy_px=np.array([stamp.xy_px for stamp in picked]).reshape(-1, 2) - inset,
            diameter_px=np.array([stamp.diameter_px for stamp in picked], dtype=np.float32),
            snr=(self.snr_per_root_power * np.sqrt(power)).astype(np.float32).reshape(-1),
            visibility=layout.visible_share(instances, junk, area_px=area),
            instances=np.ascontiguousarray(instances),
            junk=np.ascontiguousarray(junk),
            pixel_size_angstrom=self.pixel_size,
            optics=self.optics,
        )
