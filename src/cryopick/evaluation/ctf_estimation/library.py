"""The library torch-ctf-estimation, which needs PyTorch: one process a micrograph, so that one that dies costs itself.

`python -m` of this module takes a file with what is asked, as JSON, and the file for the answer.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, FormatError
from cryopick.evaluation.ctf_estimation.fits import CtfFit, CtfSearch, Microscope
from cryopick.evaluation.relion_programs.failures import ProgramFailedError
from cryopick.evaluation.usage import Limits, run_kept
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import read_micrograph
from cryopick.scale.processes import THREAD_VARIABLES, python_command

MODULE = "torch_ctf_estimation"
LEAST_CORRELATION = 0.03
FITTED_PIXEL_ANGSTROM = 3.0
"""To which finer images are binned: as good as 1.5 Å on simulated micrographs, in a third of the time."""
PATCH_PX = 256
TIME_LIMIT_SECONDS = 1800.0
ASKED, ANSWER, OUT = "asked.json", "answer.json", "said.txt"


@dataclass(frozen=True)
class TorchCtfEstimation:
    """See `CtfEstimator`."""

    @property
    def name(self) -> str:
        return "torch-ctf-estimation"

    @property
    def least_correlation(self) -> float:
        return LEAST_CORRELATION

    def record(self) -> Mapping[str, object]:
        return {"program": self.name, "fitted_pixel_angstrom": FITTED_PIXEL_ANGSTROM, "patch_px": PATCH_PX}

    def estimate(self, image: Path, folder: Path, *, microscope: Microscope, search: CtfSearch) -> CtfFit:
        asked, answer, out = folder / ASKED, folder / ANSWER, folder / OUT
        content = {"image": str(image.absolute()), "microscope": asdict(microscope), "search": asdict(search)}
        write_text_atomic(asked, json.dumps(content) + "\n")
        answer.unlink(missing_ok=True)
        usage = run_kept(
            python_command(__spec__.name, str(asked.absolute()), str(answer.absolute())),
            out=out,
            err=out,
            limits=Limits(time_s=TIME_LIMIT_SECONDS),
            environment=dict.fromkeys(THREAD_VARIABLES, "1"),  # micrographs beside each other fill the cores
        )
        if not answer.is_file():
            lines = [one.strip() for one in out.read_text(encoding="utf-8", errors="replace").splitlines()]
            said = next((one for one in reversed(lines) if one), "it said nothing")
            why = f"took more than {TIME_LIMIT_SECONDS:g} s" if usage.ended_by else f"failed: {said[:200]}"
            raise ProgramFailedError(f"{image.name}: {self.name} {why}")
        return CtfFit(**read_json_object(answer, what="a fit of the CTF"))


def fit_of_pixels(pixels: np.ndarray[Any, Any], *, microscope: Microscope, search: CtfSearch) -> CtfFit:
    """Fit a micrograph here and now.

    Parameters
    ----------
    pixels : (h, w) float, as stored; pixels that are no numbers count as the mean

    Raises
    ------
    FormatError
        If the image is even, or no number at all.
    """
    import torch
    from torch_ctf_estimation import CTFFittingParams, OpticalParams, estimate_ctf

    is_finite = np.isfinite(pixels)
    if not is_finite.any() or np.ptp(pixels[is_finite]) == 0:
        raise FormatError("the image is even, so that its spectrum says nothing")
    filled = np.where(is_finite, pixels, pixels[is_finite].mean()).astype(np.float32)
    _, _, result = estimate_ctf(
        torch.from_numpy(filled),
        OpticalParams(
            pixel_spacing_angstroms=search.pixel_size_angstrom,
            voltage_kev=microscope.voltage_kv,
            spherical_aberration_mm=microscope.spherical_aberration_mm,
            amplitude_contrast_fraction=microscope.amplitude_contrast,
            target_pixel_spacing_angstroms=FITTED_PIXEL_ANGSTROM,
        ),
        CTFFittingParams(
            defocus_grid_resolution=(1, 1, 1),
            frequency_fit_range_angstroms=(
                search.coarsest_angstrom,
                max(search.finest_angstrom, 2.1 * FITTED_PIXEL_ANGSTROM),
            ),
            defocus_range_microns=(search.least_defocus_um, search.most_defocus_um),
            patch_sidelength=PATCH_PX,
        ),
    )
    return CtfFit(
        defocus_u_um=_number(result.defocus_u),
        defocus_v_um=_number(result.defocus_v),
        astigmatism_angle_deg=result.astigmatism_angle or 0.0,
        correlation=_number(result.cross_correlation_final),
    )


def _number(value: float | None) -> float:
    """What was not found is no number, and the fit is then refused."""
    return math.nan if value is None else float(value)


def main(asked: Path, answer: Path) -> int:
    """Answer one question; what went wrong is said on stderr."""
    try:
        content = read_json_object(asked, what="what is asked of an estimator")
        micrograph = read_micrograph(content["image"])
        fit = fit_of_pixels(
            micrograph.pixels,
            microscope=Microscope(**content["microscope"]),
            search=CtfSearch(**content["search"]),
        )
    except CryopickError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    write_text_atomic(answer, json.dumps(asdict(fit)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
