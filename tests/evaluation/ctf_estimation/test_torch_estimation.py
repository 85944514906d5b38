"""The library fits a simulated micrograph to its true CTF, in a process of its own, and says what it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cryopick
from cryopick.errors import CryopickError
from cryopick.evaluation.ctf_estimation import Microscope, refusal, search_for
from cryopick.evaluation.ctf_estimation.torch_estimation import MODULE, TorchCtfEstimation
from cryopick.io.images.mrc import write_mrc
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.workflows.validate3d.ctf_tables import read_micrograph_optics

KRIOS = Microscope(voltage_kv=300)


def test_a_simulated_micrograph_is_fitted_to_its_true_ctf(tmp_path: Path) -> None:
    pytest.importorskip(MODULE, reason="needs torch-ctf-estimation (extra ctf)")
    recipe = replace(named_recipe("validation"), shape_yx=(640, 640))
    cryopick.simulate(tmp_path / "sim", SimulationSettings(structures=("random",), seed=3, recipe=recipe), count=1)
    ((name, true),) = read_micrograph_optics(tmp_path / "sim/micrographs.star").items()
    image = tmp_path / "sim" / name
    pixel = cryopick.read_micrograph(image).pixel_size_angstrom
    assert pixel is not None
    estimator = TorchCtfEstimation()
    fit = estimator.estimate(image, tmp_path, microscope=KRIOS, search=search_for(pixel))
    assert fit.defocus_um == pytest.approx(true.defocus_um, abs=0.06)
    assert refusal(fit, search_for(pixel), least_correlation=estimator.least_correlation) == ""


def test_an_image_without_a_spectrum_is_one_sentence(tmp_path: Path) -> None:
    write_mrc(tmp_path / "even.mrc", np.ones((512, 512), np.float32), pixel_size_angstrom=2)
    with pytest.raises(CryopickError, match=r"^even\.mrc: torch-ctf-estimation failed: the image is even"):
        TorchCtfEstimation().estimate(tmp_path / "even.mrc", tmp_path, microscope=KRIOS, search=search_for(2.0))
