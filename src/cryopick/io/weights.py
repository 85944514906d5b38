"""Trained weights: a safetensors file and, beside it, a JSON card that says what they are. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from cryopick.errors import CryopickError, WeightsError
from cryopick.io.files.atomic import atomic_path, write_text_atomic
from cryopick.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

CARD_FORMAT = 1
"""Version of the card's layout; raised when a field changes its meaning."""
PUBLISHED_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt")
"""Files of torch; read for the systems whose authors published such, by `pickers.published_weights`."""
LARGEST_CARD_BYTES = 2**26
DEEPEST_CARD = 32
"""Levels of lists and objects inside one another."""
LARGEST_ARCHITECTURE_NUMBER = 2**16
"""No layer is as wide and no stack as deep; a damaged digit must not ask for all memory."""
PACKAGE_WEIGHTS = Path(__file__).parent.parent / "weights"
FOLDER_VARIABLE = "CRYOPICK_WEIGHTS"
"""Environment variable naming a folder of weights beside those in the package, for machines without internet."""


Network = TypeVar("Network", bound="nn.Module")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a weights file holds; every value is plain JSON.

    Parameters
    ----------
    picker : the family that the weights are for
    architecture : `{"network": name, ...arguments}`; a file loads only into a network built from the same ones
    preprocessing : what is done to a micrograph before the network sees it
    postprocessing : calibration and thresholds that belong to these weights
    settings : of the training run
    data : what was trained on, with the split by micrograph
    seed, steps : of the training run
    scores : measured at the end, by name
    licence : of the weights
    notes : sentences for the user
    sha256 : of the weights file; filled in by `save_checkpoint`
    """

    picker: str
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    postprocessing: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    steps: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    licence: str = "BSD-3-Clause"
    notes: tuple[str, ...] = ()
    cryopick_version: str = __version__
    sha256: str = ""
    format: int = CARD_FORMAT


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights by parameter name, with their card and the file that they came from.

    The tensors are torch's, or NumPy arrays where they were asked for as such.
    """

    tensors: Mapping[str, Any]
    card: ModelCard
    path: Path | None = None

    def build(self, make: Callable[[Mapping[str, Any]], Network]) -> Network:
        """The network that `make` builds of the card's architecture, with these weights.

        Raises
        ------
        WeightsError
            If there is no such network, or the weights do not fit it.
        """
        network = self.described(make)
        self.load_into(network)
        return network

    def load_into(self, network: nn.Module) -> None:
        """Copy the weights into `network`.

        Raises
        ------
        WeightsError
            If names or shapes differ; the first of them are listed.
        """
        import torch

        self.require_shapes({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
        with torch.no_grad():
            network.load_state_dict(dict(self.tensors))

    def require_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Check that these are the tensors of a network, by name and shape.

        Raises
        ------
        WeightsError
            If names or shapes differ; the first of them are listed.
        """
        where = self.path or f"weights of {self.card.picker}"
        problems = [f"lacks {name}" for name in expected if name not in self.tensors]
        problems += [f"has unknown {name}" for name in self.tensors if name not in expected]
        problems += [
            f"{name} is {tuple(tensor.shape)}, expected {expected[name]}"
            for name, tensor in self.tensors.items()
            if name in expected and expected[name] != tuple(tensor.shape)
        ]
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise WeightsError(
                f"{where}: does not fit the network: {'; '.join(problems[:3])}{more}; "
                "use weights trained for this picker and preset"
            )

    def described(self, make: Callable[[Mapping[str, Any]], Made]) -> Made:
        """What `make` makes of the card's architecture.

        Raises
        ------
        WeightsError
            If it cannot be used.
        """
        with _explain_card(self.path, (Exception,)):  # libraries that build networks have errors of their own
            return make(self.card.architecture)


def card_path(weights: Path) -> Path:
    """`a/general.safetensors` -> `a/general.json`."""
    return weights.with_suffix(".json")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], card: ModelCard) -> ModelCard:
    """Write `path` (.safetensors) and its card atomically, weights first; returns the card with the hash filled in.

    Raises
    ------
    WeightsError
        If the name is not .safetensors or the card is not plain JSON.
    OutputError
        If a file cannot be written; the older one is then untouched.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: weights are written as .safetensors, got {path.suffix or 'no extension'!r}")
    write_tensors(path, tensors)
    card = replace(card, sha256=file_sha256(path))
    try:
        text = json.dumps(asdict(card), indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{card_path(path)}: a card holds plain finite JSON values only: {error}") from error
    write_text_atomic(card_path(path), text)
    return card


def read_card(path: Path) -> ModelCard:
    """The card beside a weights file (or the card's own path).

    Raises
    ------
    WeightsError
        If it is missing, is not a card, or was written by a newer cryopick.
    """
    path = card_path(path)
    try:
        if path.stat().st_size > LARGEST_CARD_BYTES:
            raise WeightsError(f"{path}: is not a card of weights: larger than {LARGEST_CARD_BYTES >> 20} MB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); weights come with a JSON card of the same name, copy both"
        ) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is not a card of weights (malformed JSON: {error})") from error
    known = {f.name for f in fields(ModelCard)}
    if not isinstance(values, dict) or not {"picker", "architecture", "sha256", "format"} <= set(values):
        raise WeightsError(
            f"{path}: is not a card of weights; expected the entries picker, architecture, sha256, format"
        )
    if values["format"] != CARD_FORMAT or not set(values) <= known:
        raise WeightsError(
            f"{path}: card of format {values['format']}, written by cryopick {values.get('cryopick_version')}; "
            f"this version reads format {CARD_FORMAT}; update cryopick"
        )
    for name, value in values.items():
        problem = _problem(name, value)
        if problem:
            raise WeightsError(f"{path}: damaged: {name} {problem}; copy the weights and their card again")
    return ModelCard(**{**values, "notes": tuple(values.get("notes", ()))})


_KINDS: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys(("picker", "licence", "cryopick_version", "sha256"), (str, "a text")),
    **dict.fromkeys(("seed", "steps", "format"), (int, "a whole number")),
    **dict.fromkeys(("architecture", "preprocessing", "postprocessing", "settings", "data"), (dict, "an object")),
    "scores": (dict, "numbers by name"),
    "notes": (list, "a list of texts"),
}
"""What the fields of a card are in JSON."""


def _problem(name: str, value: Any) -> str:
    """What is wrong with a field of a card, or ""."""
    kind, words = _KINDS[name]
    is_right = isinstance(value, kind) and not isinstance(value, bool)
    if is_right and name == "notes":
        is_right = all(isinstance(one, str) for one in value)
    if is_right and name == "scores":
        is_right = all(isinstance(one, int | float) and not isinstance(one, bool) for one in value.values())
    if not is_right:
        return f"is {_shortened(value)}, expected {words}"
    level, depth = [value], 0
    while level:  # by levels, not by recursion, so that depth is a matter of counting
        if depth > DEEPEST_CARD:
            return f"has more than {DEEPEST_CARD} levels inside one another"
        below: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                return f"holds {one}, expected finite numbers"
            if isinstance(one, int | float) and name == "architecture" and abs(one) > LARGEST_ARCHITECTURE_NUMBER:
                return f"holds {_shortened(one)}, expected at most {LARGEST_ARCHITECTURE_NUMBER}"
            if isinstance(one, str) and re.search("[\ud800-\udfff]", one):
                return "holds half a character (a lone surrogate)"
            if isinstance(one, dict):
                below += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                below += one
        level, depth = below, depth + 1
    return ""


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_CARD_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What Python raises where values of a card are not what they should be."""


@contextmanager
def _explain_card(path: Path | None, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except CryopickError:
        raise
    except errors as error:
        card = "the card" if path is None else card_path(path)
        what = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        problem = f"lacks {what}" if isinstance(error, KeyError) else f"{type(error).__name__}: {_shortened(what)}"
        raise WeightsError(
            f"{card}: the architecture, pre- or postprocessing that it tells cannot be used ({problem}); "
            "copy the weights and their card again, or train them anew"
        ) from error


def is_published_file(path: Path) -> bool:
    """Whether a weights file is torch's own kind, as authors publish them, and has no card."""
    return path.suffix in PUBLISHED_SUFFIXES


@contextmanager
def open_checkpoint(
    name_or_path: str | Path,
    *,
    picker: str,
    published: Callable[[Path], Checkpoint] | None = None,
    as_arrays: bool = False,
) -> Iterator[Checkpoint]:
    """The weights meant by a path or a name; card values that the block cannot use become a `WeightsError`.

    Parameters
    ----------
    published : reads a file that others published for this picker, which has no card; None where nobody did
    as_arrays : the tensors as NumPy arrays, which needs no torch

    Raises
    ------
    WeightsError
        As `find_weights` and `load_checkpoint`.
    """
    path = find_weights(name_or_path)
    with _explain_card(path, _CARD_ERRORS):
        if published is not None and is_published_file(path):
            yield published(path)
        else:
            yield load_checkpoint(path, picker=picker, as_arrays=as_arrays)


def load_checkpoint(
    path: Path | str,
    *,
    picker: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    as_arrays: bool = False,
) -> Checkpoint:
    """Read weights, after checking their hash and, where given, that they are for `picker` and `architecture`.

    Their tensors are torch's, or NumPy arrays with `as_arrays`.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or belongs to another picker or architecture.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: weights are .safetensors files with a JSON card, got {path.suffix or 'no extension'!r}; "
            "of files of torch (.pt, .pth, .ckpt) only those are read that the authors of a system published "
            "(`cryopick import-weights --help`)"
        )
    card = read_card(path)
    if picker is not None and card.picker != picker:
        raise WeightsError(f"{path}: weights of picker {card.picker!r}, expected {picker!r}")
    if architecture is not None:
        check_architecture(card, architecture, where=str(path))
    read = read_arrays if as_arrays else read_tensors
    return Checkpoint(read(path, sha256=card.sha256), card, path)


def check_architecture(card: ModelCard, expected: Mapping[str, Any], *, where: str) -> None:
    """Raise `WeightsError`, naming what differs, unless the card's architecture is the expected one."""
    wanted = json.loads(json.dumps(dict(expected)))  # tuples and lists are one in JSON
    found = json.loads(json.dumps(dict(card.architecture)))
    differing = [
        f"{name} is {found.get(name, 'absent')!r}, expected {wanted.get(name, 'absent')!r}"
        for name in sorted(set(wanted) | set(found))
        if wanted.get(name) != found.get(name)
    ]
    if differing:
        raise WeightsError(
            f"{where}: weights of another architecture: {'; '.join(differing)}; "
            "give the settings that they were trained with, or other weights"
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one step: the previous file stays until the new one is complete on disk.

    Raises
    ------
    OutputError
        If it cannot be written (permission, disk full).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # copies, because safetensors refuses tensors that share memory, and parameters may be tied on purpose
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as part:
        try:
            save_file(plain, part, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # it wraps the system's errors and keeps their number only in the text
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else 0, str(error)) from error
        part.chmod(0o666 & ~_umask())  # safetensors makes private files; ours are as readable as any other
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_tensors(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file; with `sha256` the file must have that hash."""
    return read_tensors_and_metadata(path, sha256=sha256)[0]


def read_arrays(path: Path, *, sha256: str | None = None) -> dict[str, NDArray[Any]]:
    """All tensors of a safetensors file as NumPy arrays; raises as `read_tensors_and_metadata`."""
    found: dict[str, NDArray[Any]] = _read_safetensors(path, "numpy", sha256=sha256)[0]
    return found


def read_tensors_and_metadata(path: Path, *, sha256: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and the texts stored in the header of a safetensors file.

    Raises
    ------
    WeightsError
        If the file is missing, is no safetensors file, or has another hash.
    """
    return _read_safetensors(path, "pt", sha256=sha256)


def _read_safetensors(path: Path, framework: str, *, sha256: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise WeightsError(
            f"{path}: damaged or changed: SHA-256 is {found[:16]}…, its card says {sha256[:16] or 'nothing'}…; "
            "copy the weights and their card again"
        )
    try:
        with safe_open(str(path), framework=framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error


def find_weights(name_or_path: str | Path) -> Path:
    """The weights file meant by a path, or by a name such as `general`.

    A name is looked up in the package, then in the folder named by the variable CRYOPICK_WEIGHTS, then in the
    folder that `download_weights` fills. Nothing is downloaded.

    Raises
    ------
    WeightsError
        If there is none; the message lists what is known and where it was looked for.
    """
    path = Path(name_or_path)
    # os.path and not pathlib asks what is there: its answer to a name that is too long is no, not an error
    if path.suffix in (".safetensors", *PUBLISHED_SUFFIXES) or len(path.parts) > 1:
        if os.path.isfile(path / "weights.safetensors"):
            return path / "weights.safetensors"  # a folder written by `cryopick train`
        if os.path.isfile(path):
            return path
        raise WeightsError(
            f"{path}: no such weights file; expected a .safetensors file, a folder of `cryopick train`, or a file that "
            "the authors of a system published"
        )
    folders = weights_folders()
    for folder in folders:
        candidate = folder / f"{name_or_path}.safetensors"
        if os.path.isfile(candidate):
            return candidate
    if os.path.isfile(path / "weights.safetensors"):  # `trained/`, of which a path keeps no slash
        return path / "weights.safetensors"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.safetensors")})
    raise WeightsError(
        f"no weights named {str(name_or_path)!r}; known: {', '.join(known) or 'none'}; looked in "
        f"{', '.join(str(folder) for folder in folders)}; give a path, or train them with `cryopick train`"
    )


def files_of_weights(name_or_path: str | Path) -> list[Path]:
    """The weights file meant by a path or a name, and its card; raises as `find_weights`."""
    path = find_weights(name_or_path)
    return [path, card_path(path)]


def weights_folders() -> list[Path]:
    """Where weights are looked for by name, in this order."""
    given = os.environ.get(FOLDER_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cryopick" / "weights"
    return [PACKAGE_WEIGHTS, *([Path(given)] if given else []), cache]


def download_weights(url: str, *, sha256: str, folder: Path | None = None, timeout_s: float = 60.0) -> Path:
    """Fetch `url` (.safetensors) and the card beside it, only because the user asked for it.

    Parameters
    ----------
    sha256 : expected hash of the weights file; a download with another one is deleted
    folder : default: the last of `weights_folders`

    Raises
    ------
    WeightsError
        If the download fails or has another hash.
    """
    from urllib.parse import urlsplit

    scheme, name = urlsplit(url).scheme, Path(urlsplit(url).path).name
    if scheme not in ("http", "https") or not name.endswith(".safetensors"):
        raise WeightsError(f"{url}: expected an http or https address of a .safetensors file")
    target = (folder or weights_folders()[-1]) / name
    part, part_card = target.with_name(f".{name}.part"), target.with_name(f".{name}.card.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, timeout_s=timeout_s)
        found = file_sha256(part)
        if found != sha256.lower():
            raise WeightsError(f"{url}: SHA-256 is {found}, expected {sha256}; the download was deleted")
        _fetch(url.removesuffix(".safetensors") + ".json", part_card, timeout_s=timeout_s)
        part.replace(target)
        part_card.replace(card_path(target))
    except OSError as error:
        raise WeightsError(f"{url}: download failed ({error}); fetch both files by hand and give their path") from error
    finally:
        part.unlink(missing_ok=True)
        part_card.unlink(missing_ok=True)
    if read_card(target).sha256 != sha256.lower():
        raise WeightsError(f"{card_path(target)}: the card belongs to other weights than {target}")
    return target


def _fetch(url: str, path: Path, *, timeout_s: float) -> None:
    from urllib.request import urlopen

    with urlopen(url, timeout=timeout_s) as response, path.open("wb") as stream:
        shutil.copyfileobj(response, stream)
