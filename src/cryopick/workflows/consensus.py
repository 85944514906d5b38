"""One run from several: what the picks of different programs, or runs, say together."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.evaluation.comparison import frame_doubts
from cryopick.evaluation.scored_sets import PickedSet, read_picked_set, some_names
from cryopick.geometry.units import Length, as_length
from cryopick.io.coordinates.formats import write_picks
from cryopick.io.coordinates.names import match_micrograph_names, without_extension
from cryopick.io.images.micrographs import probe_image
from cryopick.io.inputs.sources import MicrographSource, find_micrographs
from cryopick.pickers.consensus import known_members, load_stacking
from cryopick.runs.folder import SUMMARY, RunFolder
from cryopick.runs.place import output_folder
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import make_settings
from cryopick.types import Picks
from cryopick.workflows.pick import pick_to_folder

_logger = logging.getLogger(__name__)
Rule = Literal["expected-f1", "majority", "union", "intersection"]
MEMBERS = "members"
"""Folder in the run's, with one folder of picks for each set that was joined."""


def consensus(
    sets: Sequence[Path | str],
    output: Path | str,
    *,
    names: Sequence[str] = (),
    micrographs: Sequence[Path | str] = (),
    rule: Rule | None = None,
    diameter: Length | str | float | None = None,
    pixel_size_angstrom: float | None = None,
    overwrite: bool = False,
    command: str = "",
    on_event: Callable[[PickEvent], None] | None = None,
) -> RunSummary:
    """Join the picks of several runs, or coordinate files of any program, into a run of their consensus.

    Parameters
    ----------
    sets : run folders, coordinate files, or folders of them; two or more
    output : run folder of the consensus, which holds a copy of what was joined
    names : what to call the sets, as many; by default runs are called by their pickers, others by their files, and all
        by their folders and files where two would be called the same
    micrographs : the images; runs know theirs
    rule : None is `expected-f1` where all are runs of different pickers whose scores can be joined, else `majority`
    diameter : of the particles; None takes the median of the picks' diameters
    pixel_size_angstrom : Å per px, above what files say
    overwrite : start again, where the folder holds a run

    Raises
    ------
    InputError, RunFolderError, SettingsError
        As `pick_to_folder`; also if the sets cannot be joined by that rule.
    """
    paths = [Path(one) for one in sets]
    if len(paths) < 2:
        raise InputError(f"expected two sets of picks or more, got {len(paths)}")
    called = list(names) or _names(paths)
    if not names and len(set(called)) < len(called):  # runs of one picker
        called = [path.name for path in paths]
    if len(called) != len(paths) or len(set(called)) != len(called):
        raise InputError(f"{len(paths)} sets need as many different names, got {', '.join(called)}; give --names a,b")
    if rule is None:
        rule = "expected-f1" if set(called) <= set(known_members()) and all(map(_is_run, paths)) else "majority"
    elif rule == "expected-f1" and not all(map(_is_run, paths)):
        raise SettingsError(
            "rule expected-f1 joins the probabilities of all candidates, which only runs of cryopick hold; give runs, "
            "or choose --rule majority, union or intersection"
        )
    if rule == "expected-f1":
        load_stacking(None, members=called)  # what cannot be joined is told before anything is written
    folder = output_folder(output)
    members = Path(os.path.abspath(folder)) / MEMBERS
    sources = list(micrographs) or _micrographs_of(paths)
    settings = make_settings(
        "consensus",
        of=tuple(called),
        rule=rule,
        picks=members,
        diameter=None if diameter is None else as_length(diameter),
        pixel_size_angstrom=pixel_size_angstrom,
    )
    if RunFolder(folder).is_run and not overwrite:
        raise RunFolderError(f"{folder}: holds a run; choose another folder with -o, or --overwrite")
    images = find_micrographs(sources)
    image_names = [source.name for source in images]
    picked = {name: read_picked_set(path) for name, path in zip(called, paths, strict=True)}
    for doubt in _doubts_about_frames(picked, images, settings.picker.diameter, pixel_size_angstrom):
        _logger.warning("different frames, so that picks of one particle are not joined: %s", doubt)
    for name, path in zip(called, paths, strict=True):
        picks = picked[name].candidates
        found = match_micrograph_names(picks, image_names)
        if not found:
            raise InputError(f"{path}: none of its micrographs is among those given, such as {image_names[0]}")
        others = sorted(picks.keys() - found.keys())
        if others:
            _logger.warning(
                "%s: its picks on %d micrographs that are not among those given are left out: %s",
                *(path, len(others), some_names(others)),
            )
        own = [replace(picks[one], micrograph_name=without_extension(image)) for one, image in found.items()]
        _write_member(members / name, own)
    return pick_to_folder(
        [str(one) for one in sources],
        folder,
        settings,
        workers=1,
        command=command,
        overwrite=overwrite,
        on_event=on_event,
    )


def _doubts_about_frames(
    picked: Mapping[str, PickedSet],
    images: Sequence[MicrographSource],
    diameter: Length | None,
    pixel_size_angstrom: float | None,
) -> list[str]:
    """A sentence for each two sets that lie mirrored or beside each other; none where that cannot be measured."""
    shapes_yx = {}
    if not any(one.shape_yx for each in picked.values() for one in each.candidates.values()):
        path_of = {source.name: source.path for source in images}
        for name, image in match_micrograph_names(next(iter(picked.values())).candidates, path_of).items():
            with suppress(InputError):  # an image that cannot be read is told when it is picked
                shapes_yx[name] = probe_image(path_of[image]).shape_yx
    try:
        return frame_doubts(picked, shapes_yx=shapes_yx, diameter=diameter, pixel_size_angstrom=pixel_size_angstrom)
    except (InputError, SettingsError):  # no micrograph in common, or no diameter: told where it matters
        return []


def _write_member(folder: Path, picks: Sequence[Picks]) -> None:
    write_picks(picks, f"{folder}/", format="csv", keep_rejected=True)


def _is_run(path: Path) -> bool:
    return RunFolder(path).is_run


def _names(paths: Sequence[Path]) -> list[str]:
    called = []
    for path in paths:
        summary = path / SUMMARY
        is_known = _is_run(path) and summary.is_file()
        called.append(str(json.loads(summary.read_text())["picker"]) if is_known else path.stem or "picks")
    return called


def _micrographs_of(paths: Sequence[Path]) -> list[str]:
    """The images that the first run was made of."""
    for path in paths:
        folder = RunFolder(path)
        if folder.is_run:
            return [record.source for record in folder.records() if record.is_done]
    raise InputError("none of the sets is a run of cryopick, which knows its micrographs; give --micrographs")
