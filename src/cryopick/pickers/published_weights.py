"""Weights that others published for a system, in files of their own making: what reads them, by picker.

The package of a picker whose authors published weights says in its `__init__`

    @register_published_weights("cryosegnet")
    def published_weights() -> PublishedWeights:
        from cryopick.pickers.cryosegnet.published_weights import PUBLISHED_WEIGHTS

        return PUBLISHED_WEIGHTS

so that no torch is imported before such a file is read. The models of the picker open both kinds of weights by
`io.weights.open_checkpoint(..., published=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import WeightsError
from cryopick.io.weights import (
    Checkpoint,
    files_of_weights,
    find_weights,
    is_published_file,
    load_checkpoint,
    read_card,
)


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """How the authors' files of one system are read.

    Parameters
    ----------
    about : which files, in a few words: "the authors' U-Net, .pth"
    recognises : whether what `read_torch_file` found is such a file; looks at names only
    read : called with the path, what `read_torch_file` found in it, and the companions by name; gives weights and card
        as cryopick would have saved them, without a calibration. Names that it does not know are an error that lists
        them
    companions : what else belongs to the file, by the name of the option of `cryopick import-weights`, and the patterns
        of the names of such files beside it, which are found by themselves
    """

    about: str
    recognises: Callable[[Any], bool]
    read: Callable[[Path, Any, Mapping[str, Path]], Checkpoint]
    companions: Mapping[str, tuple[str, ...]]


_readers: dict[str, Callable[[], PublishedWeights]] = {}


def register_published_weights(
    picker: str,
) -> Callable[[Callable[[], PublishedWeights]], Callable[[], PublishedWeights]]:
    """Decorator of a function that imports and returns what reads the published weights of `picker`."""

    def decorate(make: Callable[[], PublishedWeights]) -> Callable[[], PublishedWeights]:
        _readers[picker] = make
        return make

    return decorate


def pickers_with_published_weights() -> list[str]:
    """Names of the pickers whose authors' files can be read."""
    from cryopick.pickers.registry import list_pickers

    return [name for name in list_pickers() if name in _readers]


def load_weights(picker: str, name_or_path: str | Path) -> Checkpoint:
    """Weights of a picker by name or path: cryopick's own, or the authors' files.

    Raises
    ------
    WeightsError
        As `find_weights`, `load_checkpoint` and `read_published`.
    """
    path = find_weights(name_or_path)
    if is_published_file(path):
        return read_published(path, picker=picker)
    return load_checkpoint(path, picker=picker)


def read_published(
    path: Path, *, picker: str | None = None, companions: Mapping[str, Path] | None = None
) -> Checkpoint:
    """The authors' weights in a file of torch, as a checkpoint of cryopick.

    Parameters
    ----------
    picker : whose; None finds it out from the names of the tensors
    companions : files that belong to it, by name; others are looked for beside it

    Raises
    ------
    WeightsError
        If the file cannot be read safely, no system knows it, or a companion is unknown or missing.
    """
    names = pickers_with_published_weights()
    if picker is not None and picker not in names:
        raise WeightsError(
            f"{path}: no published weights of picker {picker!r} can be read; those of {', '.join(names)} can; give a "
            ".safetensors file with its card"
        )
    from cryopick.io.torch_files import read_torch_file

    content = read_torch_file(path)
    fitting = [name for name in names if _readers[name]().recognises(content)]
    if not fitting or (picker is not None and picker not in fitting):
        what = f"weights of {fitting[0]!r}" if fitting else f"none of these ({_names_in(content)})"
        expected = "; ".join(f"{name}: {_readers[name]().about}" for name in ([picker] if picker else names))
        raise WeightsError(f"{path}: holds {what}; expected {expected}")
    reader = _readers[picker or fitting[0]]()
    return reader.read(path, content, _all_companions(path, reader, companions or {}))


def files_of(name_or_path: str | Path, *, picker: str) -> list[Path]:
    """What a model depends on: weights and their card, or the authors' file and the companions found beside it."""
    path = find_weights(name_or_path)
    if not is_published_file(path):
        return files_of_weights(path)
    return [path, *_all_companions(path, _readers[picker](), {}).values()]


def is_calibrated(name_or_path: str | Path) -> bool:
    """Whether weights know what their scores are worth: by their card alone, which authors' files do not have."""
    path = find_weights(name_or_path)
    return not is_published_file(path) and "calibration" in read_card(path).postprocessing


def _all_companions(path: Path, reader: PublishedWeights, given: Mapping[str, Path]) -> dict[str, Path]:
    unknown = sorted(set(given) - set(reader.companions))
    if unknown:
        known = ", ".join(reader.companions) or "none"
        raise WeightsError(f"{path}: {', '.join(unknown)} cannot be given for these weights; what can: {known}")
    for name, file in given.items():
        if not file.is_file():
            raise WeightsError(f"{file}: no such file; expected the {name} of {path}")
    found = {name: _beside(path, name, patterns) for name, patterns in reader.companions.items() if name not in given}
    return {**{name: file for name, file in found.items() if file is not None}, **given}


def _beside(path: Path, name: str, patterns: Sequence[str]) -> Path | None:
    files = sorted({file for pattern in patterns for file in path.parent.glob(pattern) if file.is_file()})
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        raise WeightsError(
            f"{path}: {len(files)} files beside it may be its {name} ({listed}); name one to `cryopick import-weights`"
        )
    return files[0] if files else None


def _names_in(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = [str(name) for name in content]
    return f"the names {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
