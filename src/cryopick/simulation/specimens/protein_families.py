"""The families of made-up proteins: one function lays out each, in arbitrary units until `lay_out_family` scales it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cryopick.geometry.rotations import euler_to_matrix, random_rotations
from cryopick.simulation.specimens.protein_layouts import Array, Belt, Layout, largest_extent, symmetry_operators

_MOST_DRAWS = 200  # a particle in pieces is drawn again


def _frames(rng: np.random.Generator, k: int) -> Array:
    return euler_to_matrix(random_rotations(k, rng))


def _layout(center: Array, semi_axes: Array, frame: Array, group: str = "C1", contrast: float = 1.0) -> Layout:
    return Layout(center, semi_axes, frame, np.full(len(center), contrast), symmetry_operators(group))


def _radial_frames(center: Array) -> Array:
    """Frames whose last row points away from the z axis' origin, the first two along the sphere."""
    outward = center / np.maximum(np.linalg.norm(center, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(outward[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(helper, outward)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(outward, first), outward], axis=1)


def _directions(rng: np.random.Generator, k: int) -> Array:
    vector = rng.normal(size=(k, 3))
    return np.asarray(vector / np.linalg.norm(vector, axis=1, keepdims=True))


def _accreted(rng: np.random.Generator, k: int, *, spread: float = 0.35) -> tuple[Array, Array]:
    """k touching balls of radius about 1, each new one laid where it stays closest to the middle of the others."""
    radius = rng.lognormal(0.0, spread, size=k)
    center = np.zeros((k, 3))
    for i in range(1, k):
        anchor = rng.integers(0, i, size=24)
        reach = rng.uniform(0.72, 0.95) * (radius[anchor] + radius[i])
        tried = center[anchor] + reach[:, None] * _directions(rng, 24)
        gap = np.linalg.norm(tried[:, None] - center[:i], axis=2) - 0.7 * (radius[:i] + radius[i])
        is_free = gap.min(axis=1) >= 0
        cost = np.linalg.norm(tried - center[:i].mean(axis=0), axis=1) + np.where(is_free, 0.0, 100.0)
        # Among the free places a random one of the more compact half
        center[i] = tried[rng.choice(np.argsort(cost)[: max(1, int(is_free.sum()) // 2)])]
    return center - center.mean(axis=0), radius


def _semi_axes(rng: np.random.Generator, radius: Array, *, elongation: float = 0.2) -> Array:
    return np.asarray(radius[:, None] * np.exp(rng.normal(0, elongation, size=(len(radius), 3))))


def _globular(rng: np.random.Generator, diameter: float) -> Layout:
    k = 1 + rng.poisson(diameter / 70)
    center, radius = _accreted(rng, k)
    return _layout(center, _semi_axes(rng, radius), _frames(rng, k))


def _ribonucleoprotein(rng: np.random.Generator, diameter: float) -> Layout:
    """A dense irregular body, as ribosomes are: more contrast, a cleft, small proteins on the outside."""
    body = 3 + rng.poisson(diameter / 80)
    center, radius = _accreted(rng, body, spread=0.25)
    k_small = int(rng.integers(3, 12))
    small_radius = rng.uniform(0.25, 0.5, size=k_small)
    host = rng.integers(0, body, size=k_small)
    small = center[host] + _directions(rng, k_small) * (radius[host] + 0.5 * small_radius)[:, None]
    center, radius = np.concatenate([center, small]), np.concatenate([radius, small_radius])
    layout = _layout(center, _semi_axes(rng, radius), _frames(rng, body + k_small))
    rna = rng.uniform(1.2, 1.35)  # nucleotides in their own volume against residues in theirs, both minus ice
    return replace(layout, contrast=np.where(np.arange(len(center)) < body, rna, 1.0))


def _rod(rng: np.random.Generator, diameter: float) -> Layout:
    aspect = rng.uniform(2.5, 4.5 + diameter / 150)
    k = math.ceil(aspect * rng.uniform(1.0, 1.6))
    bend = rng.uniform(0.0, 1.4) * rng.integers(0, 2)  # rad, over the whole length
    along = np.linspace(-0.5, 0.5, k) * (1 - 1 / aspect)
    angle = along * bend
    x = along if bend < 0.05 else np.sin(angle) / bend
    y = np.zeros(k) if bend < 0.05 else (1 - np.cos(angle)) / bend
    width = 0.5 / aspect * rng.uniform(0.75, 1.25, size=k)
    wiggle = rng.normal(0, 0.15 / aspect, size=(k, 3))
    center = np.stack([x, y, np.zeros(k)], axis=1) + wiggle
    tangent = np.stack([np.cos(angle), np.sin(angle), np.zeros(k)], axis=1)
    normal = np.stack([-np.sin(angle), np.cos(angle), np.zeros(k)], axis=1)
    frame = np.stack([tangent, normal, np.cross(tangent, normal)], axis=1)
    semi_axes = np.stack([np.full(k, 0.75 / k), width, width * rng.uniform(0.7, 1.3)], axis=1)
    group = str(rng.choice(["C1", "C1", "C2"]))
    if group == "C2":
        center[:, 1] += rng.uniform(0.0, 0.45) / aspect
    return _layout(center, semi_axes, frame, group)


def _ring(rng: np.random.Generator, diameter: float) -> Layout:
    fold = int(rng.integers(3, 8 + round(diameter / 40)))
    tangential = math.sin(math.pi / fold) * rng.uniform(1.0, 1.4)  # neighbours touch at 1
    radial, height = tangential * rng.uniform(0.7, 1.4), tangential * rng.uniform(0.8, 2.5)
    radial, height = min(radial, 0.6), min(height, 1.0)
    k = int(rng.integers(1, 4))
    center = np.zeros((k, 3))
    center[0] = [1.0, 0.0, 0.0]
    for i in range(1, k):
        center[i] = [rng.uniform(0.7, 1.5), rng.uniform(-0.5, 0.5) * tangential, rng.choice([-1, 1]) * height * 1.3]
    scale = np.concatenate([[1.0], rng.uniform(0.5, 0.9, size=k - 1)])
    semi_axes = np.stack([scale * tangential, scale * height, scale * radial], axis=1)
    is_double = rng.random() < 0.3
    if is_double:
        center[:, 2] += height * rng.uniform(0.9, 1.2) - center[:, 2].min()
    flat = center * [1, 1, 0]
    return _layout(center, semi_axes, _radial_frames(flat), f"{'D' if is_double else 'C'}{fold}")


def _barrel(rng: np.random.Generator, diameter: float) -> Layout:  # noqa: ARG001 - layouts share one signature
    """Stacked rings around a channel: proteasomes, chaperonins, Clp proteases."""
    fold = int(rng.integers(5, 10))
    layers = int(rng.integers(1, 3))  # in each half; D symmetry makes the other half
    half_step = math.sin(math.pi / fold) * rng.uniform(0.8, 1.3)
    tangential = math.sin(math.pi / fold) * rng.uniform(1.1, 1.4)
    radial = rng.uniform(0.2, 0.4)
    z = half_step * (2 * np.arange(layers) + 1)
    twist = rng.uniform(0, 2 * math.pi / fold, size=layers)
    ring_radius = 1 + rng.uniform(-0.15, 0.15, size=layers)
    center = np.stack([ring_radius * np.cos(twist), ring_radius * np.sin(twist), z], axis=1)
    semi_axes = np.tile([tangential, half_step * 1.25, radial], (layers, 1))
    if rng.random() < 0.4:  # a lid or a gate domain that narrows the end
        lid = [[0.55 * math.cos(twist[-1]), 0.55 * math.sin(twist[-1]), z[-1] + 1.4 * half_step]]
        center = np.concatenate([center, lid])
        semi_axes = np.concatenate([semi_axes, semi_axes[-1:] * 0.7])
    return _layout(center, semi_axes, _radial_frames(center * [1, 1, 0]), f"D{fold}")


def _shell(rng: np.random.Generator, diameter: float) -> Layout:
    """Hollow cages: ferritin, encapsulins, small capsids."""
    group = str(rng.choice(["T", "O", "I"], p=[0.25, 0.4, 0.35] if diameter < 250 else [0.1, 0.3, 0.6]))
    copies = len(symmetry_operators(group))
    k = int(rng.integers(1, 4))
    center = _directions(rng, k) * rng.uniform(0.92, 1.08, size=(k, 1))
    spread = math.sqrt(4 / (copies * k)) * rng.uniform(0.95, 1.35)  # k * copies discs cover the sphere
    thickness = rng.uniform(0.10, 0.30)
    semi_axes = np.stack(
        [spread * rng.uniform(0.75, 1.3, k), spread * rng.uniform(0.75, 1.3, k), np.full(k, thickness)], 1
    )
    if rng.random() < 0.4:  # spikes
        spike = _directions(rng, 1) * (1 + thickness + 0.08)
        center = np.concatenate([center, spike])
        semi_axes = np.concatenate([semi_axes, [[0.3 * spread, 0.3 * spread, rng.uniform(0.1, 0.2)]]])
    return _layout(center, semi_axes, _radial_frames(center), group)


def _assembly(rng: np.random.Generator, diameter: float) -> Layout:
    """Compact oligomers of globular subunits."""
    group = str(rng.choice(["C2", "C3", "C4", "C5", "C6", "D2", "D2", "D3", "D4", "D6", "T", "O"]))
    k = 1 + int(rng.poisson(1 + diameter / 250))
    center, radius = _accreted(rng, k)
    # The subunit's middle sits where its copies just touch
    copies = len(symmetry_operators(group))
    size = float(np.linalg.norm(center, axis=1).max() + radius.max())
    distance = (
        size * rng.uniform(0.4, 0.7) * (copies ** (1 / 3) if group[0] != "C" else 0.6 / math.sin(math.pi / copies))
    )
    direction = _directions(rng, 1)
    if group[0] == "C":
        direction *= [[1, 1, 0.0]]
        direction /= np.linalg.norm(direction)
    return _layout(center + direction * distance, _semi_axes(rng, radius), _frames(rng, k), group)


def _linkers(ends: list[tuple[Array, Array]], thickness: float) -> tuple[Array, Array, Array]:
    """Thin ellipsoids between pairs of points."""
    first, second = np.array([a for a, _ in ends]), np.array([b for _, b in ends])
    center = (first + second) / 2
    half = np.linalg.norm(second - first, axis=1) / 2
    frame = _radial_frames(second - first)
    thin = np.full(len(half), thickness)
    return center, np.stack([thin, thin, half], axis=1), frame


def _multilobed(rng: np.random.Generator, diameter: float) -> Layout:
    """Separate lobes held by stalks: antibodies, scaffolds."""
    k = int(rng.integers(2, 6))
    direction = _directions(rng, k)
    radius = rng.uniform(0.5, 1.0, size=k)
    center = direction * (rng.uniform(1.3, 2.4, size=k) * radius)[:, None]
    stalk = _linkers([(np.zeros(3), point) for point in center], thickness=max(0.12, 28 / diameter))
    return _layout(
        np.concatenate([center, stalk[0]]),
        np.concatenate([_semi_axes(rng, radius), stalk[1]]),
        np.concatenate([_frames(rng, k), stalk[2]]),
        str(rng.choice(["C1", "C1", "C1", "C2", "C3"])),
    )


def _flexible(rng: np.random.Generator, diameter: float) -> Layout:
    """A chain of small domains with hinges, never twice the same shape."""
    k = int(rng.integers(3, 6 + round(diameter / 40)))
    radius = rng.uniform(0.6, 1.2, size=k)
    center = np.zeros((k, 3))
    heading = _directions(rng, 1)[0]
    stiffness = rng.uniform(0.5, 2.5)
    for i in range(1, k):
        heading = stiffness * heading + _directions(rng, 1)[0]
        heading /= np.linalg.norm(heading)
        center[i] = center[i - 1] + heading * (radius[i] + radius[i - 1]) * rng.uniform(0.9, 1.25)
    ends = [(center[i - 1], center[i]) for i in range(1, k)]
    link = _linkers(ends, thickness=max(0.3, 12 * k / diameter))
    return _layout(
        np.concatenate([center, link[0]]) - center.mean(axis=0),
        np.concatenate([_semi_axes(rng, radius, elongation=0.3), link[1]]),
        np.concatenate([_frames(rng, k), link[2]]),
    )


def _membrane(rng: np.random.Generator, diameter: float) -> Layout:
    """A bundle through a micelle or nanodisc, with soluble parts on one side or both."""
    fold = int(rng.choice([1, 1, 2, 3, 4, 5, 6]))
    half_bundle = 22 / diameter  # half the hydrophobic thickness and a little more, as a fraction of the particle
    bundle = rng.uniform(0.10, 0.22)
    offset = 0.0 if fold == 1 else bundle / math.sin(math.pi / fold) * 0.9
    centers = [[offset, 0.0, 0.0]]
    axes = [[bundle, bundle, half_bundle]]
    for side in (1, -1):
        if side == -1 and rng.random() < 0.4:
            continue
        reach = half_bundle
        for _ in range(int(rng.integers(1, 3))):
            size = rng.uniform(0.08, 0.17)
            centers.append(
                [offset * rng.uniform(0.6, 1.4) + rng.normal(0, 0.03), rng.normal(0, 0.03), side * (reach + 0.7 * size)]
            )
            axes.append((size * np.exp(rng.normal(0, 0.2, size=3))).tolist())
            reach += 1.3 * size
    is_micelle = bool(rng.random() < 0.6)
    belt = Belt(0.0, offset + bundle + 22 / diameter, rng.uniform(17.0, 24.0), is_micelle)
    k = len(centers)
    layout = _layout(np.array(centers), np.array(axes), np.tile(np.eye(3), (k, 1, 1)), f"C{fold}")
    return replace(layout, belt=belt)


@dataclass(frozen=True)
class Family:
    """How to lay out one kind of particle, and the diameters it comes in."""

    lay_out: Callable[[np.random.Generator, float], Layout]
    smallest_angstrom: float
    largest_angstrom: float


FAMILY_BY_NAME: dict[str, Family] = {
    "globular": Family(_globular, 60, 250),
    "rod": Family(_rod, 90, 600),
    "ring": Family(_ring, 80, 300),
    "barrel": Family(_barrel, 100, 300),
    "shell": Family(_shell, 90, 600),
    "assembly": Family(_assembly, 70, 320),
    "multilobed": Family(_multilobed, 90, 350),
    "flexible": Family(_flexible, 90, 500),
    "membrane": Family(_membrane, 80, 280),
    "ribonucleoprotein": Family(_ribonucleoprotein, 120, 350),
}


def lay_out_family(rng: np.random.Generator, *, family: str, diameter_angstrom: float) -> Layout:
    """A random layout of one family, in Å, its largest extent (lobes and belt) equal to the diameter."""
    for _ in range(_MOST_DRAWS):
        layout = FAMILY_BY_NAME[family].lay_out(rng, diameter_angstrom)
        if layout.is_connected():
            break
    else:
        raise RuntimeError(f"family {family!r} drew {_MOST_DRAWS} layouts in pieces at {diameter_angstrom:g} Å")
    factor = diameter_angstrom / largest_extent(layout.surface_points())
    scaled = layout.scaled(factor)
    if scaled.belt is not None and 2 * scaled.belt.radius > diameter_angstrom:
        factor *= diameter_angstrom / (2 * scaled.belt.radius)
        scaled = layout.scaled(factor)
    return scaled
