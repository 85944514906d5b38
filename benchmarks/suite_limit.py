"""What the ideal matched filter reaches on each set of the simulated suite: the limit for any picker.

python benchmarks/suite_limit.py [--micrographs 1] > docs/suite_limit.md
"""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np

from cryopick.simulation.suite import MICROGRAPHS_PER_SET, SNR_OF_LEVEL, SUITE_VERSION, suite_sets
from ideal import ideal_detection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--micrographs", type=int, default=MICROGRAPHS_PER_SET, help="of each set")
    arguments = parser.parse_args()
    print(f"Suite {SUITE_VERSION}, best F1 of the ideal matched filter, {arguments.micrographs} micrograph(s) a set\n")
    print("| protein | diameter, px | " + " | ".join(SNR_OF_LEVEL) + " |")
    print("|---|---|" + "---|" * len(SNR_OF_LEVEL))
    row: list[str] = []
    for one in suite_sets():
        imager = one.imager()
        simulated = list(islice(one.micrographs(imager, workers=2), arguments.micrographs))
        f1 = np.mean([ideal_detection(micrograph, [imager], workers=2).f1 for micrograph in simulated])
        row = row or [one.protein.family, f"{imager.diameter_px:.0f}"]
        row.append(f"{f1:.2f}")
        if len(row) == 2 + len(SNR_OF_LEVEL):
            print("| " + " | ".join(row) + " |", flush=True)
            row = []


if __name__ == "__main__":
    main()
