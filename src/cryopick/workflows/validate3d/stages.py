"""A validation's folder: stages that are made once, whole or not at all, and made again where they no longer hold.

A stage is a folder below the validation's. It is written as `NAME.partial/` and renamed when all its files are there;
the last of them, `done.json`, holds what the stage was made from and the digest of every file. The same command finds
a finished stage and goes on; a stage whose inputs changed, or of whose files one is missing or damaged, is made again,
and the log says which and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError
from cryopick.io.files.atomic import explain_write_errors, write_text_atomic
from cryopick.io.files.json_object import read_json_object

DONE, BEGUN, PARTIAL = "done.json", "begun.json", ".partial"
LOCAL_RESOLUTION = "LocalResolution"


@dataclass(frozen=True)
class Done:
    """A finished stage.

    Parameters
    ----------
    folder : where its files lie
    digest : of all that it was made from, which the stages behind it are made from in turn
    facts : what it found, as numbers and texts
    seconds, cpu_seconds : wall and processor time while it was made, of this process and its programs
    was_made : True where this call made it, False where it was there
    """

    folder: Path
    digest: str
    facts: Mapping[str, Any]
    seconds: float
    cpu_seconds: float
    was_made: bool


@dataclass
class StageFolder:
    """The folder of a validation, which one process writes to (`cryopick.io.files.folder_lock`).

    Parameters
    ----------
    root : the folder
    log : takes a sentence for each stage that is made, and why one is made again
    """

    root: Path
    log: Callable[[str], None]
    made: list[str] = field(default_factory=list)
    """Names of the stages that this process made."""

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any] | None],
        *,
        can_go_on: bool = False,
    ) -> Done:
        """The stage of this name, made now unless it is there and holds.

        Parameters
        ----------
        name : of its folder below the root, such as `general/Extract`
        inputs : all that its files depend on, as JSON takes it: settings and the digests of stages before it
        make : writes the files into the folder that it is given and returns the facts
        can_go_on : `make` goes on with what a killed call left in the unfinished folder; otherwise that is removed
        """
        folder, digest = self.root / name, digest_of(inputs)
        why = self._why_not(folder, inputs, digest)
        if not why:
            return _read_done(folder, was_made=False)
        partial = folder.with_name(folder.name + PARTIAL)
        with explain_write_errors(folder):
            if partial.exists() and not (can_go_on and _begun_with(partial) == digest):
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
        write_text_atomic(partial / BEGUN, json.dumps({"digest": digest}) + "\n")
        self.log(f"{name}: {why}")
        started, cpu = time.monotonic(), _processor_seconds()
        facts = make(partial) or {}
        content = {
            "digest": digest,
            "inputs": inputs,
            "files": _digests(partial),
            "facts": facts,
            "seconds": round(time.monotonic() - started, 3),
            "cpu_seconds": round(_processor_seconds() - cpu, 3),
        }
        (partial / BEGUN).unlink()
        write_text_atomic(partial / DONE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        with explain_write_errors(folder):
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        self.made.append(name)
        return _read_done(folder, was_made=True)

    def _why_not(self, folder: Path, inputs: Mapping[str, Any], digest: str) -> str:
        """Why a stage is to be made; "" where it is there and holds."""
        if not (folder / DONE).is_file():
            return "made again, its done.json is missing" if folder.exists() else "made"
        try:
            content = read_json_object(folder / DONE, what="the record of a finished stage")
            known = content["digest"], content["inputs"], content["files"]
            for key in ("facts", "seconds", "cpu_seconds"):
                content[key]
        except (FormatError, KeyError):
            return "made again, its done.json is damaged"
        if known[0] != digest:
            changed = sorted(
                key
                for key in {*inputs, *known[1]}
                if json.dumps(inputs.get(key), sort_keys=True, default=str)
                != json.dumps(known[1].get(key), sort_keys=True)
            )
            return f"made again, since {', '.join(changed) or 'its inputs'} changed"
        there = _digests(folder, but=DONE)
        damaged = sorted(name for name, one in known[2].items() if there.get(name) != one)
        if damaged:
            kind = "is missing" if damaged[0] not in there else "is damaged"
            return f"made again, since {damaged[0]} {kind}"
        return ""


def _processor_seconds() -> float:
    """Of this process and of the programs that it started and awaited."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def digest_of(inputs: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of values that JSON takes."""
    return _digest(json.dumps(inputs, sort_keys=True, ensure_ascii=False).encode("utf-8", errors="surrogateescape"))


def digest_of_file(path: Path) -> str:
    """32 hexadecimal digits of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, _blake).hexdigest()


def _blake() -> Any:
    return hashlib.blake2b(digest_size=16)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digests(folder: Path, *, but: str = BEGUN) -> dict[str, str]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            relative = path.relative_to(folder).as_posix()
            if relative != but:
                found[relative] = digest_of_file(path)
    return dict(sorted(found.items()))


def _begun_with(partial: Path) -> str:
    try:
        return str(read_json_object(partial / BEGUN, what="the record of a begun stage").get("digest"))
    except Exception:  # whatever it is, it is no record of ours
        return ""


def _read_done(folder: Path, *, was_made: bool) -> Done:
    content = read_json_object(folder / DONE, what="the record of a finished stage")
    return Done(
        folder, content["digest"], content["facts"], content["seconds"], content["cpu_seconds"], was_made=was_made
    )
