"""Write the fixed simulated suite to a folder: one labelled set per protein and level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryopick.simulation.suite import SuiteSet, suite_sets
from cryopick.simulation.truth_files import is_written, write_relion_tables, write_set_json, write_simulated


def write_suite(
    output: Path | str,
    *,
    levels: tuple[str, ...] = ("easy", "medium", "hard"),
    on_done: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write each set of the suite to `output/<set name>/`; what is there already is kept.

    Parameters
    ----------
    levels : of `cryopick.simulation.suite.SNR_OF_LEVEL`
    on_done : called with the name of each set as it is finished

    Returns
    -------
    folders : one per set; its `micrographs/` is a labelled set
    """
    folders = []
    for one in suite_sets(levels=levels):
        folder = Path(output) / one.name
        _write_set(folder, one)
        folders.append(folder)
        if on_done is not None:
            on_done(one.name)
    return folders


def _write_set(folder: Path, one: SuiteSet) -> None:
    if (folder / "particles.star").is_file():
        return
    imager = one.imager()
    names = []
    for simulated in one.micrographs(imager):
        names.append(simulated.micrograph.name)
        if not is_written(folder, simulated.micrograph.name):
            write_simulated(folder, simulated)
    write_set_json(
        folder,
        diameter_px=round(imager.diameter_px, 2),
        pixel_size_angstrom=imager.pixel_size_angstrom,
        protein=imager.specimen.name,
    )
    write_relion_tables(folder, names)
