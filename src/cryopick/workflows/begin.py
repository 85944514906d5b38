"""The beginning of a picking run: its folder is checked, its settings are written, and the picker looks first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from cryopick.io.inputs.sources import MicrographSource
from cryopick.io.weights import find_weights, is_published_file, read_card
from cryopick.pickers.published_weights import read_published
from cryopick.runs.files import record_files, require_same_files
from cryopick.runs.folder import COMMAND, CONFIG, RunFolder
from cryopick.runs.on_cluster import Cluster
from cryopick.runs.place import settle_place
from cryopick.runs.run import PickEvent, Run
from cryopick.runs.settings import PickSettings, settings_sections
from cryopick.runs.stored_settings import require_picking_config, require_same_settings
from cryopick.settings import to_toml


def require_weights(settings: PickSettings) -> None:
    """Raise `WeightsError` for weights that are not there or have no card, before a run folder is begun with them.

    A picker that wants other files too, or that wants some for a published configuration, says so in
    `require_files(configuration)`.
    """
    if not type(settings.picker).__module__.startswith("cryopick."):
        return
    weights = getattr(settings.picker, "weights", None)
    path = None if weights is None else find_weights(weights)
    if path is not None and is_published_file(path):
        read_published(path, picker=settings.picker.name)
    elif path is not None:
        read_card(path)
    require_files = getattr(settings.picker, "require_files", None)
    if require_files is not None:
        require_files(settings.run.as_)


def begin_run(
    folder: RunFolder,
    sources: Sequence[MicrographSource],
    settings: PickSettings,
    *,
    command: str,
    on_event: Callable[[PickEvent], None] | None,
    told_of_search: Sequence[str],
    cluster: Cluster | None = None,
    is_alone: bool = True,
) -> Run:
    """The run, ready to pick, after a check that the folder holds none of other settings.

    Parameters
    ----------
    told_of_search : the warnings of the search for micrographs, for run.log
    is_alone : False where other processes pick other micrographs of the run meanwhile: what it was begun with stands,
        though no micrograph is finished yet
    """
    claim_folder(folder, settings, command=command, is_alone=is_alone)
    for sentence in told_of_search:
        folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} {sentence}")
    run = Run(folder, sources, settings, on_event, is_alone=is_alone)
    if cluster is not None:
        run.pick_on(cluster)
    run.look_first()
    return run


def claim_folder(folder: RunFolder, settings: PickSettings, *, command: str, is_alone: bool = True) -> None:
    """Write settings, place and command into a run folder that holds no run of other settings; see `begin_run`."""
    records, damaged = folder.read_records()
    has_finished = bool(damaged) or any(record.is_done for record in records)
    has_config = folder.is_run and (folder.path / CONFIG).stat().st_size > 0
    if folder.is_run and (has_finished or has_config):
        require_picking_config(folder)
    if folder.is_run and (has_finished or (has_config and not is_alone)):
        require_same_settings(folder, settings, records)  # config.toml stays as it is: it says the same
        require_same_files(folder, settings.picker)
    else:
        config = to_toml(settings_sections(settings))
        is_other = folder.is_run and (folder.path / CONFIG).read_bytes() != config.encode("utf-8", "surrogateescape")
        if is_other:
            folder.forget_preparation()
        folder.write(folder.path / CONFIG, config, is_durable=True)
        record_files(folder, settings.picker)
        if is_other:
            folder.append_log("no micrograph was finished with the settings before; they are replaced by those of now")
    settle_place(folder, records)
    _note_start(folder, command)


def _note_start(folder: RunFolder, command: str) -> None:
    from cryopick.version import __version__

    if command:
        folder.write(folder.path / COMMAND, command + "\n")
    folder.append_log(f"{datetime.now():%Y-%m-%d %H:%M:%S} cryopick {__version__}: {command or 'called from Python'}")
