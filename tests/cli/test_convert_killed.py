"""`cryopick convert`, killed at any file that it writes, leaves the former output whole or the new one, or says so."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cryopick.errors import InputError
from cryopick.io.coordinates.formats import read_picks

MICROGRAPHS = ("a", "b", "c")
KILLED_AT_A_FILE = """
import os, signal, sys
left, when, replace = int(sys.argv.pop(1)), sys.argv.pop(1), os.replace
def replace_until(*names):
    global left
    left -= 1
    if left < 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_until
from cryopick.cli.main import main
main()
"""


def convert(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cryopick.cli.main", "convert", *arguments], cwd=folder, check=True)


def killed(folder: Path, number: int, when: str, *arguments: str) -> None:
    """A conversion that is killed just before, or after, its file `number` gets its name."""
    command = [sys.executable, "-c", KILLED_AT_A_FILE, str(number), when, "convert", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two tables of the same micrographs."""
    for name, x in (("first.csv", 10), ("second.csv", 20)):
        rows = "".join(f"{x},{y},{micrograph}.mrc\n" for micrograph in MICROGRAPHS for y in range(5, 500))
        (tmp_path / name).write_text(f"x,y,micrograph\n{rows}")
    return tmp_path


def xs_of(path: Path) -> set[float]:
    return {float(x) for picks in read_picks(path).values() for x in picks.xy_px[:, 0]}


@pytest.mark.slow
def test_a_file_is_the_former_or_the_new_one(place: Path) -> None:
    convert(place, "first.csv", "out.star")
    former = (place / "out.star").read_bytes()
    killed(place, 0, "before", "second.csv", "out.star")
    assert (place / "out.star").read_bytes() == former
    killed(place, 0, "after", "second.csv", "out.star")
    assert (place / "out.star").read_bytes() != former
    assert (len(read_picks(place / "out.star")), xs_of(place / "out.star")) == (3, {20})


@pytest.mark.slow
def test_a_folder_is_the_former_or_refused_until_it_is_converted_again(place: Path) -> None:
    convert(place, "first.csv", "out", "--to", "csv")
    killed(place, 0, "before", "second.csv", "out", "--to", "csv")
    assert xs_of(place / "out") == {10}
    for number in range(1, 1 + len(MICROGRAPHS)):  # the first file is the one that says that others will follow
        killed(place, number, "before", "second.csv", "out", "--to", "csv")
        assert sum(xs_of(place / "out" / f"{name}.csv") == {20} for name in MICROGRAPHS) == number - 1
        with pytest.raises(InputError, match=r"out: a conversion into this folder was stopped in the middle"):
            read_picks(place / "out")
    convert(place, "second.csv", "out", "--to", "csv")
    assert (len(read_picks(place / "out")), xs_of(place / "out")) == (3, {20})
