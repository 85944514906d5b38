"""What lies in the beam besides particles and clean ice, drawn into a `Scene` one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cryopick.simulation.recipe import DirtRanges, draw, draw_count, draw_log
from cryopick.simulation.scene.ice import (
    CARBON_PER_ANGSTROM3,
    CARBON_VOLT,
    CARBON_VOLT_ANGSTROM3,
    ICE_VOLT,
    graininess_volt_angstrom,
    smooth_field,
)

GOLD_VOLT = 25.0
"""Mean inner potential of gold, V (measured 22 to 30)."""
CARBON_MEAN_FREE_PATH_ANGSTROM = 2000.0
"""Thickness of carbon that leaves 1/e of the electrons inside the aperture."""
GOLD_MEAN_FREE_PATH_ANGSTROM = 250.0
"""The same for gold, whose elastic scattering mostly leaves the aperture."""
VISIBLE_TEXTURE = 0.5
"""Crystalline ice is junk where its standard deviation over a particle's width reaches this share of a particle's
greatest potential: below, particles stand out as in clean ice, and between coarse grains nothing is to be seen …"""
VISIBLE_GRAIN = 1.0
"""… and where its mean over that width differs from the ice around by this share, in grains wider than a particle: to a
particle, a slow change below that is uneven ice."""


@dataclass(eq=False)
class Scene:
    """Everything in the beam, summed along it.

    Parameters
    ----------
    shape_yx : rows, columns
    pixel_size_angstrom : Å per pixel
    potential : (h, w) float32, projected potential above that of the ice film, V Å
    opacity : (h, w) float32, optical depth above that of the film: intensity falls by exp(-opacity)
    grain : (h, w) float32, standard deviation of random projected potential beyond that of the ice, V Å
    junk : (h, w) bool, where nothing should be picked
    film : (h, w) bool, where the support film is
    materials : of the support films
    """

    shape_yx: tuple[int, int]
    pixel_size_angstrom: float
    potential: NDArray[np.float32] = field(init=False)
    opacity: NDArray[np.float32] = field(init=False)
    grain: NDArray[np.float32] = field(init=False)
    junk: NDArray[np.bool_] = field(init=False)
    film: NDArray[np.bool_] = field(init=False)
    materials: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name in ("potential", "opacity", "grain"):
            setattr(self, name, np.zeros(self.shape_yx, dtype=np.float32))
        for name in ("junk", "film"):
            setattr(self, name, np.zeros(self.shape_yx, dtype=bool))


KINDS = ("carbon", "gold", "blobs", "crystalline", "fibres")


def draw_kinds(rng: np.random.Generator, ranges: DirtRanges, *, is_sure: bool) -> list[str]:
    """Which of `KINDS` one micrograph holds; at least one when `is_sure`."""
    probabilities = (
        ranges.carbon_probability,
        ranges.gold_probability,
        ranges.blob_probability,
        ranges.crystalline_probability,
        ranges.fibre_probability,
    )
    present = [kind for kind, probability in zip(KINDS, probabilities, strict=True) if rng.random() < probability]
    return present or [str(rng.choice(KINDS))] if is_sure else present


def add_dirt(
    scene: Scene,
    rng: np.random.Generator,
    ranges: DirtRanges,
    *,
    kinds: list[str],
    particle_angstrom: float,
    particle_volt_angstrom: float,
    is_covering: bool = False,
) -> None:
    """Add dirt of the given kinds.

    Parameters
    ----------
    kinds : of `KINDS`
    particle_angstrom, particle_volt_angstrom : diameter and greatest projected potential of the particles: much of the
        dirt is made about as large and as dark, because that is what pickers confuse with particles
    is_covering : True lets film and crystalline ice cover the whole scene
    """
    for kind in kinds:
        if kind in ("carbon", "gold"):
            thickness = ranges.carbon_thickness_angstrom if kind == "carbon" else ranges.gold_thickness_angstrom
            add_film_edge(
                scene,
                rng,
                material=kind,
                thickness_angstrom=draw(rng, thickness),
                hole_radius_angstrom=draw_log(rng, ranges.hole_radius_angstrom),
                share=1.0 if is_covering and rng.random() < 0.4 else draw(rng, ranges.film_share),
                taper_angstrom=draw_log(rng, (10.0, 300.0)),
            )
        elif kind == "blobs":
            _add_blobs(
                scene, rng, ranges, particle_angstrom=particle_angstrom, particle_volt_angstrom=particle_volt_angstrom
            )
        elif kind == "crystalline":
            add_crystalline_patch(
                scene,
                rng,
                grain_angstrom=draw_log(rng, ranges.crystal_grain_angstrom),
                strength_volt_angstrom=particle_volt_angstrom * draw_log(rng, ranges.crystal_strength),
                particle_angstrom=particle_angstrom,
                particle_volt_angstrom=particle_volt_angstrom,
                share=1.0 if is_covering else draw(rng, ranges.crystal_share),
            )
        else:
            for _ in range(draw_count(rng, ranges.fibre_count)):
                width = float(
                    np.clip(
                        draw(rng, ranges.fibre_width_angstrom),
                        1.2 * scene.pixel_size_angstrom,
                        max(0.7 * particle_angstrom, 1.3 * scene.pixel_size_angstrom),
                    )
                )
                add_fibre(
                    scene,
                    rng,
                    width_angstrom=width,
                    volt=particle_volt_angstrom * draw_log(rng, (0.4, 3.0)) / width,
                    length_angstrom=particle_angstrom * draw_log(rng, (2.0, 30.0)),
                )


def _add_blobs(
    scene: Scene,
    rng: np.random.Generator,
    ranges: DirtRanges,
    *,
    particle_angstrom: float,
    particle_volt_angstrom: float,
) -> None:
    height, width = scene.shape_yx
    is_particle_like = rng.random() < 0.6
    typical = particle_angstrom * draw_log(rng, (0.3, 3.0))
    if not is_particle_like:
        typical = draw_log(rng, ranges.blob_diameter_angstrom)
    largest = 0.3 * max(scene.shape_yx) * scene.pixel_size_angstrom
    for _ in range(max(1, round(draw_log(rng, ranges.blob_count)))):
        thickness = particle_volt_angstrom * draw_log(rng, (0.8, 12.0)) / ICE_VOLT
        if not is_particle_like:
            thickness = draw_log(rng, ranges.blob_thickness_angstrom)
        add_blob(
            scene,
            rng,
            centre_xy_px=(float(rng.uniform(0, width)), float(rng.uniform(0, height))),
            diameter_angstrom=float(
                np.clip(typical * np.exp(rng.normal(0, 0.4)), 2 * scene.pixel_size_angstrom, largest)
            ),
            thickness_angstrom=thickness,
            roughness=float(rng.uniform(0, 0.25)),
            is_faceted=rng.random() < 0.3,
        )


def add_film_edge(
    scene: Scene,
    rng: np.random.Generator,
    *,
    material: str,
    thickness_angstrom: float,
    hole_radius_angstrom: float,
    share: float,
    taper_angstrom: float,
) -> None:
    """Lay a support film with the edge of one hole across the scene.

    Parameters
    ----------
    material : "carbon" (grainy, half transparent) or "gold" (nearly opaque, with grains)
    hole_radius_angstrom : large holes look like straight edges
    share : how far the film reaches in, in [0, 1] of the scene along the direction of the edge; 1 covers everything
    taper_angstrom : width over which the film reaches its full thickness
    """
    height, width = scene.shape_yx
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32((height - 1) / 2)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32((width - 1) / 2)
    angle = rng.uniform(0, 2 * np.pi)
    across = (abs(np.cos(angle)) * width + abs(np.sin(angle)) * height) / 2  # from the middle to the edge of the image
    radius_px = hole_radius_angstrom / scene.pixel_size_angstrom
    reach_px = across * (1 - 2 * share) - radius_px  # signed position of the hole's centre along `angle`
    centre_x, centre_y = reach_px * np.cos(angle), reach_px * np.sin(angle)
    inwards = np.sqrt((x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2) - np.float32(radius_px)
    roughness_px = rng.uniform(0, 60) / scene.pixel_size_angstrom
    if roughness_px > 0.3:
        inwards += np.float32(roughness_px) * smooth_field(rng, scene.shape_yx, cells=int(rng.integers(8, 30)))
    taper_px = max(taper_angstrom / scene.pixel_size_angstrom, 1.0)
    depth = np.clip(inwards / np.float32(taper_px), 0, 1)
    is_film = inwards > 0
    if material == "gold":
        thickness = depth * np.float32(thickness_angstrom)
        across = max(scene.shape_yx) * scene.pixel_size_angstrom
        cells = int(np.clip(across / draw_log(rng, (150.0, 500.0)), 8, max(scene.shape_yx) / 2))
        grains = 1 + np.float32(0.3) * np.abs(smooth_field(rng, scene.shape_yx, cells=cells))
        scene.potential += thickness * np.float32(0.2 * GOLD_VOLT)
        scene.opacity += thickness * grains / np.float32(GOLD_MEAN_FREE_PATH_ANGSTROM)
        scene.grain += depth * np.float32(rng.uniform(200, 800) / scene.pixel_size_angstrom**0.5)
    else:
        uneven = 1 + np.float32(rng.uniform(0, 0.15)) * smooth_field(rng, scene.shape_yx, cells=6)
        thickness = depth * np.float32(thickness_angstrom) * uneven
        # The film replaces part of the ice, so that only the difference of the two potentials counts.
        scene.potential += thickness * np.float32(CARBON_VOLT - ICE_VOLT)
        scene.opacity += thickness / np.float32(CARBON_MEAN_FREE_PATH_ANGSTROM)
        scene.grain += graininess_volt_angstrom(
            thickness,
            pixel_size_angstrom=scene.pixel_size_angstrom,
            structure_factor=float(rng.uniform(0.5, 1.0)),
            per_angstrom3=CARBON_PER_ANGSTROM3,
            volt_angstrom3=CARBON_VOLT_ANGSTROM3,
        )
    scene.film |= is_film
    scene.materials.add(material)
    scene.junk |= is_film


def add_blob(
    scene: Scene,
    rng: np.random.Generator,
    *,
    centre_xy_px: tuple[float, float],
    diameter_angstrom: float,
    thickness_angstrom: float,
    roughness: float,
    is_faceted: bool,
    mean_free_path_angstrom: float = 2500.0,
) -> None:
    """Add one contamination: a drop of ethane, an ice lump or an ice crystal, darker than the film around it.

    Parameters
    ----------
    roughness : relative standard deviation of the outline's radius
    is_faceted : True gives straight sides and a flat top (crystal), False a dome (drop)
    """
    radius_px = 0.5 * diameter_angstrom / scene.pixel_size_angstrom
    reach = int(np.ceil(radius_px * (1.6 + 2 * roughness))) + 2
    rows, columns = _window(scene.shape_yx, centre_xy_px, reach)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(centre_xy_px[1])
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(centre_xy_px[0])
    theta = np.arctan2(y, x)
    if is_faceted:
        sides = int(rng.integers(3, 8))
        directions = np.sort(rng.uniform(0, 2 * np.pi, sides)).astype(np.float32)
        distances = (radius_px * rng.uniform(0.6, 1.0, sides)).astype(np.float32)
        inside = np.full(theta.shape, np.float32(radius_px))
        inside -= np.hypot(x, y)
        for direction, distance in zip(directions, distances, strict=True):
            inside = np.minimum(inside, distance - (np.cos(direction) * x + np.sin(direction) * y))
        profile = np.clip(inside + np.float32(0.5), 0, 1) * (
            1 - np.float32(rng.uniform(0, 0.6)) * np.clip(inside / np.float32(radius_px), 0, 1)
        )
    else:
        aspect = np.float32(np.exp(rng.normal(0, 0.25)))
        turn = np.float32(rng.uniform(0, np.pi))
        u = (np.cos(turn) * x + np.sin(turn) * y) * aspect
        v = (-np.sin(turn) * x + np.cos(turn) * y) / aspect
        outline = np.ones(theta.shape, dtype=np.float32)
        for harmonic in range(2, 6):
            outline += np.float32(roughness * rng.normal() / harmonic**0.5) * np.cos(
                harmonic * theta + np.float32(rng.uniform(0, 2 * np.pi))
            )
        rho = np.hypot(u, v) / (np.float32(radius_px) * np.maximum(outline, np.float32(0.2)))
        profile = np.maximum(1 - rho**2, 0) ** np.float32(rng.uniform(0.2, 0.7))
    thickness = (np.float32(thickness_angstrom) * profile).astype(np.float32)
    scene.potential[rows, columns] += thickness * np.float32(ICE_VOLT)
    scene.opacity[rows, columns] += thickness / np.float32(mean_free_path_angstrom)
    scene.grain[rows, columns] += np.float32(0.5) * graininess_volt_angstrom(
        thickness, pixel_size_angstrom=scene.pixel_size_angstrom, structure_factor=0.5
    )
    scene.junk[rows, columns] |= profile > 0.05


def add_crystalline_patch(
    scene: Scene,
    rng: np.random.Generator,
    *,
    grain_angstrom: float,
    strength_volt_angstrom: float,
    particle_angstrom: float,
    particle_volt_angstrom: float,
    share: float,
) -> None:
    """Turn a patch of the film into crystalline ice: a mottled texture of grains with different diffraction contrast.

    Parameters
    ----------
    grain_angstrom : typical grain diameter
    strength_volt_angstrom : standard deviation of the texture
    particle_angstrom, particle_volt_angstrom : diameter and greatest projected potential of the particles; the patch is
        junk where it is told from clean ice over a square as wide as a particle (`VISIBLE_TEXTURE`, `VISIBLE_GRAIN`)
    share : fraction of the scene, in (0, 1]
    """
    import cv2

    longer_angstrom = max(scene.shape_yx) * scene.pixel_size_angstrom
    cells = int(np.clip(longer_angstrom / grain_angstrom, 4, max(scene.shape_yx) / 2))
    texture = smooth_field(rng, scene.shape_yx, cells=cells)
    outline = smooth_field(rng, scene.shape_yx, cells=3)
    limit = np.quantile(outline[::8, ::8], 1 - share) if share < 1 else -np.inf
    softness = np.clip((outline - np.float32(limit)) * 8, 0, 1)
    # Few strongly diffracting grains among many weak ones: square the dark side.
    texture = np.where(texture > 0, texture**2, np.float32(0.3) * texture)
    mottling = softness * texture * np.float32(strength_volt_angstrom)
    scene.potential += mottling
    scene.opacity += softness * np.maximum(texture, 0) * np.float32(0.05)
    side_px = max(1, round(particle_angstrom / scene.pixel_size_angstrom))
    mean, power = cv2.blur(mottling, (side_px, side_px)), cv2.blur(mottling * mottling, (side_px, side_px))
    scene.junk |= power - mean * mean > (VISIBLE_TEXTURE * particle_volt_angstrom) ** 2
    scene.junk |= np.abs(mean) > VISIBLE_GRAIN * particle_volt_angstrom


def add_fibre(
    scene: Scene,
    rng: np.random.Generator,
    *,
    width_angstrom: float,
    volt: float,
    length_angstrom: float,
) -> None:
    """Draw one bent filament (nucleic acid, pilus, fibre of debris) of round cross-section.

    Parameters
    ----------
    volt : potential above ice inside the fibre
    """
    import cv2

    height, width = scene.shape_yx
    step_px = max(1.0, 0.5 * width_angstrom / scene.pixel_size_angstrom)
    steps = int(np.clip(length_angstrom / scene.pixel_size_angstrom / step_px, 4, 4000))
    bend = np.cumsum(rng.normal(0, rng.uniform(0.01, 0.12), steps)) + rng.uniform(0, 2 * np.pi)
    start = rng.uniform([0, 0], [width, height])
    path = start + step_px * np.cumsum(np.stack([np.cos(bend), np.sin(bend)], axis=1), axis=0)
    width_px = width_angstrom / scene.pixel_size_angstrom
    line = np.zeros(scene.shape_yx, dtype=np.float32)
    points = np.rint(path * 16).astype(np.int32).reshape(-1, 1, 2)  # 4 fractional bits
    cv2.polylines(line, [points], False, 1.0, thickness=max(1, round(0.7 * width_px)), lineType=cv2.LINE_8, shift=4)
    line = np.asarray(cv2.GaussianBlur(line, (0, 0), max(0.4, 0.25 * width_px)), dtype=np.float32)
    scene.potential += line * np.float32(volt * width_angstrom * np.pi / 4)
    scene.junk |= line > 0.3


def _window(shape_yx: tuple[int, int], centre_xy_px: tuple[float, float], reach: int) -> tuple[slice, slice]:
    column, row = round(centre_xy_px[0]), round(centre_xy_px[1])
    rows = slice(max(0, row - reach), min(shape_yx[0], row + reach + 1))
    columns = slice(max(0, column - reach), min(shape_yx[1], column + reach + 1))
    return rows, columns
