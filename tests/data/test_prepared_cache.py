"""Prepared micrographs on disk: made once, whole or made again, never more than there is room for."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cryopick.data.datasets import open_micrographs
from cryopick.data.prepared_cache import Prepared, PreparedCache, prepared_key
from cryopick.errors import SettingsError

PICTURE = np.arange(12, dtype=np.float32).reshape(3, 4)


class Maker:
    """Counts how often it had to make something."""

    def __init__(self, value: float = 1.0, size: int = 12) -> None:
        self.calls, self.value, self.size = 0, value, size

    def __call__(self):
        self.calls += 1
        return np.full(self.size, self.value, np.float32)


def cache_in(folder: Path, **settings) -> PreparedCache:
    return PreparedCache(folder, **{"max_bytes": 10**6, **settings})


def test_an_array_is_made_once_and_then_read_as_it_was_by_any_process(tmp_path):
    first = cache_in(tmp_path).get("aa1", lambda: PICTURE)
    again = cache_in(tmp_path).get("aa1", lambda: pytest.fail("made twice"))
    for found in (first, again):
        assert found.dtype == PICTURE.dtype
        assert np.array_equal(found, PICTURE)
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        lambda content: b"\0" * len(content),
        lambda content: b"not numpy" + content,
    ],
    ids=["torn", "empty", "one bit", "zeros", "something else"],
)
def test_a_damaged_entry_is_made_again_and_is_whole_then(tmp_path, damage, caplog):
    cache_in(tmp_path).get("aa1", lambda: PICTURE)
    (entry,) = tmp_path.glob("*/*.npy")
    entry.write_bytes(damage(entry.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cache_in(tmp_path).get("aa1", lambda: PICTURE + 1), PICTURE + 1)
    assert "is damaged" in caplog.text
    assert np.array_equal(cache_in(tmp_path).get("aa1", lambda: pytest.fail("made again")), PICTURE + 1)


def test_what_was_used_longest_ago_makes_room(tmp_path):
    cache = cache_in(tmp_path)
    for age, key in ((30, "aa1"), (10, "bb2"), (20, "cc3")):
        cache.get(key, Maker(size=1000))
        (entry,) = tmp_path.glob(f"*/{key}.npy")
        os.utime(entry, (time.time() - age,) * 2)
    one = cache.size_bytes() // 3
    later = cache_in(tmp_path, max_bytes=3 * one + 10)
    later.get("dd4", Maker(size=1000))
    assert [later.holds(key) for key in ("aa1", "bb2", "cc3", "dd4")] == [False, True, True, True]
    assert later.size_bytes() <= later.max_bytes


def test_a_training_over_more_than_fits_keeps_what_fits_instead_of_throwing_all_out_in_turn(tmp_path, caplog):
    makers = {f"{number:02d}": Maker(number, size=1000) for number in range(10)}
    cache = cache_in(tmp_path, max_bytes=4 * 4500)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # epochs
            for key, maker in makers.items():
                assert cache.get(key, maker)[0] == float(key)
    assert sorted(maker.calls for maker in makers.values()) == [1] * 4 + [3] * 6
    assert cache.is_full
    assert caplog.text.count("is full") == 1
    assert cache.size_bytes() <= cache.max_bytes


def test_an_entry_larger_than_the_cache_is_given_and_not_kept(tmp_path):
    cache = cache_in(tmp_path, max_bytes=100)
    assert cache.get("aa1", Maker(size=1000)).sum() == 1000
    assert cache.size_bytes() == 0


def test_a_cache_that_cannot_be_written_gives_what_was_made_with_a_warning(tmp_path, caplog):
    (tmp_path / "aa").write_text("a file where a folder is needed")
    with caplog.at_level(logging.WARNING):
        assert cache_in(tmp_path).get("aa1", Maker()).sum() == 12
    assert "cannot be written" in caplog.text


WORKER = """
import sys
import numpy as np
from cryopick.data.prepared_cache import PreparedCache
cache = PreparedCache({folder!r}, 10 * 4300)
rng = np.random.default_rng(int(sys.argv[1]))
for _ in range(150):
    number = int(rng.integers(20))
    found = cache.get(f"{{number:02d}}", lambda: np.full(1000, number, np.float32))
    assert found.shape == (1000,) and (found == number).all()
"""


def test_several_processes_share_a_folder_that_is_too_small_for_them(tmp_path):
    script = tmp_path / "worker.py"
    folder = tmp_path / "cache"
    script.write_text("from pathlib import Path\n" + WORKER.format(folder=folder).replace("PosixPath", "Path"))
    workers = [subprocess.Popen([sys.executable, str(script), str(seed)]) for seed in range(3)]
    assert [one.wait(timeout=120) for one in workers] == [0, 0, 0]
    assert PreparedCache(folder, 1).size_bytes() <= 13 * 4300  # the limit, and one that each was writing


def test_keys_tell_files_their_parts_and_settings_apart_and_see_a_file_that_changed(tmp_path):
    from cryopick.io.images.micrographs import write_micrograph
    from cryopick.types import Micrograph

    for name in ("a", "b"):
        write_micrograph(tmp_path / f"{name}.mrc", Micrograph(PICTURE, name, pixel_size_angstrom=1.0))
    one, other = open_micrographs(tmp_path).items
    settings = {"of": "denoised", "method": "published"}
    keys = [
        prepared_key(one, settings),
        prepared_key(other, settings),
        prepared_key(one, {**settings, "method": "corrected"}),
        prepared_key(one.part((0, 0, 2, 2)), settings),
    ]
    assert len(set(keys)) == 4
    assert prepared_key(one, dict(reversed(settings.items()))) == keys[0]
    write_micrograph(tmp_path / "a.mrc", Micrograph(PICTURE + 1, "a", pixel_size_angstrom=1.0))
    os.utime(tmp_path / "a.mrc", (1, 1))
    assert prepared_key(one, settings) != keys[0]
    prepared = Prepared(cache_in(tmp_path / "cache"))
    maker = Maker()
    assert prepared.of(one, settings, maker).sum() == prepared.of(one, settings, maker).sum() == 12
    assert maker.calls == 1
    assert Prepared().of(one, settings, maker).sum() == 12


def test_a_cache_without_room_for_anything_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="expected more than 0"):
        PreparedCache(tmp_path, 0)
