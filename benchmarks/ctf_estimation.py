"""How near the estimated CTF comes to the true one, and which correlation tells right fits from wrong ones.

Simulates series of micrographs of known CTF, from fine pixels and a full dose to coarse ones and hardly any, and images
of noise alone, and has `cryopick validate3d --ctf estimate`'s library fit each (extra `ctf`). A fit is right within
0.1 µm of the true mean defocus, by which the rings at 12 Å are off by less than a quarter of a period.

    python benchmarks/ctf_estimation.py --work /tmp/ctf

writes `benchmarks/results/ctf_estimation.md` and `.json`. What is simulated or fitted is not done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cryopick.evaluation.ctf_estimation import CtfFit, Microscope, refusal, search_for
from cryopick.evaluation.ctf_estimation.torch_estimation import LEAST_CORRELATION, fit_of_pixels
from cryopick.evaluation.report import markdown_table
from cryopick.evaluation.usage import run_measured
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.scale.processes import python_command
from cryopick.workflows.validate3d.ctf_tables import read_micrograph_optics

RESULTS = Path(__file__).parent / "results"
RIGHT_UM = 0.1
THRESHOLDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1)
MICROSCOPE = Microscope(voltage_kv=300)


@dataclass(frozen=True)
class Series:
    """Micrographs of one kind; a dose of 0 is noise alone."""

    pixel_size_angstrom: float
    dose: float
    side_px: int

    @property
    def name(self) -> str:
        if not self.dose:
            return "noise alone"
        return f"{self.pixel_size_angstrom:g} Å, {self.dose:g} e/Å², {self.side_px}²"


SERIES = (
    Series(1.0, 40, 2048), Series(1.6, 40, 1024), Series(1.6, 8, 1024), Series(1.6, 1, 1024), Series(3.0, 20, 1024),
    Series(3.0, 1, 1024), Series(5.0, 20, 1024), Series(5.0, 1, 1024), Series(3.0, 0, 1024),
)  # fmt: skip


def images_of(series: Series, work: Path, count: int) -> dict[Path, tuple[float, float, float] | None]:
    """Each micrograph with its true defocus U and V in µm and the angle; None where there is nothing to find."""
    folder = work / f"{series.pixel_size_angstrom:g}_{series.dose:g}_{series.side_px}"
    if not series.dose:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"noise_{number}.mrc" for number in range(count)]
        for number, path in enumerate(paths):
            pixels = np.random.default_rng(number).normal(size=(series.side_px,) * 2).astype(np.float32)
            write_mrc(path, pixels, pixel_size_angstrom=series.pixel_size_angstrom)
        return dict.fromkeys(paths)
    words = [
        *(
            "simulate",
            "-q",
            "-o",
            str(folder),
            "--recipe",
            "validation",
            "--pixel-size",
            str(series.pixel_size_angstrom),
        ),
        *("--dose", str(series.dose), "--size", f"{series.side_px}x{series.side_px}", "--count", str(count)),
        *("--defocus", "0.5-3.5um", "--seed", "21", "--structure", "random", "--diameter", "120-200A"),
    ]
    done = run_measured(python_command("cryopick", *words))
    if done.exit_code:
        raise SystemExit(done.output)
    optics = read_micrograph_optics(folder / "micrographs.star")
    return {
        folder / name: (one.defocus_u_um, one.defocus_v_um, one.astigmatism_angle_deg) for name, one in optics.items()
    }


def fitted(path: Path, work: Path, series: Series) -> CtfFit:
    """The fit of one micrograph; kept."""
    answer = work / "fits" / f"{path.parts[-3]}_{path.parts[-2]}_{path.stem}.json"
    if answer.is_file():
        return CtfFit(**json.loads(answer.read_text()))
    pixels = read_micrograph(path).pixels
    fit = fit_of_pixels(pixels, microscope=MICROSCOPE, search=search_for(series.pixel_size_angstrom))
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_text(json.dumps(asdict(fit)))
    return fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for micrographs and fits")
    parser.add_argument("--count", type=int, default=8, help="micrographs a series")
    arguments = parser.parse_args()
    found = []
    for series in SERIES:
        for path, truth in images_of(series, arguments.work, arguments.count).items():
            fit = fitted(path, arguments.work, series)
            found.append({"series": series.name, "micrograph": path.name, "truth": truth, "fit": asdict(fit)})
            print(series.name, path.name, truth, fit, flush=True)
    RESULTS.joinpath("ctf_estimation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("ctf_estimation.md").write_text(page(found, arguments.count), encoding="utf-8")


def error_um(row: dict) -> float:
    """Of the mean defocus."""
    fit = CtfFit(**row["fit"])
    return float("inf") if row["truth"] is None else abs(fit.defocus_um - (row["truth"][0] + row["truth"][1]) / 2)


def astigmatism_error_um(row: dict) -> float:
    """Distance of the two astigmatisms as vectors of their size and twice their angle."""
    fit = CtfFit(**row["fit"])
    u, v, angle = row["truth"]
    one = (u - v) * np.exp(2j * np.radians(angle))
    other = (fit.defocus_u_um - fit.defocus_v_um) * np.exp(2j * np.radians(fit.astigmatism_angle_deg))
    return float(abs(one - other))


def page(found: list[dict], count: int) -> str:
    """The results in Markdown."""
    rows = []
    for series in SERIES:
        own = [row for row in found if row["series"] == series.name]
        kept = [
            row
            for row in own
            if not refusal(
                CtfFit(**row["fit"]),
                search_for(series.pixel_size_angstrom),
                least_correlation=LEAST_CORRELATION,
            )
        ]
        errors = [1e4 * error_um(row) for row in kept if row["truth"] is not None]
        astigmatism = [1e4 * astigmatism_error_um(row) for row in kept if row["truth"] is not None]
        correlations = sorted(row["fit"]["correlation"] for row in own)
        rows.append(
            [
                series.name,
                f"{len(kept)} of {len(own)}",
                f"{np.median(errors):.0f}" if errors else "-",
                f"{max(errors):.0f}" if errors else "-",
                f"{np.median(astigmatism):.0f}" if astigmatism else "-",
                f"{correlations[0]:.3f} to {correlations[-1]:.3f}",
            ]
        )
    columns = ["micrographs", "believed", "defocus off by, median Å", "worst Å", "astigmatism, median Å", "correlation"]
    thresholds = []
    for threshold in THRESHOLDS:
        kept = [row for row in found if row["fit"]["correlation"] >= threshold]
        wrong = [row for row in kept if not error_um(row) <= RIGHT_UM]
        right = sum(error_um(row) <= RIGHT_UM for row in found)
        thresholds.append([f"{threshold:g}", f"{len(kept) - len(wrong)} of {right}", str(len(wrong))])
    return (
        "# The CTF estimated from simulated micrographs\n\n"
        f"Made by `benchmarks/ctf_estimation.py`: {count} micrographs a series, 0.5 to 3.5 µm of underfocus, 300 kV, "
        "astigmatism up to 0.15 µm; torch-ctf-estimation, as `validate3d --ctf estimate` runs it without CTFFIND. A "
        f"fit is believed from a correlation of {LEAST_CORRELATION:g} on, away from the bounds of the search.\n\n"
        f"{markdown_table(columns, rows)}\n\n"
        f"Right is within {RIGHT_UM:g} µm of the true mean defocus.\n\n"
        f"{markdown_table(['least correlation', 'right fits kept', 'wrong fits kept'], thresholds)}\n"
    )


if __name__ == "__main__":
    main()
