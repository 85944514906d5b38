"""One microscope session: the same protein, ice, dose, camera and look throughout, and micrographs of several kinds.

A session draws its regime once, as a narrowed `Recipe`; a kind is a function that changes the recipe of the regime, and
a new kind is one row of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.units import Range
from cryopick.simulation.micrograph import SimulatedMicrograph, dose_for_snr, simulate_micrograph
from cryopick.simulation.recipe import DirtRanges, LayoutRanges, Recipe, draw, draw_log
from cryopick.simulation.scene.archive import Look, draw_look
from cryopick.simulation.specimens.imaging import SpecimenImager

TYPICAL = "typical"
TYPICAL_SHARES = {
    "full": 0.5,
    "sparse": 0.1,
    "empty": 0.15,
    "carbon": 0.05,
    "thick-ice": 0.05,
    "crystalline": 0.05,
    "drifted": 0.05,
    "near-focus": 0.05,
}
"""What the word `typical` stands for: a screened session, most of it worth picking. Not measured, but plausible."""
_REGIME_STREAM, _ORDER_STREAM = 2**32 - 2, 2**32 - 3
"""Spawn keys beside those of the micrographs (from 0 up) and of the species (2³² - 1)."""


# ------------------------------------------------------------------------------------------------------------- kinds


def _full(recipe: Recipe) -> Recipe:
    return recipe


def _sparse(recipe: Recipe) -> Recipe:
    low, high = recipe.layout.coverage
    few = replace(recipe.layout, coverage=(0.08 * low, 0.2 * high), packed_probability=0.0)
    return replace(recipe, layout=few)


def _empty(recipe: Recipe) -> Recipe:
    dirt = replace(recipe.dirt, aggregate_probability=0.0)  # heaps of particles are particles
    return replace(recipe, layout=replace(recipe.layout, empty_probability=1.0), dirt=dirt)


def _carbon(recipe: Recipe) -> Recipe:
    bare = _empty(recipe)
    dirt = replace(bare.dirt, carbon_probability=1.0, gold_probability=0.0, film_share=(0.8, 1.0))
    return replace(bare, dirt=dirt)


def _thick_ice(recipe: Recipe) -> Recipe:
    low, high = recipe.ice.thickness_angstrom
    return replace(recipe, ice=replace(recipe.ice, thickness_angstrom=(max(4 * low, 1800.0), max(6 * high, 2700.0))))


def _crystalline(recipe: Recipe) -> Recipe:
    bare = _empty(recipe)
    dirt = replace(
        bare.dirt,
        crystalline_probability=1.0,
        crystal_share=(1.0, 1.0),
        crystal_strength=(1.0, 3.0),
        crystal_grain_angstrom=(60.0, 150.0),  # mottled; coarser grains are a few soft clouds in one micrograph
    )
    return replace(bare, dirt=dirt)


def _drifted(recipe: Recipe) -> Recipe:
    return replace(recipe, detector=replace(recipe.detector, drift_angstrom=(20.0, 60.0)))


def _near_focus(recipe: Recipe) -> Recipe:
    def nearer(limits: Range) -> Range:
        return max(0.15 * limits[0], 0.05), max(0.3 * limits[1], 0.1)

    optics = recipe.optics
    defocus, with_plate = nearer(optics.defocus_um), nearer(optics.phase_plate_defocus_um)
    return replace(recipe, optics=replace(optics, defocus_um=defocus, phase_plate_defocus_um=with_plate))


@dataclass(frozen=True)
class Kind:
    """One kind of micrograph.

    Parameters
    ----------
    change : from the recipe of the session to that of such a micrograph
    has_particles : whether there is anything to pick
    words : what it is, for help and documentation
    """

    change: Callable[[Recipe], Recipe]
    has_particles: bool
    words: str


KINDS: Mapping[str, Kind] = {
    "full": Kind(_full, True, "as many particles as the session has"),
    "sparse": Kind(_sparse, True, "a fifth of them or fewer"),
    "empty": Kind(_empty, False, "the session's ice and dirt without a particle"),
    "carbon": Kind(_carbon, False, "carbon over 80 % of it or all"),
    "thick-ice": Kind(_thick_ice, True, "full, in ice at least four times as thick, from 1800 Å up"),
    "crystalline": Kind(_crystalline, False, "crystalline ice all over"),
    "drifted": Kind(_drifted, True, "full, moved by 20 to 60 Å during the exposure"),
    "near-focus": Kind(_near_focus, True, "full, at a third of the session's defocus or less"),
}


def check_kinds(kinds: Sequence[str]) -> None:
    """`SettingsError`, listing the known ones, for a kind that is not one of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"kind of micrograph {kind!r} is unknown; known: {', '.join(KINDS)}")


# ------------------------------------------------------------------------------------------------------------- shares


def parse_session(words: str) -> dict[str, float]:
    """Weights of kinds from `full=0.4,empty=0.6` or `full=2,empty=3`, which are the same; or the word `typical`.

    Raises
    ------
    SettingsError
        Anything else, an unknown kind, one given twice, weights that are negative or all 0.
    """
    if words.strip() == TYPICAL:
        return dict(TYPICAL_SHARES)
    weights: dict[str, float] = {}
    for part in words.split(","):
        kind, _, text = (piece.strip() for piece in part.partition("="))
        check_kinds([kind])
        try:
            weight = float(text)
        except ValueError:
            weight = -1.0
        if not 0 <= weight < np.inf:
            raise SettingsError(
                f"session {words!r}: the weight of {kind} is {text!r}, expected a number of 0 or more; "
                f"write for example full=0.4,empty=0.6, or {TYPICAL}"
            )
        if kind in weights:
            raise SettingsError(f"session {words!r}: {kind} is given twice")
        weights[kind] = weight
    if sum(weights.values()) <= 0:
        raise SettingsError(f"session {words!r}: all weights are 0, expected one above")
    return weights


def session_kinds(weights: Mapping[str, float], *, count: int, seed: int) -> tuple[str, ...]:
    """The kind of each of `count` micrographs, in an order that the seed decides.

    Shares are met exactly, up to rounding to whole micrographs: each kind gets the whole part of its share, and what is
    left goes to the largest remainders, the first named first.

    Raises
    ------
    SettingsError
        An unknown kind, weights that are negative, not finite or all 0, or a count below 1.
    """
    check_kinds(list(weights))
    values = np.array(list(weights.values()), dtype=np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
        raise SettingsError(f"weights are {dict(weights)}, expected finite numbers of 0 or more, one above 0")
    if count < 1:
        raise SettingsError(f"count is {count}, expected 1 or more micrographs")
    exact = np.round(values / values.sum() * count, 9)  # 0.3 / 0.1 is 3, not a hair below it
    whole = np.floor(exact).astype(int)
    largest_first = np.argsort(-(exact - whole), kind="stable")
    whole[largest_first[: count - int(whole.sum())]] += 1
    in_turn = np.repeat(np.array(list(weights)), whole)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER_STREAM,)))
    return tuple(str(kind) for kind in rng.permutation(in_turn))


# ------------------------------------------------------------------------------------------------------------- regime


@dataclass(frozen=True, kw_only=True)
class Regime:
    """What all micrographs of a session share.

    Parameters
    ----------
    recipe : a recipe's ranges, narrowed to what changes from one micrograph of a session to the next
    look : what the archive does to all of them
    """

    recipe: Recipe
    look: Look


def draw_regime(recipe: Recipe, seed: int, *, imagers: Sequence[SpecimenImager], snr: float | None = None) -> Regime:
    """Draw the regime of a session from a recipe; it depends on nothing else but the arguments.

    Fixed for the session: voltage and aberrations, phase plate or not, amplitude contrast, camera, dose, graininess of
    ice, scattered or packed particles, the material of the support film, replicated borders or not, the look. Small
    changes from micrograph to micrograph: defocus (± 20 %), astigmatism and envelope (± 10 %), thickness of ice (± 15
    %), coverage (± 15 %, in the upper half of the recipe's range), debris in the ice (± 20 %). As in the recipe:
    contamination, film edges, fibres, broken particles, and how the ice bends. Crystalline ice comes as a kind of
    micrograph only, patches of particles not at all.

    Parameters
    ----------
    snr : sets the dose so that the median particle of the first species reaches this matched-filter SNR in clean ice at
        the middle defocus and thickness of the session; kinds near focus, in thick ice or drifted reach less. None
        draws the dose from the recipe
    """
    if snr is not None and not 0 < snr < np.inf:
        raise SettingsError(f"snr is {snr:g}, expected a finite number above 0")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_REGIME_STREAM,)))
    largest_px = max(imager.diameter_px for imager in imagers)
    look = draw_look(rng, recipe.look, diameter_px=largest_px, pixel_size_angstrom=recipe.pixel_size_angstrom)
    narrowed = replace(
        recipe,
        layout=_session_layout(rng, recipe.layout),
        dirt=_session_dirt(rng, recipe.dirt),
        ice=replace(
            recipe.ice,
            thickness_angstrom=_around(draw_log(rng, recipe.ice.thickness_angstrom), 0.15),
            mean_free_path_angstrom=_always(draw(rng, recipe.ice.mean_free_path_angstrom)),
            structure_factor=_always(draw(rng, recipe.ice.structure_factor)),
            clutter=_around(draw(rng, recipe.ice.clutter), 0.2),
        ),
        optics=replace(
            recipe.optics,
            voltage_kv=(float(rng.choice(recipe.optics.voltage_kv)),),
            spherical_aberration_mm=(float(rng.choice(recipe.optics.spherical_aberration_mm)),),
            defocus_um=_around(draw(rng, recipe.optics.defocus_um), 0.2),
            astigmatism_um=_around(draw(rng, recipe.optics.astigmatism_um), 0.1),
            amplitude_contrast=_always(draw(rng, recipe.optics.amplitude_contrast)),
            b_factor_angstrom2=_around(draw(rng, recipe.optics.b_factor_angstrom2), 0.1),
            phase_plate_probability=_yes_or_no(rng, recipe.optics.phase_plate_probability),
            phase_shift_deg=_around(draw(rng, recipe.optics.phase_shift_deg), 0.1),
            phase_plate_defocus_um=_around(draw(rng, recipe.optics.phase_plate_defocus_um), 0.2),
        ),
        detector=replace(
            recipe.detector,
            dose_e_per_angstrom2=_always(draw_log(rng, recipe.detector.dose_e_per_angstrom2)),
            dqe_zero=_always(draw(rng, recipe.detector.dqe_zero)),
            mtf_nyquist=_always(draw(rng, recipe.detector.mtf_nyquist)),
            gain_residue=_always(draw(rng, recipe.detector.gain_residue)),
            border_probability=_yes_or_no(rng, recipe.detector.border_probability),
        ),
    )
    if snr is None:
        return Regime(recipe=narrowed, look=look)
    dose = dose_for_snr(_in_the_middle(narrowed), rng, imagers=imagers, snr=snr)
    return Regime(
        recipe=replace(narrowed, detector=replace(narrowed.detector, dose_e_per_angstrom2=(dose, dose))), look=look
    )


def simulate_of_kind(
    regime: Regime,
    kind: str,
    seed: int,
    *,
    imagers: Sequence[SpecimenImager],
    index: int = 0,
    name: str = "simulated",
    workers: int = 1,
) -> SimulatedMicrograph:
    """Micrograph number `index` of a session; arguments as in `simulate_micrograph`.

    Raises
    ------
    SettingsError
        An unknown kind, and as `simulate_micrograph`.
    """
    check_kinds([kind])
    recipe = KINDS[kind].change(regime.recipe)
    simulated = simulate_micrograph(
        recipe, seed, imagers=imagers, index=index, name=name, workers=workers, look=regime.look
    )
    return replace(simulated, kind=kind)


def _session_layout(rng: np.random.Generator, layout: LayoutRanges) -> LayoutRanges:
    low, high = layout.coverage
    middle = draw(rng, (float(np.sqrt(low * high)), high))
    is_packed = _yes_or_no(rng, layout.packed_probability)
    # Never patchy: whether a micrograph is full or sparse is its kind, and patches may leave hardly a particle.
    return replace(
        layout,
        coverage=_around(middle, 0.15),
        empty_probability=0.0,
        clumped_probability=0.0,
        packed_probability=is_packed,
    )


def _session_dirt(rng: np.random.Generator, dirt: DirtRanges) -> DirtRanges:
    """One material, as thick and with holes as large everywhere; no crystalline ice outside of its kind."""
    film = dirt.carbon_probability + dirt.gold_probability
    is_gold = rng.random() * film < dirt.gold_probability
    film = min(film, 1.0)
    return replace(
        dirt,
        carbon_probability=0.0 if is_gold else film,
        gold_probability=film if is_gold else 0.0,
        carbon_thickness_angstrom=_around(draw(rng, dirt.carbon_thickness_angstrom), 0.1),
        gold_thickness_angstrom=_around(draw(rng, dirt.gold_thickness_angstrom), 0.1),
        hole_radius_angstrom=_always(draw_log(rng, dirt.hole_radius_angstrom)),
        crystalline_probability=0.0,
    )


def _in_the_middle(recipe: Recipe) -> Recipe:
    """The same recipe with thickness, defocus, astigmatism and envelope at the middle of their ranges."""
    ice, optics = recipe.ice, recipe.optics
    names = ("defocus_um", "astigmatism_um", "b_factor_angstrom2", "phase_shift_deg", "phase_plate_defocus_um")
    middles: dict[str, Any] = {name: _always(float(np.mean(getattr(optics, name)))) for name in names}
    thickness = _always(float(np.mean(ice.thickness_angstrom)))
    return replace(recipe, ice=replace(ice, thickness_angstrom=thickness), optics=replace(optics, **middles))


def _around(middle: float, share: float) -> Range:
    return middle * (1 - share), middle * (1 + share)


def _always(value: float) -> Range:
    return value, value


def _yes_or_no(rng: np.random.Generator, probability: float) -> float:
    """0 or 1: what has a probability in a recipe is so, or is not, in all of a session."""
    return float(rng.random() < probability)
