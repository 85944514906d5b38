"""The embedded engine without any reference against known angles, on three simulated proteins.

.venv/bin/python benchmarks/embedded_engine.py writes results/embedded_engine.json and .md. Particles are
simulated as stacks: projections through the CTF with the white noise of counted electrons, no ice, dirt or neighbours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cryopick.metrics.fourier_shell_correlation import (
    AGAINST_TRUTH,
    HALF_MAPS,
    fourier_shell_correlation,
    resolution_at,
)
from cryopick.metrics.volume_alignment import align_volumes
from cryopick.reconstruction.ab_initio import initial_volume
from cryopick.reconstruction.filtering import soft_sphere
from cryopick.reconstruction.gridding import reconstruct
from cryopick.reconstruction.refinement import refine
from cryopick.reconstruction.simulated import simulated_stack
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume

RESULTS = Path(__file__).parent / "results"
PIXELS_PER_DIAMETER = 32  # Nyquist at a sixteenth of the diameter, as `validate3d` bins


@dataclass(frozen=True)
class Case:
    """A protein and how it is seen."""

    name: str
    family: str
    seed: int
    diameter_angstrom: float
    symmetry: str
    particles: int
    dose_e_per_angstrom2: float


CASES = (
    Case("ribosome-like", "ribonucleoprotein", 5, 250.0, "C1", 800, 4.0),
    Case("barrel with D7", "barrel", 1, 160.0, "D7", 500, 20.0),
    Case("small globular", "globular", 3, 90.0, "C1", 1000, 40.0),
)


@dataclass(frozen=True)
class Row:
    """What came out; resolutions in Å."""

    name: str
    symmetry: str
    particles: int
    nyquist: float
    known_half: float
    known_truth: float
    start_truth: float
    start_scores: tuple[float, ...]
    refined_half: float
    refined_truth: float
    iterations: int
    start_seconds: float
    refinement_seconds: float

    @property
    def is_good(self) -> bool:
        """Within 1 Å or 5 % of known angles."""
        return self.refined_truth <= max(self.known_truth + 1, 1.05 * self.known_truth)


def run(case: Case, seed: int, tell: Callable[[str], None]) -> Row:
    """One protein from images alone, and with its true poses."""
    pixel = case.diameter_angstrom / PIXELS_PER_DIAMETER
    truth = random_protein(
        np.random.default_rng(case.seed),
        family=case.family,
        diameter_angstrom=case.diameter_angstrom,
        voxel_size_angstrom=pixel,
    )
    stack, poses = simulated_stack(
        truth, case.particles, dose_e_per_angstrom2=case.dose_e_per_angstrom2, rng=np.random.default_rng(9)
    )
    halves = 1 + stack.micrograph % 2
    sphere = soft_sphere(stack.box_px, stack.diameter_angstrom / pixel)

    def reading(curve: np.ndarray, threshold: float) -> float:
        return round(resolution_at(curve, threshold, box_px=stack.box_px, pixel_size_angstrom=pixel), 2)

    def against_truth(found: Volume, *, is_placed: bool = False) -> float:
        placed = found if is_placed else align_volumes(found, truth, diameter_angstrom=stack.diameter_angstrom).aligned
        return reading(fourier_shell_correlation(placed.density, truth.density, sphere), AGAINST_TRUTH)

    known = [
        reconstruct(stack.take(halves == one), poses.take(halves == one), symmetry=case.symmetry, is_masked=True)
        for one in (1, 2)
    ]
    known_half = reading(fourier_shell_correlation(known[0].density, known[1].density, sphere), HALF_MAPS)
    whole = reconstruct(stack, poses, symmetry=case.symmetry, is_masked=True)
    known_truth = against_truth(whole, is_placed=True)
    tell(f"{case.name}: known angles, half maps {known_half} Å, truth {known_truth} Å")
    began = time.process_time()
    start = initial_volume(stack, symmetry=case.symmetry, seed=seed)
    start_seconds = time.process_time() - began
    start_truth = against_truth(start.volume)
    tell(f"{case.name}: start {start_truth} Å, scores {start.score:.1f} and {start.others}, {start_seconds:.0f} s")
    began = time.process_time()
    found = refine(stack, halves, start.volume, symmetry=case.symmetry, progress=tell)
    seconds = time.process_time() - began
    row = Row(
        name=case.name,
        symmetry=case.symmetry,
        particles=case.particles,
        nyquist=round(2 * pixel, 2),
        known_half=known_half,
        known_truth=known_truth,
        start_truth=start_truth,
        start_scores=(round(start.score, 1), *(round(one, 1) for one in start.others)),
        refined_half=round(found.resolution_angstrom, 2),
        refined_truth=against_truth(found.map),
        iterations=len(found.steps),
        start_seconds=round(start_seconds, 1),
        refinement_seconds=round(seconds, 1),
    )
    tell(f"{case.name}: refined, half maps {row.refined_half} Å, truth {row.refined_truth} Å, {seconds:.0f} s")
    return row


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [
        "# The embedded engine against known angles",
        "",
        "Made by `benchmarks/embedded_engine.py`: stacks of simulated particles (CTF, white noise; no ice, dirt or",
        "neighbours), no reference. Half maps at 0.143, truth at 0.5, both in a soft sphere; Å; processor seconds.",
        "",
        "| protein | symmetry | particles | Nyquist | known: half / truth | start: truth (scores) "
        "| refined: half / truth | within 1 Å or 5 % | start + refinement s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scores = ", ".join(f"{one:g}" for one in row.start_scores)
        lines.append(
            f"| {row.name} | {row.symmetry} | {row.particles} | {row.nyquist:g} "
            f"| {row.known_half:g} / {row.known_truth:g} | {row.start_truth:g} ({scores}) "
            f"| {row.refined_half:g} / {row.refined_truth:g} | {'yes' if row.is_good else 'no'} "
            f"| {row.start_seconds:.0f} + {row.refinement_seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the starts")
    parser.add_argument("--only", help="the name of one protein; its row alone is printed, nothing is written")
    options = parser.parse_args()
    rows = [
        run(case, options.seed, lambda words: print(words, flush=True))
        for case in CASES
        if options.only in (None, case.name)
    ]
    print(markdown(rows))
    if options.only is None:
        kept = [{**asdict(row), "is_good": row.is_good} for row in rows]
        (RESULTS / "embedded_engine.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "embedded_engine.md").write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
