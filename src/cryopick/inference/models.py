"""What pickers load from files, such as networks, has an owner that keeps it and lets it go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, ParamSpec, TypeVar, cast

from cryopick.io.files.version import file_version

P = ParamSpec("P")
Loaded = TypeVar("Loaded")


class Models:
    """Models in memory, each for as long as the files that it was loaded from stay as they are.

    A file that is overwritten, replaced or moved away is read again when its model is next asked for, however its path
    stays the same. A copy made by pickling or copying is empty: another process loads its own.
    """

    def __init__(self, *, most: int = 8) -> None:
        """`most` models are kept; the one used longest ago goes first."""
        self.most = most
        self._kept: OrderedDict[Any, tuple[list[tuple[int, ...]], Any]] = OrderedDict()
        self._lock = RLock()

    def get(
        self, load: Callable[P, Loaded], files: Iterable[Path], /, *arguments: P.args, **settings: P.kwargs
    ) -> Loaded:
        """What `load` returns for these arguments, which must be hashable; loaded anew once one of `files` changed."""
        versions = [file_version(path) for path in files]  # before reading, never newer than what is read
        call = (load, arguments, tuple(sorted(settings.items())))
        with self._lock:
            if call in self._kept and self._kept[call][0] == versions:
                self._kept.move_to_end(call)
                return cast(Loaded, self._kept[call][1])
            self._kept.pop(call, None)  # the older version is let go before the new one takes memory
            loaded = load(*arguments, **settings)
            self._kept[call] = versions, loaded
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
            return loaded

    def close(self) -> None:
        """Let all models go; what is asked for afterwards is loaded again."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (self.most,)


def _empty(most: int) -> Models:
    return Models(most=most)


@dataclass(frozen=True, kw_only=True)
class HoldsModels:
    """Gives a picker its own `Models`; pickers made of it with `dataclasses.replace` share them.

    They go with the picker, or before, when a run that is over closes them.
    """

    _models: Models = field(default_factory=Models, repr=False, compare=False)

    def close(self) -> None:
        """Let the models go; the picker stays usable, and loads them again."""
        self._models.close()
