"""Files of `torch.save`, read without running anything in them: other programs' checkpoints (.pt, .pth, .ckpt, .tar).

Such a file is a ZIP archive: one record of bytes for each storage, and `data.pkl`, a small program (a pickle) that
builds the objects. The archive's sizes and checksums and every step of that program are checked before `torch.load`
sees the file: it may make tensors, NumPy values, plain containers and `argparse.Namespace`, each of a size that the
records hold, and nothing else.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import math
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import WeightsError
from cryopick.io.files.version import file_version

LARGEST_PROGRAM_BYTES = 2**26
"""Of `data.pkl`. The largest published models have less than 1 MB; NumPy arrays inside it are few and small."""
MOST_STEPS = 2**21
"""Of `data.pkl`; a tensor takes about 30, so that this is 70,000 tensors, followed in a few seconds."""
MOST_DIMENSIONS = 64
"""Of a tensor or array, as NumPy."""
_ZIP_START = b"PK\x03\x04"
_SAVE_AGAIN = (
    "open it in the PyTorch that made it and save it again: torch.save(torch.load(OLD, map_location='cpu'), NEW) "
    "(load only what you trust)"
)
_WEIGHTS_ALONE = "open it in the program that made it and save the weights alone: torch.save(model.state_dict(), NEW)"
_STORAGE_ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("torch.ByteStorage", "torch.CharStorage", "torch.BoolStorage"), 1),
    **dict.fromkeys(("torch.UntypedStorage", "torch.storage.UntypedStorage"), 1),
    **dict.fromkeys(("torch.ShortStorage", "torch.HalfStorage", "torch.BFloat16Storage"), 2),
    **dict.fromkeys(("torch.IntStorage", "torch.FloatStorage"), 4),
    **dict.fromkeys(("torch.LongStorage", "torch.DoubleStorage", "torch.ComplexFloatStorage"), 8),
    "torch.ComplexDoubleStorage": 16,
}
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
"""The name before and after NumPy 2.0."""
_SCALARS, _ARRAYS = (tuple(f"{module}.{name}" for module in _NUMPY_MODULES) for name in ("scalar", "_reconstruct"))
_TENSORS = {f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")}
_OTHERS = ("argparse.Namespace", "collections.OrderedDict", "torch.Size", "torch.device")
_CALLABLE = {
    *{"builtins.bytes", "builtins.complex", "builtins.set", "_codecs.encode", "torch._utils._rebuild_parameter"},
    *{*_OTHERS, "numpy.dtype", *_SCALARS, *_ARRAYS, *_TENSORS},
}
"""What the program may call, and what it may make objects of."""
_NUMPY_CODES = (*("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"), *("f2", "f4", "f8", "c8", "c16", "b1"))
"""Numbers and truth values of NumPy; objects, texts and records are not read."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_GATHERING = {"MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}


def read_torch_file(path: Path | str) -> Any:
    """What was given to `torch.save`: tensors (on the CPU), numbers, texts and containers of them.

    Tensors lie in the mapped file until they are written to, so a large checkpoint takes no memory that is not used;
    the file must stay as it is while they are in use.

    Raises
    ------
    WeightsError
        If there is no such file, it is damaged or promises more than it holds, was written in the format before
        PyTorch 1.6 or is a TorchScript program, or holds objects other than tensors, NumPy numbers and arrays, plain
        containers and `argparse.Namespace`.
    """
    import torch

    path = Path(path)
    try:
        _require_whole_and_harmless(path, file_version(path))
        known = torch.serialization.get_safe_globals()
        ours = [one for one in _safe_globals() if one not in known]  # leaving the block forgets them
        with torch.serialization.safe_globals(ours):
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except _RefusedError as error:
        raise WeightsError(f"{path}: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path}: cannot be read ({reason}); expected a file of torch.save") from error
    except Exception as error:  # of three readers that document none: BadZipFile, RuntimeError, UnpicklingError, …
        line = next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as a file of torch.save ({line}); it is damaged or holds something else; "
            "copy or download it again"
        ) from error


@lru_cache(maxsize=64)
def _require_whole_and_harmless(path: Path, version: tuple[int, ...]) -> None:  # noqa: ARG001  # another version is another call
    """Raise where a file may not be opened; all of it is read for that, once as long as it stays as it is.

    A run looks at its weights before it begins, and its picker opens them afterwards.
    """
    records, program = _read_archive(path)
    _Program(records).check(program)


def _safe_globals() -> list[Any]:
    """What `weights_only` shall allow beside its own list, under the names of both NumPy versions."""
    make_scalar, make_array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    pairs = [(make_scalar, name) for name in _SCALARS] + [(make_array, name) for name in _ARRAYS]
    dtypes = {type(np.dtype(code)) for code in _NUMPY_CODES}
    return [argparse.Namespace, bytes, np.ndarray, np.dtype, *pairs, *dtypes]


class _RefusedError(Exception):
    """A sentence about a file, without its name."""


def _damaged(what: str) -> _RefusedError:
    return _RefusedError(f"{what}; the file is damaged, copy or download it again")


# ---------------------------------------------------------------------------------------------------- the archive


def _read_archive(path: Path) -> tuple[dict[str, int], bytes]:
    """Sizes of the records in bytes, by name, and the program; every checksum is right."""
    if path.exists() and not path.is_file():
        raise _RefusedError("is no file; expected a file of torch.save")
    with path.open("rb") as stream:
        start = stream.read(len(_ZIP_START))
    if start != _ZIP_START:
        if not start:
            raise _damaged("is empty, expected a file of torch.save")
        raise _RefusedError(
            "is no file of torch.save in the format of PyTorch 1.6 and later (a ZIP archive), so it is damaged, holds "
            f"something else or is older; if it is older, {_SAVE_AGAIN}"
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        root = names[0].split("/")[0] + "/" if names else ""
        if f"{root}constants.pkl" in names:
            raise _RefusedError("is a TorchScript program, not weights; expected a file of torch.save")
        if f"{root}data.pkl" not in names:
            raise _RefusedError("is a ZIP archive without data.pkl; expected a file of torch.save")
        if len(set(names)) < len(names) or not all(name.startswith(root) for name in names):
            raise _damaged("has records of the same name or of two archives")
        if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
            raise _RefusedError("has packed or encrypted records, which torch.save does not write; save it again")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise _damaged("promises records larger than the file")
        if archive.getinfo(f"{root}data.pkl").file_size > LARGEST_PROGRAM_BYTES:
            raise _RefusedError(f"holds {LARGEST_PROGRAM_BYTES >> 20} MB beside its tensors; {_WEIGHTS_ALONE}")
        wrong = archive.testzip()  # torch does not look
        if wrong is not None:
            raise _damaged(f"has a record {wrong[:60]} whose checksum is wrong")
        return {member.filename[len(root) :]: member.file_size for member in members}, archive.read(f"{root}data.pkl")


# ---------------------------------------------------------------------------------------------------- the program


@dataclass(frozen=True)
class _Global:
    """A class or function, by name."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Bytes of a record."""

    size_bytes: int
    item_bytes: int


@dataclass(frozen=True, eq=False)
class _Made:
    """What a call returned."""

    by: str
    arguments: tuple[Any, ...] = ()


@dataclass(eq=False)
class _Container:
    """A list or dictionary, with its items or keys."""

    is_dict: bool
    items: list[Any] = field(default_factory=list)


class _Program:
    """The steps of a pickle followed on paper: on the stack are names and sizes instead of objects."""

    def __init__(self, records: Mapping[str, int]) -> None:
        self.records = records
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack at each mark
        self.memo: dict[Any, Any] = {}

    def check(self, program: bytes) -> None:
        """Raise `_RefusedError` where a step is none that a checkpoint needs, or asks for more than is there."""
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if number >= MOST_STEPS:
                    raise _RefusedError(f"makes objects in more than {MOST_STEPS} steps; {_WEIGHTS_ALONE}")
                self._step(opcode.name, argument)
        except _RefusedError:
            raise
        except Exception as error:  # an unknown step, an empty stack, an unknown place of the memo, half a text, …
            raise _damaged(f"holds no list of objects that can be followed ({type(error).__name__})") from error

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            self.stack.append(_Container(is_dict=name == "EMPTY_DICT"))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(_known_global(*argument.split(" ", 1)))
        elif name in _GATHERING:
            self._gather(name)
        else:
            self._make(name, argument)

    def _gather(self, name: str) -> None:
        """A step that takes items off the stack, and puts them into a container."""
        stack = self.stack
        if name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            self.stack = self.below.pop()
            self._put(name, stack)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])] if len(stack) >= count else [stack[count]]
        elif name in ("APPEND", "SETITEM"):
            count = ("APPEND", "SETITEM").index(name) + 1
            items, stack[-count:] = stack[-count:], []
            self._put(f"{name}S", items)

    def _make(self, name: str, argument: Any) -> None:
        """A step that makes an object, or begins or ends the program."""
        stack = self.stack
        if name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(_call(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _check_state(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif not (name == "STOP" or (name == "PROTO" and argument == 2)):
            raise _RefusedError(f"holds a step that torch.save does not write by default ({name}); {_SAVE_AGAIN}")

    def _put(self, name: str, items: list[Any]) -> None:
        if name == "TUPLE":
            self.stack.append(tuple(items))
            return
        target = self.stack[-1]
        is_dict = name == "SETITEMS"
        is_ordered = isinstance(target, _Made) and target.by == "collections.OrderedDict"
        if not (is_ordered and is_dict) and not (isinstance(target, _Container) and target.is_dict == is_dict):
            raise _damaged("puts items into what is no list or dictionary")
        keys_or_items = items[::2] if is_dict else items
        if is_dict and not all(map(_is_constant, keys_or_items)):
            raise _RefusedError(f"holds a dictionary with keys that are no texts or numbers; {_WEIGHTS_ALONE}")
        if isinstance(target, _Container):
            target.items += keys_or_items

    def _storage(self, tag: Any) -> _Storage:
        """What a storage is promised to hold, where its record does."""
        kind, of, key, place, numel = tag
        if kind != "storage" or not isinstance(key, str) or not isinstance(place, str) or not isinstance(numel, int):
            raise _damaged("names a storage as torch.save does not")
        item_bytes = _STORAGE_ITEM_BYTES[of.name]
        held = self.records.get(f"data/{key}", 0)
        if not 0 <= numel * item_bytes <= held:
            raise _damaged(f"has a storage {key[:20]} of {held} bytes, expected {numel} x {item_bytes}")
        return _Storage(numel * item_bytes, item_bytes)


def _is_constant(item: Any) -> bool:
    """Whether it is a text, a number, None or a tuple of them: equal to itself alone and soon compared."""
    if isinstance(item, tuple):
        return all(isinstance(one, str | int | float | None) for one in item)
    return isinstance(item, str | int | float | None)


def _known_global(module: str, name: str) -> _Global:
    import torch

    # pickles of the protocol that torch.save writes have Python 2's names
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    name = f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
    is_dtype = name.startswith("torch.") and isinstance(vars(torch).get(name[6:]), torch.dtype)
    if not (is_dtype or name in _CALLABLE or name in _STORAGE_ITEM_BYTES or name == "numpy.ndarray"):
        raise _RefusedError(
            f"holds an object of {name[:100]!r}; read are tensors, NumPy numbers and arrays, plain containers and "
            f"argparse.Namespace; {_WEIGHTS_ALONE}"
        )
    return _Global(name)


def _call(called: Any, arguments: Any) -> _Made:
    """What the call would return, where it is one that makes nothing larger than the file holds."""
    if not isinstance(called, _Global) or called.name not in _CALLABLE or not isinstance(arguments, tuple):
        raise _damaged("calls what is no maker of objects")
    name = called.name
    if name in _TENSORS:
        _check_tensor(*arguments[:4], of=arguments[6] if name.endswith("_v3") else None)
    elif name == "numpy.dtype":
        if arguments[0] not in _NUMPY_CODES:
            raise _RefusedError(f"holds NumPy values other than numbers and truth values; {_WEIGHTS_ALONE}")
    elif name == "_codecs.encode":
        if not isinstance(arguments[0], str) or arguments[1:] != ("latin1",):
            raise _damaged("holds bytes in an unknown encoding")
    elif name in _SCALARS:
        _item_bytes(arguments[0], arguments[1])
    elif name in _ARRAYS:
        if arguments[:2] != (_Global("numpy.ndarray"), (0,)):
            raise _damaged("holds a NumPy array that is not made as NumPy makes it")
    elif name == "builtins.set":
        listed = arguments[0]
        is_list = isinstance(listed, _Container) and not listed.is_dict
        if not is_list or not all(map(_is_constant, listed.items)):
            raise _RefusedError(f"holds a set of what is no text or number; {_WEIGHTS_ALONE}")
    elif name in ("argparse.Namespace", "collections.OrderedDict", "builtins.bytes") and arguments:
        raise _damaged(f"makes a {name} of unexpected arguments")
    return _Made(name, arguments)


def _check_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *, of: Any) -> None:
    """Raise `_RefusedError` unless a tensor lies in its storage, every value once at most."""
    import torch

    item_bytes = storage.item_bytes if of is None else getattr(torch, of.name[6:]).itemsize
    held = storage.size_bytes // item_bytes
    if not _are_sizes((offset,)) or not _are_sizes(shape) or not _are_sizes(strides) or len(shape) != len(strides):
        raise _damaged("has a tensor without a shape")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and (last >= held or math.prod(shape) > held):
        raise _damaged(f"has a tensor of shape {str(shape)[:60]} in a storage of {held} values")


def _are_sizes(items: Any) -> bool:
    is_few = isinstance(items, tuple) and len(items) <= MOST_DIMENSIONS
    return is_few and all(isinstance(one, int) and one >= 0 for one in items)


def _item_bytes(dtype: Any, data: Any) -> int:
    """Bytes of one NumPy value, where there is a type and data."""
    if not isinstance(dtype, _Made) or dtype.by != "numpy.dtype":
        raise _damaged("holds a NumPy value without type")
    if not isinstance(data, _Made) or data.by not in ("_codecs.encode", "builtins.bytes"):
        raise _damaged("holds a NumPy value without bytes")
    return int(dtype.arguments[0][1:])


def _check_state(made: Any, state: Any) -> None:
    """Raise `_RefusedError` unless the state is one that NumPy, `OrderedDict` or `Namespace` save."""
    by = made.by if isinstance(made, _Made) else ""
    if by == "numpy.dtype":
        is_right = state[:1] == (3,) and state[1] in ("<", ">", "|") and state[2:] == (None, None, None, -1, -1, 0)
    elif by in _ARRAYS:
        version, shape, dtype, _, data = state
        is_right = version == 1 and _are_sizes(shape)
        is_right = is_right and math.prod(shape) * _item_bytes(dtype, data) == len((*data.arguments, "")[0])
    elif by == "collections.OrderedDict":  # more would hide its methods
        is_right = isinstance(state, _Container) and state.is_dict and set(state.items) <= {"_metadata"}
    else:
        is_right = by == "argparse.Namespace" and isinstance(state, _Container) and state.is_dict
    if not is_right:
        raise _damaged(f"sets what {by or 'an object'} does not have")
