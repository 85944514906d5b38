"""By what the candidates of a micrograph are known to be those that the run would find now.

A run learns while it grows: sizes are measured anew on more micrographs, `prepared.toml` is made again. Much of that
changes only the threshold, the tables and what is said; what a picker looks by changes candidates. Each record keeps a
short hash of all that its candidates depend on besides the micrograph itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from cryopick.errors import CryopickError
from cryopick.inference.computing import Computing
from cryopick.pickers.protocol import run_level_fields
from cryopick.pickers.registry import HasShape, doubt_about_size
from cryopick.pickers.survey import NOTHING_SEEN, Survey
from cryopick.runs.files import digest_of, used_files
from cryopick.runs.record import Record
from cryopick.runs.settings import PickPlan
from cryopick.settings import as_plain, settings_of, to_toml

NO_LOOK = {
    "run": ("target_precision", "drop_bad", "max_pixels", "exclusion_masks"),
    "selection": ("threshold",),
    "picker": ("device", "precision"),
}
"""Settings that decide threshold, tables or what can be read at all. Masks have stamps of their own in each record, and
what device and precision come to is hashed in their place."""
HASH_DIGITS = 16


def picked_with(plan: PickPlan) -> str:
    """16 hexadecimal digits that change whenever other candidates could be found in the same file.

    A setting counts only where it is not at its default, so that one that a later version adds changes nothing; a file
    counts by its content, wherever it lies.
    """
    picker, settings = plan.picker, plan.settings
    files = used_files(picker, plan.survey)
    content = {
        "picker": {"name": picker.name, **_changed(picker, NO_LOOK["picker"], files)},
        "run": {
            **_changed(settings.run, NO_LOOK["run"], files),
            "has_masks": settings.run.exclusion_masks is not None,
        },
        "selection": _changed(settings.selection, NO_LOOK["selection"], files),
        "survey": look_fields(picker, plan.survey),
        "computing": _numbers(plan.computing or Computing()),
        "files": {role: one.sha256 for role, one in files.items()},
    }
    text = to_toml({section: dict(sorted(values.items())) for section, values in content.items()})
    return _hash(text)


def look_fields(picker: Any, survey: Survey | None) -> dict[str, Any]:
    """Of what was seen before a run, in plain values, that by which the picker looks; what is unknown is left out.

    A file counts by its content: a model that was trained in two folders may be the same.
    """
    seen = survey or NOTHING_SEEN
    aside = run_level_fields(picker)
    if seen.working_size is None:  # then pickers look at the size of the particles itself
        aside = aside - {"particle_size"}
    plain = {name: value for name, value in seen.to_plain().items() if name not in aside}
    for name in plain:
        value = getattr(seen, name)
        if isinstance(value, Path):
            plain[name] = digest_of(value) or value.name
    return plain


def picked_with_on(micrograph: HasShape, plan: PickPlan) -> str:
    """`plan.picked_with` as it stands in the record of a micrograph.

    A measured diameter that hardly fits on a micrograph is warned of there, and a large or small one is refused: on
    such a micrograph alone it counts, too.
    """
    try:
        doubt = doubt_about_size(plan.picker, plan.survey, micrograph)
    except CryopickError as error:
        doubt = str(error)
    return _hash(f"{plan.picked_with} {doubt}") if plan.picked_with and doubt else plan.picked_with


def is_stale(record: Record, plan: PickPlan) -> bool:
    """Whether a micrograph was picked otherwise than the run would pick it now.

    Records of runs from before there was `picked_with` are not; nor are failed ones, which are picked again anyway.
    """
    if not (record.picked_with and record.is_done and record.shape_yx):
        return False
    on = _Known(record.name, record.shape_yx, record.pixel_size_angstrom)
    return record.picked_with != picked_with_on(on, plan)


class _Known(NamedTuple):
    """What a record says of its micrograph."""

    name: str
    shape_yx: tuple[int, int]
    pixel_size_angstrom: float | None


def _changed(settings: Any, aside: tuple[str, ...], files: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not at their default, but for those `aside` and those that name a file that is hashed."""
    plain = as_plain(settings)
    return {
        one.name: plain[one.name]
        for one in settings_of(type(settings))
        if one.name in plain
        and one.name not in aside
        and one.name not in files
        and getattr(settings, one.name) != one.default
    }


def _numbers(computing: Computing) -> dict[str, Any]:
    """Device and precision; another library, which computes in the same numbers, finds the same candidates."""
    return {name: value for name, value in as_plain(computing).items() if name != "runtime"}


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
