"""Which files an input means, and under which names."""

import errno
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from cryopick.errors import FormatError, InputError
from cryopick.io.images.mrc import write_mrc
from cryopick.io.inputs import sources as inputs
from cryopick.io.inputs.sources import find_micrographs, read_source

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
    Path("mics/x.tif").touch()
    with pytest.raises(InputError, match=r"x\.mrc and x\.tif.*choose one type"):
        find_micrographs(["mics"])
    assert _names("mics/*.tif") == ["x.tif"]


def test_a_picture_beside_its_micrograph_is_left_out_aloud(project, caplog):
    Path("mics/x.png").touch()
    assert "x.png" not in _names("mics")
    assert "1 x picture of a micrograph (x.png)" in caplog.text
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
        ("", "an input is empty"),
        ("  ", "an input is empty"),
        ("~no-such-user/x", "no home folder for ~no-such-user"),
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


def test_a_name_that_no_star_file_can_hold_costs_that_micrograph_alone_and_aloud(project, caplog):
    for name in ("line\nbreak.mrc", "tab\tstop.mrc", "both ' kinds \".mrc"):
        (Path("mics") / name).touch()
    assert _names("mics") == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]
    assert "3 micrographs left out" in caplog.text
    assert "line\\nbreak.mrc" in caplog.text
    with pytest.raises(InputError, match="rename them"):
        find_micrographs(["mics/tab\tstop.mrc"])


def test_reading_a_source_uses_its_name_and_its_optics(project):
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/x.mrc 1"))
    source = find_micrographs(["m.star"])[0]
    micrograph = read_source(source)
    assert (micrograph.name, micrograph.pixel_size_angstrom) == ("mics/x.mrc", 1.77)
    assert "header 1.2" in micrograph.warnings[0]
    assert read_source(source, pixel_size_angstrom=2.0).pixel_size_angstrom == 2.0


# ------------------------------------------------------------------------------------------- links that lead nowhere


@pytest.mark.parametrize("given", ["imported", "imported/*.mrc", "**/m*.mrc", "@list.txt", "m.star"])
def test_a_link_that_leads_nowhere_stays_and_fails_by_name(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    Path("imported").mkdir()
    write_mrc(tmp_path / "imported" / "m1.mrc", np.zeros((3, 5), "f4"), pixel_size_angstrom=1.2)
    os.symlink("/not/mounted/m2.mrc", "imported/m2.mrc")
    Path("list.txt").write_text("imported/m1.mrc\nimported/m2.mrc\n")
    Path("m.star").write_text(OPTICS_STAR.format(rows="imported/m1.mrc 1\nimported/m2.mrc 1"))
    sources = find_micrographs([given])
    assert [Path(source.name).name for source in sources] == ["m1.mrc", "m2.mrc"]
    read_source(sources[0])
    with pytest.raises(InputError, match=r"m2\.mrc.*its link leads nowhere \(-> /not/mounted/m2\.mrc\)"):
        read_source(sources[1])


@pytest.mark.parametrize("given", [["a"], ["a/*.mrc"], ["a/m1.mrc", "a/m2.mrc"], ["@list.txt"], ["m.star"]])
def test_when_all_links_lead_nowhere_the_error_says_so(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    for name in ("a/m1.mrc", "a/m2.mrc"):
        os.symlink(f"/gone/{name}", name)
    Path("list.txt").write_text("a/m1.mrc\na/m2.mrc\n")
    Path("m.star").write_text(OPTICS_STAR.format(rows="a/m1.mrc 1\na/m2.mrc 1"))
    with pytest.raises(InputError, match=r"none of 2 micrographs is there.*leads nowhere \(-> /gone/a/m1\.mrc\)"):
        find_micrographs(given)


def test_a_linked_folder_that_is_gone_is_told(project, caplog):
    os.symlink("/not/mounted/session2", "mics/session2")
    assert len(_names("mics")) == 3
    assert "mics/session2: left out, its link leads nowhere (-> /not/mounted/session2)" in caplog.text
    with pytest.raises(InputError, match=r"the link mics/session2 leads nowhere"):
        find_micrographs(["mics/session2/x.mrc"])


def test_pipes_and_sockets_that_look_like_images_are_left_out_aloud(project, caplog, monkeypatch):
    os.mkfifo("mics/pipe.mrc")
    monkeypatch.chdir("mics")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door.mrc")
        for given in (".", "*.mrc"):
            caplog.clear()
            assert not {"pipe.mrc", "door.mrc"} & set(_names(given))
            assert "pipe.mrc: left out, it is a device, pipe or socket" in caplog.text
            assert "door.mrc: left out, it is a device, pipe or socket" in caplog.text


@pytest.mark.parametrize("given", ["mics", "mics/**/*.mrc", "mics/*/*.mrc"])
def test_a_folder_that_may_not_be_looked_into_is_told(project, caplog, monkeypatch, given):
    Path("mics/closed").mkdir()
    scan = os.scandir

    def scan_but_not_closed(folder):  # root, who may run the tests, may look into every folder
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_but_not_closed)
    assert _names(given)
    assert caplog.text.count("mics/closed: left out, cannot be looked into (Permission denied)") == 1


# ------------------------------------------------------------------------------------------- what cryopick wrote itself


def _run_folder(folder):
    for name in ("config.toml", "run.log", "records/m1.json", "images/m1.jpg", "images/m1.junk.png", "model/shown.png"):
        (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).touch()


@pytest.mark.parametrize("given", [".", "**/*", "*", "@list.txt"])
def test_pictures_of_an_earlier_run_are_no_micrographs_and_are_told(project, caplog, given):
    _run_folder("run1")
    Path("list.txt").write_text("**/*\n")
    names = _names(given)
    assert names
    assert not [name for name in names if "run1" in name]
    assert "run1/images (2)" in caplog.text
    assert "run1/model (1)" in caplog.text


def test_micrographs_that_lie_in_a_run_folder_are_found_and_its_pictures_are_not(project):
    expected = _names("mics")
    _run_folder("mics")
    assert _names("mics") == _names("mics/**/*") == expected
    assert _names("mics", exclude_folders=["mics/images", "mics/model", "mics/records"]) == expected


@pytest.mark.parametrize(
    ("markers", "pictures"),
    [
        (["config.toml", "loss.csv"], ["loss.png"]),
        (["simulation.json", "recipe.toml"], ["masks/sim_0001_junk.png"]),
        (["labels.json", "masks/m.png"], ["instances/m.png", "ignore/m.png"]),
        (["evaluation.json", "evaluation.md"], ["curve.png", "calibration.png"]),
        (["benchmark.json", "benchmark.md"], ["scores.png", "curves-real.png"]),
    ],
)
def test_pictures_of_other_commands_are_no_micrographs_either(project, markers, pictures):
    for name in (*markers, *pictures):
        (Path("other/out") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("other/out") / name).touch()
    assert _names("other") == ["x.mrc", "y.tif"]


def test_a_run_folder_that_is_given_alone_says_that_it_holds_no_micrographs(project):
    _run_folder("run1")
    for given in ("run1", "run1/**/*.jpg"):
        with pytest.raises(InputError, match="besides what cryopick wrote"):
            find_micrographs([given])


def test_a_pattern_that_matches_only_the_output_is_one_sentence(project):
    _run_folder("run1")
    with pytest.raises(InputError, match=r"no micrographs in .* besides the output folder"):
        find_micrographs(["run1/images/*.jpg"], exclude_folders=["run1/images"])


# ------------------------------------------------------------------------------------------------------- companions


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        (["m1.mrc", "m1_noDW.mrc", "m1_EVN.mrc", "m1_ODD.mrc", "m1_PS.mrc"], ["m1.mrc"]),  # RELION
        (["m1.mrc", "m1_DW.mrc", "m1_DWS.mrc", "m1_Stk.mrc"], ["m1_DW.mrc"]),  # MotionCor2
        (["m1_aligned_mic.mrc", "m1_aligned_mic_DW.mrc"], ["m1_aligned_mic_DW.mrc"]),  # Scipion
        (
            [
                "0123456789012345678_m1_patch_aligned.mrc",
                "0123456789012345678_m1_patch_aligned_doseweighted.mrc",
                "0123456789012345678_m1_background.mrc",
            ],
            ["0123456789012345678_m1_patch_aligned_doseweighted.mrc"],
        ),
        (["m1_intg.mrc", "m1_forctf.mrc", "m1_pspec.mrc", "m1_thumb.jpg"], ["m1_intg.mrc"]),  # SIMPLE
        (  # Warp and WarpTools
            [
                *("average/m1.mrc", "average/even/m1.mrc", "odd/m1.mrc", "powerspectrum/m1.mrc"),
                *("thumbnails/m1.png", "deconv/m1.mrc", "mask/m1.tif"),
            ],
            ["average/m1.mrc"],
        ),
        (  # CryoSegNet's data sets
            ["train/images/m1.jpg", "train/masks/m1_mask.jpg", "val/images/m2.jpg", "val/masks/m2.jpg"],
            ["train/images/m1.jpg", "val/images/m2.jpg"],
        ),
        (["m1.mrc", "m1_mask.mrc", "m1_ctf_diag_2D.mrc", "m1_denoised.mrc"], ["m1.mrc"]),
        (["m1_noDW.mrc", "m1_PS.mrc"], ["m1_noDW.mrc"]),  # for want of the weighted one
    ],
)
def test_what_accompanies_a_micrograph_is_left_out_aloud(tmp_path, caplog, files, kept):
    for name in files:
        (tmp_path / "job" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "job" / name).touch()
    for given in (tmp_path / "job", tmp_path / "job" / "**" / "*"):
        caplog.clear()
        assert _names(given) == kept
        assert f"left out {len(files) - len(kept)} images" in caplog.text


@pytest.mark.parametrize(
    "files",
    [
        ["m1_EVN.mrc", "m2_ODD.mrc", "m3_PS.mrc", "m4_noDW.mrc"],
        ["even/m1.mrc", "odd/m2.mrc"],
        ["m1_001.mrc", "m1_002.mrc", "m1_X+1Y-1-1.mrc", "m1.mrc"],
        ["a/m1.mrc", "b/m1_noDW.mrc"],
    ],
)
def test_companions_without_their_micrograph_and_other_exposures_are_picked(tmp_path, files, caplog):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(_names(tmp_path)) == sorted(files)
    assert not caplog.text


def test_companions_that_are_named_are_picked_and_told(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for name in ("m1.mrc", "m1_noDW.mrc", "m1_EVN.mrc"):
        Path(name).touch()
    assert _names("m1.mrc", "m1_noDW.mrc") == ["m1.mrc", "m1_noDW.mrc"]
    assert "accompany another one that is picked too" in caplog.text
    caplog.clear()
    assert _names("*_noDW.mrc") == ["m1_noDW.mrc"]
    Path("m.star").write_text(OPTICS_STAR.format(rows="m1_noDW.mrc 1"))
    assert _names("m.star") == ["m1_noDW.mrc"]
    assert not caplog.text


# -------------------------------------------------------------------------------------------- lists, patterns, home


def test_entries_of_a_star_file_are_names_and_no_patterns(project):
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/*.mrc 1\nmics/x.mrc 1"))
    sources = find_micrographs(["m.star"])
    assert [source.listed_name for source in sources] == ["mics/*.mrc", "mics/x.mrc"]
    Path("m.star").write_text(OPTICS_STAR.format(rows="mics/*.mrc 1"))
    with pytest.raises(InputError, match="none of its 1 entries exists"):
        find_micrographs(["m.star"])


@pytest.mark.parametrize("listed", ["m.star", "@list.txt"])
def test_the_folder_that_a_list_counts_from_is_not_looked_for_in_the_whole_disk(project, monkeypatch, listed):
    asked = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: asked.append(folder) or scan(folder))
    entry = "*/*/*/*/*/*/zzz.mrc"
    Path("m.star").write_text(OPTICS_STAR.format(rows=f"{entry} 1"))
    Path("list.txt").write_text(f"{entry}\n")
    start = time.monotonic()
    with pytest.raises(InputError, match="none of its 1 entries exists"):
        find_micrographs([listed])
    assert len(asked) <= 5000 * (1 + len(Path(project).parents))
    assert time.monotonic() - start < 20
    if listed == "m.star":
        assert not asked


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_have_the_line_ends_of_any_system(project, end):
    content = end.join(["# mine", "mics/x.mrc", "other/y.tif", ""])
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert _names("@list.txt") == ["mics/x.mrc", "other/y.tif"]


def test_a_pattern_may_match_star_files_folders_and_files_that_are_no_images(project, caplog):
    Path("mics/notes.txt").touch()
    assert _names("mics/*") == ["x.mrc"]
    assert "left out 1 files that are no images: mics/notes.txt" in caplog.text
    assert "matches 1 folders too, which are not searched: mics/sub" in caplog.text
    assert _names("oth*") == ["other/x.mrc", "other/y.tif"]
    Path("all.star").write_text(OPTICS_STAR.format(rows="mics/x.mrc 1"))
    assert _names("a*.star") == ["mics/x.mrc"]


def test_a_pattern_does_not_go_round_in_circles(project):
    os.symlink(project / "mics", project / "mics" / "circle")
    assert _names("mics/**/*.mrc") == _names("mics") == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc"]


def test_a_file_reached_by_two_linked_folders_is_one_micrograph(project, caplog):
    os.symlink("mics", "alias")
    assert len(_names("mics", "alias")) == 3
    assert "3 files are reached by two ways and picked once" in caplog.text


def test_a_file_linked_under_another_name_is_picked_twice_aloud(project, caplog):
    os.symlink("x.mrc", "mics/y.mrc")
    assert _names("mics") == ["sub/mit Leer Å.mrc", "sub/x.mrc", "x.mrc", "y.mrc"]
    assert "mics/y.mrc is mics/x.mrc" in caplog.text


def test_a_tilde_is_the_home_folder_in_every_kind_of_input(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    Path("list.txt").write_text("~/mics/x.mrc\n~/oth*/*.tif\n")
    assert _names("~/mics") == _names("mics")
    assert _names("~/mics/*.mrc") == ["x.mrc"]
    assert _names("@~/list.txt") == ["mics/x.mrc", "other/y.tif"]


def test_patterns_of_a_list_count_from_above_it_also_when_the_working_folder_is_huge(project, monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_SEARCHED", 20)
    for k in range(30):
        (Path("other") / f"z{k}").mkdir()
    Path("mics/list.txt").write_text("*/x.mrc\n")
    monkeypatch.chdir("other")
    assert _names("@../mics/list.txt") == ["sub/x.mrc"]


def test_a_row_without_a_name_in_a_star_file_is_told_with_its_line(project):
    (project / "mics.star").write_text('data_\nloop_\n_rlnMicrographName #1\na/x.mrc\n""\n\n')
    with pytest.raises(FormatError, match=r"line 5: rlnMicrographName is empty"):
        find_micrographs(["mics.star"])


def test_a_list_that_is_given_as_a_file_is_told_how_lists_are_given(project):
    (project / "mics.txt").write_text("a/x.mrc\n")
    with pytest.raises(InputError, match=r"given as @mics\.txt"):
        find_micrographs(["mics.txt"])
