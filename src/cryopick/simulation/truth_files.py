"""The files of a simulated micrograph: image, centres, masks, and what RELION needs to reconstruct from it.

```
micrographs/sim_0001.mrc, sim_0001.csv, set.json   a labelled set: one row per particle (`labels_csv`)
masks/sim_0001_instances.png, sim_0001_junk.png    16-bit: 0 background, i + 1 particle i of the CSV; 8-bit: 255 junk
truth/sim_0001.star, sim_0001.json                 RELION rows; the conditions (and kind, in a session), written last
particles.star, micrographs.star                   all micrographs together
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.files.json_object import read_json_object
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.raster import write_png
from cryopick.io.set_json import write_set_settings
from cryopick.io.star import StarTable, make_table, read_star, write_star
from cryopick.processing.ctf import CtfParameters
from cryopick.simulation.micrograph import SimulatedMicrograph
from cryopick.simulation.specimens.specimen import BOX_PER_DIAMETER

RELION_VERSION = 30001
MICROGRAPHS, MASKS, TRUTH = "micrographs", "masks", "truth"
_OPTICS_COLUMNS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


def is_written(folder: Path, name: str) -> bool:
    """True when all files of a micrograph are there."""
    return (folder / TRUTH / f"{name}.json").is_file()


def write_simulated(folder: Path, simulated: SimulatedMicrograph) -> None:
    """Write all files of one micrograph, each whole or not at all; the one that marks it as finished comes last.

    Raises
    ------
    OutputError
        If a file cannot be written.
    FormatError
        If there are more particles than a 16-bit mask can number.
    """
    name = simulated.micrograph.name
    if simulated.instances.max(initial=0) > np.iinfo(np.uint16).max:
        raise FormatError(f"{name}: {simulated.instances.max()} particles do not fit a 16-bit mask; simulate fewer")
    write_micrograph(folder / MICROGRAPHS / f"{name}.mrc", simulated.micrograph)
    write_text_atomic(folder / MICROGRAPHS / f"{name}.csv", labels_csv(simulated))
    write_png(folder / MASKS / f"{name}_instances.png", simulated.instances.astype(np.uint16))
    write_png(folder / MASKS / f"{name}_junk.png", np.where(simulated.junk, 255, 0).astype(np.uint8))
    write_star(folder / TRUTH / f"{name}.star", [_particle_table(simulated)], version=RELION_VERSION)
    facts = {
        "name": name,
        "pixel_size_angstrom": simulated.micrograph.pixel_size_angstrom,
        "shape_yx": list(simulated.micrograph.shape_yx),
        "particles": len(simulated.xy_px),
        "diameter_px": float(np.median(simulated.diameter_px)) if len(simulated.diameter_px) else None,
        "conditions": asdict(simulated.conditions),
    }
    if simulated.kind:
        facts["kind"] = simulated.kind
    write_text_atomic(folder / TRUTH / f"{name}.json", json.dumps(facts, indent=1) + "\n")


def labels_csv(simulated: SimulatedMicrograph) -> str:
    """One row per particle: x, y, kind, diameter_px, class_id (species), snr, visibility.

    `kind` is `uncertain` where neither finding nor missing the particle is a fault: on junk, or mostly hidden.
    """
    lines = ["x,y,kind,diameter_px,class_id,snr,visibility"]
    kinds = np.where(simulated.is_pickable, "particle", "uncertain")
    rows = zip(
        simulated.xy_px.tolist(),
        kinds.tolist(),
        simulated.diameter_px.tolist(),
        simulated.species.tolist(),
        simulated.snr.tolist(),
        simulated.visibility.tolist(),
        strict=True,
    )
    for (x, y), kind, diameter, species, snr, visibility in rows:
        lines.append(f"{x:.3f},{y:.3f},{kind},{diameter:.2f},{species},{snr:.3f},{visibility:.3f}")
    return "\n".join(lines) + "\n"


def write_set_json(folder: Path, *, diameter_px: float | None, pixel_size_angstrom: float, protein: str) -> None:
    """`set.json` beside the images, as evaluation and training read it, and a copy at the top."""
    content = {"protein": protein, "diameter_px": diameter_px, "pixel_size_angstrom": pixel_size_angstrom}
    for place in (folder / MICROGRAPHS, folder):
        write_set_settings(place, {**content, "labels": "complete"})


def read_facts(folder: Path, name: str) -> dict[str, Any]:
    """What `truth/NAME.json` says of a simulated micrograph.

    Raises
    ------
    FormatError
        If it is not what `write_simulated` wrote; without the file the micrograph is simulated again.
    """
    path = folder / TRUTH / f"{name}.json"
    facts = read_json_object(path, what="the facts of a simulated micrograph")
    try:
        _ctf_columns(_ctf_of(facts), 1)
        numbers = [facts["pixel_size_angstrom"], facts["particles"], *_optics_of(facts).values()]
        numbers += [] if facts["diameter_px"] is None else [facts["diameter_px"]]
        is_sound = all(isinstance(one, int | float) and np.isfinite(one) for one in numbers)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        is_sound = False
    if not is_sound:
        raise _damaged(path, name)
    return facts


def optics_of_micrograph(folder: Path, name: str) -> CtfParameters:
    """The optics that a simulated micrograph was seen through; errors as in `read_facts`."""
    return _ctf_of(read_facts(folder, name))


def _damaged(path: Path, name: str) -> FormatError:
    return FormatError(f"{path}: is damaged; delete it and run the same command again to simulate {name} again")


def _particles_of(path: Path, *, labels: Set[str]) -> StarTable:
    """The particles of one micrograph; `labels` are the columns of those before it, or nothing."""
    table = read_star(path).get("particles")
    if table is None or (labels and {*table.columns, "rlnOpticsGroup"} != labels):
        raise _damaged(path, path.stem)
    return table


def write_relion_tables(folder: Path, names: Sequence[str]) -> None:
    """`particles.star` and `micrographs.star` of all finished micrographs, in the order given."""
    facts = [read_facts(folder, name) for name in names]
    optics = [tuple(_optics_of(one).values()) for one in facts]
    groups = list(dict.fromkeys(optics))
    group_of = [groups.index(one) + 1 for one in optics]
    pixel_size = float(facts[0]["pixel_size_angstrom"]) if facts else 1.0
    numbers = np.arange(1, len(groups) + 1)
    optics_columns: dict[str, Any] = {
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        "rlnOpticsGroup": numbers,
        "rlnMicrographOriginalPixelSize": np.full(len(groups), pixel_size),
        "rlnMicrographPixelSize": np.full(len(groups), pixel_size),
    }
    for place, label in enumerate(_OPTICS_COLUMNS):
        optics_columns[label] = np.array([group[place] for group in groups], dtype=np.float64)
    optics_table = make_table("optics", optics_columns)

    micrographs: dict[str, Any] = {"rlnMicrographName": [f"{MICROGRAPHS}/{name}.mrc" for name in names]}
    for label in _ctf_columns(_ctf_of(facts[0]), 1) if facts else ():
        micrographs[label] = np.concatenate([_ctf_columns(_ctf_of(one), 1)[label] for one in facts])
    micrographs["rlnOpticsGroup"] = np.array(group_of, dtype=np.int64)
    if any("kind" in one for one in facts):
        micrographs["cryopickKind"] = [str(one.get("kind", "unknown")) for one in facts]
    write_star(
        folder / "micrographs.star", [optics_table, make_table("micrographs", micrographs)], version=RELION_VERSION
    )

    particles: dict[str, list[str]] = {}
    for name, group in zip(names, group_of, strict=True):
        table = _particles_of(folder / TRUTH / f"{name}.star", labels=particles.keys())
        for label, values in table.columns.items():
            particles.setdefault(label, []).extend(values)
        particles.setdefault("rlnOpticsGroup", []).extend([str(group)] * len(table))
    # RELION re-extracts only from tables that name an image size, even though there are no images yet
    diameters = [one["diameter_px"] for one in facts if one["diameter_px"] is not None]
    box_px = 2 * round(BOX_PER_DIAMETER * max(diameters, default=64.0) / 2)
    optics_columns["rlnImagePixelSize"] = np.full(len(groups), pixel_size)
    optics_columns["rlnImageSize"] = np.full(len(groups), box_px)
    optics_columns["rlnImageDimensionality"] = np.full(len(groups), 2)
    tables = [make_table("optics", optics_columns), StarTable("particles", particles)]
    write_star(folder / "particles.star", tables, version=RELION_VERSION)


def _particle_table(simulated: SimulatedMicrograph) -> StarTable:
    """RELION's columns for every particle; the exact centre is the coordinate minus the origin."""
    n = len(simulated.xy_px)
    columns: dict[str, Any] = {
        "rlnMicrographName": [f"{MICROGRAPHS}/{simulated.micrograph.name}.mrc"] * n,
        "rlnCoordinateX": simulated.coordinates_px[:, 0].astype(np.float64),
        "rlnCoordinateY": simulated.coordinates_px[:, 1].astype(np.float64),
        "rlnOriginXAngst": simulated.origins_angstrom[:, 0],
        "rlnOriginYAngst": simulated.origins_angstrom[:, 1],
        "rlnAngleRot": simulated.euler_deg[:, 0],
        "rlnAngleTilt": simulated.euler_deg[:, 1],
        "rlnAnglePsi": simulated.euler_deg[:, 2],
        "rlnClassNumber": (simulated.species + 1).astype(np.int64),
        **_ctf_columns(simulated.ctf, n),
    }
    return make_table("particles", columns)


def _ctf_columns(ctf: CtfParameters, rows: int) -> dict[str, NDArray[np.float64]]:
    values = {
        "rlnDefocusU": ctf.defocus_u_um * 1e4,
        "rlnDefocusV": ctf.defocus_v_um * 1e4,
        "rlnDefocusAngle": ctf.astigmatism_angle_deg,
        "rlnPhaseShift": ctf.phase_shift_deg,
        "rlnCtfBfactor": ctf.b_factor_angstrom2,
    }
    return {label: np.full(rows, value, dtype=np.float64) for label, value in values.items()}


def _ctf_of(facts: Mapping[str, Any]) -> CtfParameters:
    return CtfParameters(**facts["conditions"]["optics"])


def _optics_of(facts: Mapping[str, Any]) -> dict[str, float]:
    ctf = _ctf_of(facts)
    return {"voltage": ctf.voltage_kv, "aberration": ctf.spherical_aberration_mm, "contrast": ctf.amplitude_contrast}
