"""A small program in place of CTFFIND: it asks as the real one does, refuses what that would, and writes its table.

What it finds stands in a file that `CTFFIND_ANSWERS` names: by the micrograph's file name the six figures of its row,
or words to fail by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fake_relion import write_program

HEAD = (
    "# Output from CTFFind version 4.1.14, run on 2026-01-01 10:00:00\n"
    "# Input file: micrograph.mrc ; Number of micrographs: 1\n"
    "# Pixel size: {pixel:.3f} Angstroms ; acceleration voltage: {kv:.1f} keV ; spherical aberration: {cs:.2f} mm ; "
    "amplitude contrast: {q0:.2f}\n"
    "# Box size: 512 pixels ; min. res.: 30.0 Angstroms ; max. res.: 5.0 Angstroms ; min. def.: 5000.0 um; max. def. "
    "50000.0 um\n"
    "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - "
    "additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were "
    "fit successfully\n"
)
"""Of a table of version 4.1.14."""
_BODY = """
import json, struct
given = sys.stdin.read().splitlines()
asked = iter(given)
def number(what, low, high):
    value = float(next(asked))
    assert low <= value <= high, f"Error: {what} is {value}"
    return value
def yes_or_no():
    word = next(asked)
    assert word in ("yes", "no"), f"Error: expected yes or no, got {word}"
    return word == "yes"
image = next(asked)
with open(image, "rb") as stream:  # a missing file is an error there too
    columns, rows, sections, mode = struct.unpack("<4i", stream.read(16))
assert sections == 1 and mode in (1, 2), "Error: not an image"
diagnostic = next(asked)
pixel, kv, cs = number("pixel", .1, 20), number("voltage", 50, 500), number("Cs", 0, 10)
q0, box = number("amplitude contrast", 0, 1), number("box", 128, 4096)
coarsest = number("minimum resolution", 0, 50)
finest = number("maximum resolution", 0, coarsest)
least = number("minimum defocus", 0, 1e6)
most = number("maximum defocus", least, 1e6)
step = number("step", 1, 1e4)
assert not yes_or_no(); yes_or_no()
if yes_or_no(): number("astigmatism", 0, 1e5)
assert not yes_or_no(), "no phase plate here"
for _ in range({{further}}):  # sample tilt, sample thickness, expert options
    assert not yes_or_no()
name = os.path.basename(os.path.realpath(image))
with open("asked.json", "w") as stream: json.dump(given, stream)
with open({{record}}, "a") as stream: stream.write(name + "\\n")
found = json.load(open({{answers}})).get(name)
if found is None: found = json.load(open({{answers}}))["*"]
if isinstance(found, str):
    print(found); sys.exit(int(found.split()[-1]) if found[-1].isdigit() else 0)
with open(diagnostic, "wb") as stream: stream.write(bytes(1024))
head = {{head}}.format(pixel=pixel, kv=kv, cs=cs, q0=q0)
with open(os.path.splitext(diagnostic)[0] + ".txt", "w") as stream:
    stream.write(head + " ".join(["1.000000", *(f"{one:.6f}" for one in found)]) + "{{more}}\\n")
"""


def write_ctffind(
    folder: Path, found: Mapping[str, Sequence[float] | str], *, version: int = 4, name: str = "ctffind"
) -> str:
    """The program in a folder for the PATH.

    Parameters
    ----------
    found : by micrograph ("*" for all others) defocus 1 and 2 in Å, azimuth, phase shift in rad, correlation and
        resolution; or what it prints before it ends without a table, with the number that it ends in as status
    version : 4 asks two questions at the end, 5 three and has more columns
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "found.json").write_text(json.dumps(dict(found)))
    values = {
        "further": 1 if version == 4 else 3,
        "record": repr(str(folder / "called.txt")),
        "answers": repr(str(folder / "found.json")),
        "head": repr(HEAD),
        "more": "" if version == 4 else " 0.0 0.0 0.0",
    }
    body = _BODY
    for key, value in values.items():
        body = body.replace("{{" + key + "}}", str(value))
    return write_program(folder, name, body)


def called(folder: Path) -> list[str]:
    """The micrographs that it was called for, in order."""
    path = folder / "called.txt"
    return path.read_text().split() if path.is_file() else []
