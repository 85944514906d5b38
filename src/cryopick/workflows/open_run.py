"""A run folder as one thing in Python: its micrographs, their picks with every candidate, and what the run knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryopick.errors import InputError, NotARunFolderError
from cryopick.extras import require_extra
from cryopick.io.images.micrographs import read_micrograph
from cryopick.pages.picture import Picture
from cryopick.runs.folder import CONFIG, REPORT, SUMMARY, RunFolder
from cryopick.runs.picks import RunMicrograph, is_picking_run, micrographs_of_run
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    import pandas

_MOST_SHOWN = 10


class OpenRun(Mapping[str, Picks]):
    """The picks of a finished run by the names of its micrographs, at the run's threshold; read when first asked for.

    Each value holds every candidate with its reason; `.kept()` gives the accepted ones. In a notebook it shows itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _micrographs(self) -> dict[str, RunMicrograph]:
        return {one.record.name: one for one in micrographs_of_run(RunFolder(self.folder))}

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """`summary.json`, field by field."""
        content: Mapping[str, Any] = json.loads((self.folder / SUMMARY).read_text(encoding="utf-8"))
        return content

    def __getitem__(self, name: str) -> Picks:
        return self._known(name).candidates

    def __iter__(self) -> Iterator[str]:
        return iter(self._micrographs)

    def __len__(self) -> int:
        return len(self._micrographs)

    def micrograph(self, name: str) -> Micrograph:
        """The image that was picked, read from where the run found it."""
        record = self._known(name).record
        return read_micrograph(record.source, name=name, pixel_size_angstrom=record.pixel_size_angstrom)

    def draw(self, name: str, *, rejected: bool = False, width_px: int = 900) -> Picture:
        """A micrograph with its picks; with `rejected` also the candidates that were not kept, in amber."""
        return self[name].draw(self.micrograph(name), rejected=rejected, width_px=width_px)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per candidate of the run, as `Picks.to_dataframe`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed; the error says how to install it.
        """
        require_extra("notebook", ["pandas"], "a table of picks")
        import pandas

        frames = [picks.to_dataframe() for picks in self.values()]
        return pandas.concat(frames, ignore_index=True) if frames else Picks(xy_px=np.zeros((0, 2))).to_dataframe()

    def __repr__(self) -> str:
        return f"<run {str(self.folder)!r}: {self.summary['particles']} particles in {len(self)} micrographs>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the numbers, and a row for each of the first micrographs."""
        from cryopick.pages.render import render

        shown = [(name, self[name]) for name in list(self)[:_MOST_SHOWN]]
        return render("open_run.html", run=self, summary=self.summary, shown=shown, report=self.folder / REPORT)

    def _known(self, name: str) -> RunMicrograph:
        if name not in self._micrographs:
            raise InputError(
                f"{self.folder}: has no finished micrograph {name!r}; it has: "
                f"{', '.join(list(self._micrographs)[:3])}{' ...' if len(self._micrographs) > 3 else ''}"
            )
        return self._micrographs[name]


def open_run(run: str | Path) -> OpenRun:
    """Open a run folder that `cryopick pick` made.

    Parameters
    ----------
    run : the folder

    Raises
    ------
    NotARunFolderError
        If it is none.

    Examples
    --------
    `run = cryopick.open_run("run1")`, then `run["a.mrc"].kept().xy_px`, `run.draw("a.mrc")`, `run.to_dataframe()`
    """
    folder = Path(run)
    if not is_picking_run(folder):
        raise NotARunFolderError(f"{run}: has no {CONFIG} or no records; expected what `cryopick pick -o` made")
    return OpenRun(folder)
