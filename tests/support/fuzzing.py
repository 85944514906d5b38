"""Damaged files given to readers, each call with 10 s of processor time and 1 GB, in a process of its own.

`fuzz` starts the process, which is this file run as a program, and starts another where one dies or hangs; so nothing
that a file can do takes the caller down. A case is its target, seed and number: the same three give the same file.
"""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType

from fuzz_targets import TARGETS, Target
from mutations import damaged

CPU_LIMIT_S = 10.0
"""Of one call. Processor time, so that a busy machine changes nothing."""
SILENCE_LIMIT_S = 90.0
"""Of waiting, by the clock, for one that neither answers nor computes."""
START_LIMIT_S = 900.0
"""Of waiting for a process to import what it needs and to begin its first case, which busy machines make slow."""
MEMORY_LIMIT_BYTES = 1 << 30
"""Beyond what the process has before a call."""
PROGRAM = Path(__file__)
"""What the process runs: `main` below."""
_DEPTH = "deep/in/folders"
"""The files lie so far down that a name with `..` would show above them."""


@dataclass(frozen=True)
class Failure:
    """A call that ended otherwise than documented.

    Parameters
    ----------
    case : number of the case; with `target` and `seed` it makes the same file again
    file : the damaged one, below the target's folder
    call : the function called
    error : type of the exception, or what became of the process
    place : innermost line of cryopick
    saved : a copy of the damaged file
    """

    target: str
    seed: int
    case: int
    file: str
    call: str
    error: str
    message: str
    place: str
    saved: str

    @property
    def replay(self) -> str:
        """What to type to see it again."""
        return f"scripts/fuzz.py --target {self.target} --seed {self.seed} --case {self.case}"

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.file}: {self.call}: {self.error} at {self.place}: {self.message}\n"
            f"    again: {self.replay}\n    input: {self.saved}"
        )


class OverTimeError(BaseException):
    """A call used up its processor time; no `except Exception` of a reader holds it back."""


# ------------------------------------------------------------------------------------------------------- the caller


def fuzz(
    names: Sequence[str],
    *,
    seed: int,
    count: int | None,
    save: Path,
    first: int = 0,
    on_case: Callable[[str, int], None] | None = None,
) -> list[Failure]:
    """Every call that ended badly, of `count` cases of each named target from number `first` on.

    Parameters
    ----------
    count : None takes each target's own
    save : folder for the damaged files
    on_case : called with target and number as each case begins
    """
    todo = [(name, case) for name in names for case in range(first, first + (count or TARGETS[name].count))]
    failures: list[Failure] = []
    save.mkdir(parents=True, exist_ok=True)
    while todo:
        begun, fate, errors = _one_process(todo, seed, save.resolve(), failures, on_case)
        if fate:
            name, case = todo[begun - 1]
            failures.append(Failure(name, seed, case, "", "", fate, errors, "?", ""))
        todo = todo[begun:]
    return failures


def _one_process(
    todo: list[tuple[str, int]],
    seed: int,
    save: Path,
    failures: list[Failure],
    on_case: Callable[[str, int], None] | None,
) -> tuple[int, str, str]:
    """Cases begun by one process, what became of it if it died in the last one ("" if not), and its last words."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # the folder's name is always equally long, because some files hold it
    with tempfile.TemporaryDirectory(prefix="cryopick-fuzz-") as base, tempfile.TemporaryFile() as errors:
        command = [sys.executable, str(PROGRAM), str(seed), str(save), base]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
        )
        with process:
            process.stdin.write(json.dumps(todo).encode())
            process.stdin.close()
            begun, fate = 0, ""
            for line in _lines(process.stdout.fileno()):
                if line is None:
                    fate = f"no answer for {SILENCE_LIMIT_S:g} s"
                    process.kill()
                elif isinstance(found := json.loads(line), list):
                    begun += 1
                    if on_case is not None:
                        on_case(found[0], found[1])
                else:
                    failures.append(Failure(**found))
        errors.seek(0)
        last_words = errors.read().decode(errors="replace").strip()[-2000:]
        if process.returncode == 1 or (process.returncode and not begun):
            raise RuntimeError(f"the fuzzer itself failed after {todo[max(0, begun - 1)]}:\n{last_words}")
        if process.returncode and not fate:
            fate = f"process died with {process.returncode}"
        return begun, fate, last_words[-300:]


def _lines(descriptor: int) -> Iterator[str | None]:
    """Lines as they come; None after too long a silence."""
    buffer, limit_s = b"", START_LIMIT_S
    while True:
        ready, _, _ = select.select([descriptor], [], [], limit_s)
        if not ready:
            yield None
            return
        limit_s = SILENCE_LIMIT_S
        part = os.read(descriptor, 1 << 16)
        if not part:
            return
        *whole, buffer = (buffer + part).split(b"\n")
        yield from (line.decode() for line in whole)


# ------------------------------------------------------------------------------------------------------ the process


class Files:
    """The healthy files of a target in a folder, put back after each case."""

    def __init__(self, target: Target, base: Path) -> None:
        self.base = base
        self.folder = base / _DEPTH
        self.folder.mkdir(parents=True)
        target.make(self.folder)
        self.healthy = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in self._all()}
        # modification times too: a run folder knows its micrographs by them
        self.states = {name: self._state(name) for name in self.healthy}
        kinds = [(name, kind) for pattern, kind in target.files.items() for name in self._matching(pattern)]
        self.damageable = list(dict(reversed(kinds)).items())  # the first pattern that fits says the kind
        unused = [pattern for pattern in target.files if not self._matching(pattern)]
        if unused:
            raise LookupError(f"{target.name}: no file fits {unused[0]}; it has {', '.join(self.healthy)}")
        self._read_healthy(target)
        self.restore()

    def _read_healthy(self, target: Target) -> None:
        """Call everything once on healthy files: what is imported then is not counted, and it must work."""
        paths = [self.folder / name for name, _ in self.damageable] if target.is_one_file else [self.folder]
        for call in target.calls:
            refused = []
            for path in paths:
                try:
                    call(path, Random(0))
                except target.documented as error:  # a movie, for example
                    refused.append(error)
            if len(refused) == len(paths):
                raise refused[0]

    def _matching(self, pattern: str) -> list[str]:
        return sorted(name for name in self.healthy if fnmatch.fnmatchcase(name, pattern))

    def _all(self) -> list[Path]:
        return [path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.is_symlink()]

    def _state(self, name: str) -> tuple[int, int]:
        status = (self.folder / name).stat()
        return status.st_size, status.st_mtime_ns

    def damage(self, random: Random) -> tuple[str, bytes]:
        """Damage one file; its name and new content."""
        name, kind = random.choice(self.damageable)
        content = damaged(self.healthy[name], kind, random)
        (self.folder / name).write_bytes(content)
        os.utime(self.folder / name, ns=(self.states[name][1],) * 2)
        return name, content

    def restore(self) -> list[str]:
        """Put everything back; the files that were written outside the folder."""
        for path in self._all():
            if path.relative_to(self.folder).as_posix() not in self.healthy:
                path.unlink()
        for name, content in self.healthy.items():
            path = self.folder / name
            try:
                is_same = self._state(name) == self.states[name] and path.read_bytes() == content
            except OSError:
                is_same = False
            if not is_same:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(self.states[name][1],) * 2)
        strays = [path for path in self.base.rglob("*") if path.is_file() and self.folder not in path.parents]
        for path in strays:
            path.unlink()
        return [path.relative_to(self.base).as_posix() for path in strays]


def run_case(target: Target, files: Files, seed: int, case: int, save: Path) -> list[Failure]:
    """Make one damaged file and give it to every call of its target."""
    random = Random(f"{seed}/{target.name}/{case}")
    name, content = files.damage(random)
    found = []

    def fail(call: str, error: str, message: str, place: str) -> None:
        saved = save / f"{target.name.replace('/', '-')}-{seed}-{case}-{Path(name).name}"
        saved.write_bytes(content)
        shown = message.replace(str(files.folder), "FOLDER")[:300]
        found.append(Failure(target.name, seed, case, name, call, error, shown, place, str(saved)))

    for call in target.calls:
        try:
            with _limits():
                call(files.folder / name if target.is_one_file else files.folder, random)
        except target.documented as error:
            if target.is_one_file and Path(name).stem not in str(error):
                fail(call.__name__, f"{type(error).__name__} that does not name the file", str(error), _place(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever else it is, a user would see a traceback
            fail(call.__name__, type(error).__name__, str(error), _place(error))
    strays = files.restore()
    if strays:
        fail("", "wrote outside its folder", ", ".join(strays), "?")
    return found


class _limits:  # noqa: N801  # reads as a function
    """Processor time and memory for one call."""

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        statm = Path("/proc/self/statm")
        if statm.exists():
            used = int(statm.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LIMIT_BYTES, self.before[1]))
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)

    def __exit__(self, *raised: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def _over_time(number: int, frame: FrameType | None) -> None:
    raise OverTimeError(f"more than {CPU_LIMIT_S:g} s of processor time")


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "cryopick" in Path(frame.filename).parts]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def main() -> None:
    """Read a list of (target, case) from stdin and write what is begun and what failed, a line of JSON each."""
    seed, save, base = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    signal.signal(signal.SIGPROF, _over_time)
    warnings.simplefilter("ignore")
    os.chdir(base)
    current, files = "", None
    for name, case in json.load(sys.stdin):
        if name != current:
            shutil.rmtree(base / "of-target", ignore_errors=True)
            current, files = name, Files(TARGETS[name], base / "of-target")
        print(json.dumps([name, case]), file=answers, flush=True)
        for failure in run_case(TARGETS[name], files, seed, case, save):
            print(json.dumps(asdict(failure)), file=answers, flush=True)


if __name__ == "__main__":
    main()
