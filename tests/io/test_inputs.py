"""Which files an input means, and under which names."""

import os
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, InputError
from cryopick.io.inputs import find_micrographs, read_source
from cryopick.io.mrc import write_mrc

OPTICS_STAR = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
one 1 1.77
two 2 0.885

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
{rows}

"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder with two sessions that share a base name."""
    for name in ("mics/x.mrc", "mics/sub/x.mrc", "mics/sub/mit Leer Å.mrc", "other/x.mrc", "other/y.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_mrc(tmp_path / "mics" / "x.mrc", np.zeros((3, 5), "f4"), pixel_size_angstrom=1.2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _names(*inputs, **options):
    return [source.name for source in find_micrographs(inputs, **options)]


def test_a_folder_is_searched_recursively_and_keeps_its_tree(project):
    assert _names("mics") == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]


def test_equal_base_names_in_several_inputs_are_kept_apart(project):
    assert _names("mics", "other") == [
        "mics/sub/mit Leer Å.mrc",
        "mics/sub/x.mrc",
        "mics/x.mrc",
        "other/x.mrc",
        "other/y.tif",
    ]
    assert _names("mics/x.mrc", "other/x.mrc") == ["mics/x.mrc", "other/x.mrc"]


def test_a_single_file_is_named_by_its_base_name_wherever_it_is(project):
    assert _names("mics/sub/x.mrc") == ["x.mrc"]
    assert _names(project / "mics" / "sub" / "x.mrc") == ["x.mrc"]
    assert [source.name for source in find_micrographs("mics/sub/x.mrc")] == ["x.mrc"]


def test_patterns_count_names_from_their_fixed_part(project):
    assert _names("mics/*.mrc") == ["x.mrc"]
    assert _names("*/x.mrc") == ["mics/x.mrc", "other/x.mrc"]
    assert _names("mics/**/*.mrc") == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]
    assert _names("mics/x.mrc", "mics/sub/x.mrc") == ["x.mrc", "sub/x.mrc"]  # as a shell would expand it


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(project):
    Path("odd[1].mrc").touch()
    assert _names("odd[1].mrc") == ["odd[1].mrc"]


def test_a_file_named_twice_is_one_micrograph(project):
    assert _names("mics", "mics/x.mrc", str(project / "mics"), "mics/../mics/x.mrc") == _names("mics")


def test_lists_hold_files_folders_patterns_and_comments(project):
    Path("list.txt").write_text("# session 1\nmics/x.mrc\n\nother\nmics/sub/mit*\n", encoding="utf-8")
    assert _names("@list.txt") == ["mics/x.mrc", "other/x.mrc", "other/y.tif", "mics/sub/mit Leer Å.mrc"]


def test_list_paths_count_from_above_the_list_when_called_from_elsewhere(project, monkeypatch, tmp_path_factory):
    Path("lists").mkdir()
    Path("lists/list.txt").write_text("mics/x.mrc\nother/*.tif\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    sources = find_micrographs([f"@{project / 'lists' / 'list.txt'}"])
    assert [source.name for source in sources] == ["mics/x.mrc", "other/y.tif"]
    assert sources[0].path == project / "mics" / "x.mrc"


def test_star_file_gives_optics_pixel_sizes_and_keeps_its_own_names(project):
    rows = 'mics/x.mrc 1\n"mics/sub/mit Leer Å.mrc" 2'
    Path("job").mkdir()
    Path("job/micrographs.star").write_text(OPTICS_STAR.format(rows=rows), encoding="utf-8")
    sources = find_micrographs(["job/micrographs.star"])
    assert [source.listed_name for source in sources] == ["mics/x.mrc", "mics/sub/mit Leer Å.mrc"]
    assert [source.name for source in sources] == ["mics/x.mrc", "mics/sub/mit Leer Å.mrc"]
    assert [source.pixel_size_angstrom for source in sources] == [1.77, 0.885]


def test_star_file_of_relion_3_0_has_its_pixel_size_from_the_magnification(project):
    Path("m.star").write_text(
        "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnDetectorPixelSize #2\n_rlnMagnification #3\n"
        "mics/x.mrc 14 100000\n\n"
    )
    assert find_micrographs(["m.star"])[0].pixel_size_angstrom == pytest.approx(1.4)


def test_what_the_star_file_knows_wins_over_the_folder(project):
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/x.mrc 1"))
    sources = find_micrographs(["mics", "m.star"])
    assert [source.pixel_size_angstrom for source in sources] == [None, None, 1.77]


def test_names_never_lead_out_of_the_run_folder(project, monkeypatch):
    monkeypatch.chdir("mics")
    Path("m.star").write_text(OPTICS_STAR.format(rows=f"../other/x.mrc 1\n{project}/other/y.tif 1\nx.mrc 1"))
    assert _names("m.star") == ["other/x.mrc", "other/y.tif", "mics/x.mrc"]


def test_missing_entries_of_a_list_are_kept_to_be_reported_but_not_when_all_are(project):
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/x.mrc 1\nmics/gone.mrc 1"))
    sources = find_micrographs(["m.star"])
    assert [source.name for source in sources] == ["mics/x.mrc", "mics/gone.mrc"]
    with pytest.raises(InputError, match="no such file"):
        read_source(sources[1])
    Path("m.star").write_text(OPTICS_STAR.format(rows="lost/x.mrc 1\nlost/y.mrc 1"))
    with pytest.raises(InputError, match=r"none of its 2 entries exists, the first being 'lost/x.mrc'"):
        find_micrographs(["m.star"])


def test_one_image_in_two_file_types_is_refused_with_a_remedy(project):
    Path("mics/x.png").touch()
    with pytest.raises(InputError, match=r"x\.mrc and x\.png.*choose one type"):
        find_micrographs(["mics"])
    assert _names("mics/*.png") == ["x.png"]


def test_output_folder_hidden_files_and_foreign_files_are_left_out(project):
    for name in ("mics/run1/preview.png", "mics/.trash/z.mrc", "mics/._x.mrc", "mics/notes.txt", "mics/stack.mrcs"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    assert _names("mics", exclude_folders=["mics/run1"]) == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]
    assert "preview.png" not in _names("mics/**/*.png", "other", exclude_folders=["mics/run1"])


def test_symbolic_links_are_followed_but_not_in_circles(project):
    os.symlink(project / "other", project / "mics" / "linked")
    os.symlink(project / "mics", project / "mics" / "circle")
    assert _names("mics") == ["linked/x.mrc", "linked/y.tif", "sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]


def test_movies_are_recognised_by_their_suffix(project, caplog):
    Path("mics/raw.eer").touch()
    assert len(_names("mics")) == 3
    assert "1 EER movies left out" in caplog.text
    with pytest.raises(FormatError, match=r"EER movie.*align it first"):
        find_micrographs(["mics/raw.eer"])
    Path("movies").mkdir()
    Path("movies/a.eer").touch()
    with pytest.raises(FormatError, match="1 EER movies and no micrographs"):
        find_micrographs(["movies"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nowhere", "no such file or folder"),
        ("none*.mrc", "no file matches"),
        ("empty", "no micrographs found in 0 files"),
        ("@none.txt", "none.txt"),
        ("notes.txt", "not a known image type"),
        ("@blank.txt", "the list is empty"),
        ("@nested.txt", "names another list"),
    ],
)
def test_inputs_that_mean_nothing_are_refused_by_name(project, given, sentence):
    Path("empty").mkdir()
    Path("notes.txt").write_text("hello\n")
    Path("blank.txt").write_text("\n# nothing\n")
    Path("nested.txt").write_text("@list.txt\n")
    with pytest.raises(InputError, match=sentence):
        find_micrographs([given])


def test_no_input_at_all_is_refused(project):
    with pytest.raises(InputError, match="no micrographs given"):
        find_micrographs([])


def test_names_that_no_star_file_can_hold_are_refused_before_any_work(project):
    Path("mics/line\nbreak.mrc").touch()
    with pytest.raises(InputError, match="rename"):
        find_micrographs(["mics"])


def test_reading_a_source_uses_its_name_and_its_optics(project):
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/x.mrc 1"))
    source = find_micrographs(["m.star"])[0]
    micrograph = read_source(source)
    assert (micrograph.name, micrograph.pixel_size_angstrom) == ("mics/x.mrc", 1.77)
    assert "header 1.2" in micrograph.warnings[0]
    assert read_source(source, pixel_size_angstrom=2.0).pixel_size_angstrom == 2.0
