"""Cluster centres out of a pickled k-means of scikit-learn, without running the pickle.

A pickle is a small program. Here its steps are followed on paper: what it would call or build is only noted, nothing of
it is imported or called, and the numbers of its arrays are read from their bytes. Files of `joblib.dump`, as the
authors of Cryo-EMMAE wrote them, have the bytes of each array between two steps.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import WeightsError

LARGEST_FILE_BYTES = 2**30
"""A k-means holds the label of every vector it was fitted on: 4 bytes for each of 12 millions in the authors' files."""
MOST_STEPS = 100_000
CENTRES = "cluster_centers_"
_EXPORT = (
    "open it where it was made and write the centres alone: "
    "python -c \"import joblib, numpy; numpy.save('kmeans.npy', joblib.load('FILE.pkl').cluster_centers_)\" "
    "(load only what you trust)"
)
_CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = {"f2", "f4", "f8", "i4", "i8"}
_ARRAYS = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_BUFFERS = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
_JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"


def read_centres(path: Path) -> NDArray[np.float32]:
    """(k, c) the centres in a `.npy` file, or in a k-means of scikit-learn written by `joblib.dump` or `pickle.dump`.

    Raises
    ------
    WeightsError
        If the file is missing, packed, or holds no k-means that can be followed; the message says how to export the
        centres.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise WeightsError(f"{path}: {size >> 20} MB are more than a k-means takes; {_EXPORT}")
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); expected a k-means") from error
    try:
        centres = np.load(BytesIO(data), allow_pickle=False) if data.startswith(b"\x93NUMPY") else _pickled(data)
    except Exception as error:  # of a damaged file: half a text, an empty stack, an unknown step, numbers without end
        told = str(error) if isinstance(error, _RefusedError) else type(error).__name__
        raise WeightsError(f"{path}: no k-means of scikit-learn can be read from it ({told}); {_EXPORT}") from error
    if centres.ndim != 2 or not np.issubdtype(centres.dtype, np.floating) or not np.isfinite(centres).all():
        raise WeightsError(
            f"{path}: expected finite centres, one row each, got {centres.dtype} of shape {centres.shape}; {_EXPORT}"
        )
    if len(centres) < 2:
        raise WeightsError(f"{path}: holds {len(centres)} centre, expected two or more clusters")
    return centres.astype(np.float32)


class _RefusedError(Exception):
    """What is wrong, in a few words."""


@dataclass(frozen=True)
class _Name:
    """A class or function that the program names."""

    text: str


@dataclass(eq=False)
class _Noted:
    """What a call or a class would make: by whom, of what, and the state that it was given."""

    by: str
    arguments: Any = ()
    state: Any = None
    array: NDArray[Any] | None = None


@dataclass(eq=False)
class _Container:
    """A list, set or dictionary: keys and values in turn, or items."""

    items: list[Any] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        keys = self.items[::2]
        if key not in keys:
            raise _RefusedError(f"lacks {key}")
        return self.items[2 * keys.index(key) + 1]


def _pickled(data: bytes) -> NDArray[Any]:
    if data[:1] != b"\x80":
        raise _RefusedError("is packed, or no pickle of protocol 2 or later")
    steps = _Steps(data)
    steps.follow()
    found = [one for one in steps.noted if one.by.endswith(".KMeans") and isinstance(one.state, _Container)]
    if not found:
        raise _RefusedError(
            f"holds no KMeans but {', '.join(sorted({one.by for one in steps.noted})[:3]) or 'nothing'}"
        )
    return _array_of(found[0].state[CENTRES])


def _array_of(noted: Any) -> NDArray[Any]:
    """The numbers of an array that the program would have built."""
    if not isinstance(noted, _Noted):
        raise _RefusedError(f"{CENTRES} is no array")
    if noted.array is not None:
        return noted.array
    if noted.by in _ARRAYS and isinstance(noted.state, tuple) and len(noted.state) == 5:
        _, shape, dtype, is_column_first, data = noted.state
        order = "F" if is_column_first is True else "C"
        if isinstance(data, _Noted) and data.by == "_codecs.encode":  # bytes of protocol 2
            data = str(data.arguments[0]).encode("latin1")
    elif noted.by in _BUFFERS and len(noted.arguments) == 4:
        data, dtype, shape, order = noted.arguments
    else:
        raise _RefusedError(f"{CENTRES} is made by {noted.by[:80]}")
    return _numbers(data, _dtype_of(dtype), shape, order)


def _numbers(data: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(data, bytes | bytearray) or order not in ("C", "F") or not _is_shape(shape):
        raise _RefusedError("has an array without numbers or shape")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise _RefusedError(f"has {len(data)} bytes for an array of shape {shape} of {dtype}")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)


def _is_shape(shape: Any) -> bool:
    is_short = isinstance(shape, tuple) and len(shape) <= 4
    return is_short and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in shape)


def _dtype_of(noted: Any) -> np.dtype[Any]:
    if not isinstance(noted, _Noted) or noted.by != "numpy.dtype" or noted.arguments[:1] == ():
        raise _RefusedError("has an array without type")
    code = noted.arguments[0]
    if code not in _NUMBERS:
        raise _RefusedError(f"has an array of {str(code)[:20]}, expected numbers")
    is_big_endian = isinstance(noted.state, tuple) and noted.state[1:2] == (">",)
    return np.dtype(f"{'>' if is_big_endian else '<'}{code}")


class _Steps:
    """The program, step by step, with names and notes on the stack instead of objects."""

    def __init__(self, data: bytes) -> None:
        self.stream = BytesIO(data)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack at each mark
        self.memo: dict[int, Any] = {}
        self.noted: list[_Noted] = []

    def follow(self) -> None:
        """To the end; `noted` then holds all that would have been made."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
            if number >= MOST_STEPS:
                raise _RefusedError(f"has more than {MOST_STEPS} steps")
            self._step(opcode.name, argument)
            if opcode.name == "BUILD":
                self._skip_numbers()

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name.startswith(("BININT", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BIN", "BINBYTES", "BYTEARRAY8")):
            stack.append(argument)
        elif name in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
            stack.append(_Container())
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            self._note(called, arguments)
        elif name == "NEWOBJ_EX":
            _, arguments, called = stack.pop(), stack.pop(), stack.pop()
            self._note(called, arguments)
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Noted):
                stack[-1].state = state
        else:
            self._gather(name)

    def _gather(self, name: str) -> None:
        """Steps that put several values together."""
        stack = self.stack
        if name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("TUPLE", "FROZENSET"):
            self.stack = self.below.pop()
            self.stack.append(tuple(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            if len(stack) < count:
                raise _RefusedError("has a tuple of nothing")
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            self.stack = self.below.pop()
            self._put(stack)
        elif name in ("APPEND", "SETITEM"):
            count = ("APPEND", "SETITEM").index(name) + 1
            items, stack[-count:] = stack[-count:], []
            self._put(items)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _RefusedError(f"has the step {name}")

    def _put(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], _Container):
            self.stack[-1].items += items

    def _note(self, called: Any, arguments: Any) -> None:
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("calls what is no name")
        self.noted.append(_Noted(called.text, arguments))
        self.stack.append(self.noted[-1])

    def _skip_numbers(self) -> None:
        """After the note of an array of joblib its numbers lie in the file."""
        wrapper = self.stack[-1]
        if not isinstance(wrapper, _Noted) or wrapper.by != _JOBLIB or not isinstance(wrapper.state, _Container):
            return
        dtype, shape = _dtype_of(wrapper.state["dtype"]), wrapper.state["shape"]
        if not _is_shape(shape):
            raise _RefusedError("has an array without shape")
        if "numpy_array_alignment_bytes" in wrapper.state.items[::2]:  # joblib 1.2 and later say how many are padding
            self.stream.read(self.stream.read(1)[0])
        data = self.stream.read(math.prod(shape) * dtype.itemsize)
        wrapper.array = _numbers(data, dtype, shape, wrapper.state["order"])
