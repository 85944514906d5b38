"""The real micrographs, where they are at hand: sizes and types as their description says."""

import pytest
from real_data import REAL

from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.inputs.sources import find_micrographs

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real labelled micrographs are not on this machine"),
]


@pytest.mark.parametrize(
    ("folder", "count", "columns", "rows", "dtype"),
    [
        ("bgal10017", 8, 4096, 4096, "uint8"),
        ("apoferritin", 7, 1240, 1200, "uint16"),
        ("empty", 4, 512, 494, "uint8"),
    ],
)
def test_every_image_of_a_set_is_found_and_read_with_its_size(folder, count, columns, rows, dtype):
    sources = find_micrographs([REAL / folder])
    assert len(sources) == count
    for source in sources:
        info = probe_image(source.path)
        assert (info.shape_yx, info.dtype, info.kind) == ((rows, columns), dtype, "image")
    micrograph = read_micrograph(sources[0].path)
    assert micrograph.shape_yx == (rows, columns)
    assert micrograph.pixels.std() > 1
    assert micrograph.pixel_size_angstrom is None
