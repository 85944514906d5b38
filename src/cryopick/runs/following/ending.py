"""The end of a run that followed a session: the batch run's own code over exactly the batch run's list.

What is in the folder by then is used where it is what the batch run would find, and removed where that would have none
of it. The claim is that afterwards every file is that of a batch run, but for times and the log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryopick.io.inputs.sources import MicrographSource
from cryopick.pickers.protocol import SurveysInFolder
from cryopick.runs.folder import PREPARED, RunFolder, assign_keys
from cryopick.runs.following.growing import remove_empty_folders, remove_micrograph
from cryopick.runs.one import NO_FILE, file_stamp
from cryopick.runs.record import Record
from cryopick.runs.run import Run


class FinalRun(Run):
    """The last look at a folder that was filled while a session went on."""

    gone: Sequence[str] = ()
    """Names whose files were taken away; their picks stay."""
    again: Sequence[str] = ()
    """Names that are picked again, since they were picked otherwise."""

    def go_on_from(self, run: Run) -> None:
        """Say of the call that it began when the session did."""
        self._begun = run._begun  # of the same class

    def _pick_stale_again(self) -> None:
        """As in a batch run, which has nothing to say of it: there everything is picked with the last survey."""
        stale = set(self.stale())
        self.again = [name for name in self.skipped if name in stale and name not in self.gone]
        again = set(self.again)
        self.skipped = [name for name in self.skipped if name not in again]
        for name in self.again:
            self._log(f"{name}: was picked otherwise than the run picks now; picking it again")
        left = sorted(name for name in self.gone if name in stale)
        self.status = dict.fromkeys(self.gone, "gone") | dict.fromkeys(left, "provisional")
        if left:
            self._note_many(
                "{} is gone and was picked with another measured size than the run has now; its picks stay, and are "
                "provisional",
                dict.fromkeys(left, "was picked otherwise than the run picks now, and is gone"),
            )


def settle_records(folder: RunFolder, sources: Sequence[MicrographSource], *, moved: Sequence[str]) -> list[str]:
    """Make the records of a folder those that a batch run over `sources` would have; returns the names that are gone.

    Records of micrographs that are not in `sources` are removed, unless their files were taken away, and files are
    called as a batch run would call them.

    Parameters
    ----------
    moved : names that are known to have another one now
    """
    records, _ = folder.read_records()
    of_source = {os.path.abspath(source.path): source for source in sources}
    stamps: set[tuple[int, int]] | None = None
    gone: list[str] = []
    kept: list[tuple[Record, MicrographSource]] = []
    for record in records:
        source = of_source.get(record.source)
        if source is not None:
            kept.append((record, source))
            continue
        if file_stamp(Path(record.source)) == NO_FILE and record.is_done and record.name not in moved:
            if stamps is None:
                stamps = {file_stamp(source.path) for source in sources}
            if (record.size_bytes, record.modified_ns) not in stamps:
                gone.append(record.name)
                continue
        remove_micrograph(folder, record)
    _rename(folder, kept, [source.name for source in sources], {record.name: record for record in records}, gone)
    return gone


def _rename(
    folder: RunFolder,
    kept: Sequence[tuple[Record, MicrographSource]],
    names: Sequence[str],
    of_name: Mapping[str, Record],
    gone: Sequence[str],
) -> None:
    """Give each record, and its files, the name and key that a batch run gives."""
    problems: dict[str, str] = {}
    taken = {name: of_name[name].key for name in gone}
    keys = assign_keys(names, taken, problems=problems)
    changed = [
        (record, source) for record, source in kept if (record.name, record.key) != (source.name, keys[source.name])
    ]
    in_use = {record.key for record, _ in kept} | set(taken.values())
    for record, source in changed:
        key = keys[source.name]
        if not record.is_done or source.name in problems or (key != record.key and key in in_use):
            remove_micrograph(folder, record)  # it is picked again; the last where the name is another's until now
            continue
        _move(folder, record, replace(record, name=source.name, key=key))


def _move(folder: RunFolder, old: Record, new: Record) -> None:
    """Files first, the record last: killed between, the old record has no files, and is picked again."""
    if old.key != new.key:
        pairs = [
            (folder.picks_path(old.key), folder.picks_path(new.key)),
            (folder.candidates_path(old.key), folder.candidates_path(new.key)),
            (folder.image_path(old.key), folder.image_path(new.key)),
            *((folder.map_path(old.key, name), folder.map_path(new.key, name)) for name in old.maps),
        ]
        for before, after in pairs:
            with folder.writing(after):
                after.parent.mkdir(parents=True, exist_ok=True)
                if before.exists():
                    before.replace(after)
                remove_empty_folders(before.parent, above=folder.path)
        with folder.writing(folder.record_path(old.key)):
            folder.record_path(old.key).unlink(missing_ok=True)
        remove_empty_folders(folder.record_path(old.key).parent, above=folder.path)
    folder.write_record(new)


def forget_survey(folder: RunFolder, picker: object) -> None:
    """Let the run look again, unless its picker has trained, which it does once."""
    if isinstance(picker, SurveysInFolder):
        return
    with folder.writing(folder.path / PREPARED):
        (folder.path / PREPARED).unlink(missing_ok=True)
