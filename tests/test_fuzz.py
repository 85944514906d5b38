"""Whatever is in a file, a reader answers, or raises what its documentation says: soon, and within a gigabyte.

Thousands of damaged files, always the same ones, in a process for each family of readers; `scripts/fuzz.py` tries more.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from random import Random

import fuzz_targets
import fuzzing
import pytest
from fuzz_targets import FAMILIES, TARGETS
from mutations import KINDS, damaged, png_chunk

from cryopick.io.coordinates.formats import FORMATS
from cryopick.io.images.formats import IMAGE_FORMATS

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"
SEED = 1
SEED_OF_ALL_FAULTS = 154  # its first eight cases are the eight digits


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_files_give_an_answer_or_a_documented_error(family, tmp_path):
    rows = [row for row in TARGETS.values() if row.family == family]
    there = [row.name for row in rows if not row.needs or importlib.util.find_spec(row.needs)]
    if not there:
        pytest.skip(f"needs {rows[0].needs}")
    failures = fuzzing.fuzz(there, seed=SEED, count=None, save=tmp_path)
    assert not failures, "\n".join(["", *map(str, failures)])


def test_every_coordinate_format_and_every_image_type_is_fuzzed():
    fuzzed = {name for row in TARGETS.values() for name in row.formats}
    assert fuzzed == set(FORMATS) | set(IMAGE_FORMATS)


# ------------------------------------------------------------------------------------------------ the fuzzer itself


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_the_same_for_the_same_seed_and_changes_the_file(kind):
    content = b"head 1.5\n" + bytes(range(256)) * 3
    first = [damaged(content, kind, Random(seed)) for seed in range(40)]
    assert first == [damaged(content, kind, Random(seed)) for seed in range(40)]
    assert sum(one != content for one in first) > 30


def test_damaged_png_files_still_have_fitting_checksums():
    cv2 = pytest.importorskip("cv2")
    import struct
    import zlib

    content = cv2.imencode(".png", fuzz_targets._PIXELS)[1].tobytes()
    for seed in range(40):
        changed, place = png_chunk(content, Random(seed)), 8
        while place < len(changed):
            length = struct.unpack_from(">I", changed, place)[0]
            body = changed[place + 4 : place + 8 + length]
            assert struct.unpack_from(">I", changed, place + 8 + length)[0] == zlib.crc32(body)
            place += 12 + length


def test_the_fuzzer_reports_every_way_to_fail_and_survives_it(tmp_path, monkeypatch):
    for table in (TARGETS, KINDS):  # which the reader adds itself to
        for name in table:
            monkeypatch.setitem(table, name, table[name])
    import bad_reader

    monkeypatch.setattr(fuzzing, "PROGRAM", Path(bad_reader.__file__))
    monkeypatch.setattr(fuzzing, "SILENCE_LIMIT_S", 15.0)
    failures = fuzzing.fuzz(["bad"], seed=SEED_OF_ALL_FAULTS, count=8, save=tmp_path)
    assert sorted(one.error for one in failures) == [
        "FormatError that does not name the file",
        "KeyError",
        "MemoryError",
        "OverTimeError",
        "no answer for 15 s",
        "process died with -9",
        "wrote outside its folder",
    ]
    keyed = next(one for one in failures if one.error == "KeyError")
    assert Path(keyed.saved).read_text() == "1"
    assert keyed.replay == f"scripts/fuzz.py --target bad --seed {SEED_OF_ALL_FAULTS} --case {keyed.case}"
    again = fuzzing.fuzz(["bad"], seed=SEED_OF_ALL_FAULTS, first=keyed.case, count=1, save=tmp_path)
    assert again == [keyed]


def test_the_script_tries_one_case_and_prints_a_table(tmp_path):
    command = [sys.executable, SCRIPT, "--target", "coordinates/box", "--count", "5", "--save", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "coordinates/box" in done.stdout
    assert "0 failures in 5 cases" in done.stdout
