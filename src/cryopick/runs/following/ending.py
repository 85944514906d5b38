"""The end of a run that followed a session: the batch run's own code over exactly the batch run's list.

What is in the folder by then is used where it is what the batch run would find, and removed where that would have none
of it. The claim is that afterwards every file is that of a batch run, but for times and the log.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryopick.io.inputs.sources import MicrographSource
from cryopick.pickers.protocol import SurveysInFolder
from cryopick.runs.folder import PREPARED, RunFolder
from cryopick.runs.renames import drop_record, moved_records
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
    """Leave only those records in a folder that a batch run over `sources` would have; gives the names that are gone.

    Records of micrographs that are not in `sources`, or are called otherwise there, are removed, unless their files
    were taken away.

    Parameters
    ----------
    moved : names that are known to have another one now
    """
    records, _ = folder.read_records()
    name_of = {os.path.abspath(source.path): source.name for source in sources}
    renamed = moved_records(records, [source.path for source in sources])
    gone: list[str] = []
    for record in records:
        is_taken_away = not os.path.lexists(record.source) and record.is_done
        if record.source in name_of:
            is_kept = name_of[record.source] == record.name
        elif is_taken_away and record.name not in moved and record.name not in renamed:
            is_kept = True
            gone.append(record.name)
        else:
            is_kept = False
        if not is_kept:
            drop_record(folder, record)
    return gone


def forget_survey(folder: RunFolder, picker: object) -> None:
    """Let the run look again, unless its picker has trained, which it does once."""
    if isinstance(picker, SurveysInFolder):
        return
    with folder.writing(folder.path / PREPARED):
        (folder.path / PREPARED).unlink(missing_ok=True)
