"""STAR syntax: what is in the file comes out, what cannot be read names its line, RELION reads what we write."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.errors import FormatError, InputError
from cryopick.io.star import make_table, quoted, read_star, star_text, write_star

RELION_30 = """
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
 1042.500000    33.000000
# a comment among the rows
   17.000000   980.250000

"""

RELION_31 = """
# version 30001

data_optics

loop_ 
_rlnOpticsGroupName #1 
_rlnOpticsGroup #2 
_rlnMicrographPixelSize #3 
"first day"            1     1.350000 
second                 2     0.675000 
 

# version 30001

data_particles

loop_ 
_rlnMicrographName #1 
_rlnCoordinateX #2 
_rlnOpticsGroup #3 
'a b.mrc' 10 1
it's.mrc 11 2
"" 12 2
 
"""  # noqa: W291, W293  # RELION itself ends lines with blanks


def write(tmp_path: Path, text: str, name: str = "file.star") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def test_rows_of_a_30_file_come_out_as_numbers_with_their_line_numbers(tmp_path: Path) -> None:
    table = read_star(write(tmp_path, RELION_30))[""]
    assert table.floats("rlnCoordinateX").tolist() == [1042.5, 17]
    assert table.floats("rlnCoordinateY").tolist() == [33, 980.25]
    assert list(table.line_numbers) == [7, 9]


def test_tables_of_a_31_file_come_out_by_name_with_quotes_removed(tmp_path: Path) -> None:
    tables = read_star(write(tmp_path, RELION_31))
    assert list(tables) == ["optics", "particles"]
    assert list(tables["optics"].text("rlnOpticsGroupName")) == ["first day", "second"]
    assert list(tables["particles"].text("rlnMicrographName")) == ["a b.mrc", "it's.mrc", ""]
    assert tables["particles"].ints("rlnOpticsGroup").tolist() == [1, 2, 2]


def test_windows_line_ends_and_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    plain = read_star(write(tmp_path, RELION_31))
    windows = read_star(write(tmp_path, "\ufeff" + RELION_31.replace("\n", "\r\n"), "windows.star"))
    assert {n: dict(t.columns) for n, t in plain.items()} == {n: dict(t.columns) for n, t in windows.items()}


def test_label_value_block_is_one_row(tmp_path: Path) -> None:
    table = read_star(write(tmp_path, "data_job\n\n_rlnJobTypeLabel   relion.autopick\n_rlnJobIsContinue 0 #2\n"))[
        "job"
    ]
    assert not table.is_loop
    assert list(table.text("rlnJobTypeLabel")) == ["relion.autopick"]
    assert table.ints("rlnJobIsContinue").tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data_ block"),
        ("hello\n", "line 1: expected data_"),
        ("data_\nloop_\n_x\n_y\n1 2\n3\n", r"line 6 \(row 2 of data_\): 1 values, expected 2 \(x, y\)"),
        ("data_\nloop_\n_x\n1\n\n2\n", "line 6: '2' stands outside any table"),
        ("data_\nloop_\n_x\n_x\n1 2\n", "label _x twice"),
        ("data_\nloop_\n_x\n1\n\ndata_\nloop_\n_y\n1\n", "line 6: second block"),
        ("data_\nloop_\n", "no labels"),
        ("data_\n_x\n", "line 2: expected a label and one value"),
        ("data_\x00", "binary"),
    ],
)
def test_malformed_file_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_star(write(tmp_path, text))
    assert "file.star" in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "1,5", "inf", "abc", "<NA>"])
def test_bad_number_names_file_line_row_column_value_and_remedy(tmp_path: Path, value: str) -> None:
    table = read_star(write(tmp_path, f"data_\nloop_\n_rlnCoordinateX\n1.5\n{value}\n"))[""]
    with pytest.raises(FormatError) as caught:
        table.floats("rlnCoordinateX")
    for part in ("file.star", "line 5", "row 2", "rlnCoordinateX", value, "fix or delete the row"):
        assert part in str(caught.value)


def test_fraction_is_no_whole_number_and_missing_column_lists_the_others(tmp_path: Path) -> None:
    table = read_star(write(tmp_path, "data_\nloop_\n_a\n_b\n1.0 1.5\n"))[""]
    assert table.ints("a").tolist() == [1]
    with pytest.raises(FormatError, match="expected a whole number"):
        table.ints("b")
    with pytest.raises(FormatError, match="no column c; its columns: a, b"):
        table.floats("c")


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.star"):
        read_star(tmp_path / "absent.star")


def test_text_has_version_labels_and_lf_only() -> None:
    text = star_text([make_table("particles", {"rlnX": np.array([1.5, 2]), "rlnName": ["a b", ""]})], version=30001)
    assert text == '\n# version 30001\n\ndata_particles\n\nloop_\n_rlnX #1\n_rlnName #2\n1.5 "a b"\n2 ""\n\n'


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_star_cannot_hold_is_refused_not_written(bad: float) -> None:
    with pytest.raises(FormatError, match="row 2"):
        make_table("", {"rlnX": np.array([1, bad])})


words = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.tuples(words, floats, st.integers(-(10**9), 10**9)), max_size=8))
def test_any_table_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    texts, numbers, integers = [list(column) for column in zip(*rows, strict=True)] if rows else ([], [], [])
    path = tmp_path_factory.mktemp("star") / "any.star"
    try:
        columns = {"t": texts, "f": np.array(numbers, dtype=np.float32), "i": np.array(integers, dtype=np.int64)}
        table = make_table("any", columns)
    except FormatError:  # only for names with blanks and both kinds of quotes
        assert any("'" in text and '"' in text for text in texts)
        return
    write_star(path, [table])
    again = read_star(path)["any"]
    assert list(again.text("t")) == texts
    assert again.floats("f").astype(np.float32).tolist() == numbers
    assert again.ints("i").tolist() == integers


def test_plain_words_are_not_quoted_and_syntax_is() -> None:
    assert [quoted(text) for text in ("a.mrc", "a#b", "data_1.mrc", "#1", "_x", "a b")] == [
        "a.mrc",
        "a#b",
        '"data_1.mrc"',
        '"#1"',
        '"_x"',
        '"a b"',
    ]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="needs RELION's relion_star_handler")
def test_relion_reads_our_tables_with_blanks_in_names(tmp_path: Path) -> None:
    group = {"rlnOpticsGroupName": ["g 1"], "rlnOpticsGroup": [1], "rlnMicrographPixelSize": [1.5]}
    physics = {"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]}
    optics = make_table("optics", {**group, **physics})
    names = ["dir one/m 1.mrc", "it's.mrc", "ö#x.mrc"]
    columns = {
        "rlnMicrographName": names,
        "rlnCoordinateX": np.array([10.125, 20, 30]),
        "rlnOpticsGroup": np.array([1, 1, 1]),
    }
    write_star(tmp_path / "in.star", [optics, make_table("particles", columns)], version=30001)
    command = [
        "relion_star_handler",
        "--i",
        "in.star",
        "--o",
        "out.star",
        "--select",
        "rlnCoordinateX",
        "--minval",
        "15",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    kept = read_star(tmp_path / "out.star")["particles"]
    assert list(kept.text("rlnMicrographName")) == names[1:]
    assert kept.floats("rlnCoordinateX").tolist() == [20, 30]


@pytest.mark.parametrize("names", [["a/m1.mrc", "data_b/m2.mrc", "data_b/m3.mrc"], ["data_b", "loop_x"], ["data_b/m"]])
def test_rows_of_a_loop_may_begin_with_data_as_for_relion(tmp_path: Path, names: list[str]) -> None:
    text = "\ndata_\n\nloop_\n_rlnMicrographName #1\n" + "\n".join(names) + "\n\n"
    assert list(read_star(write(tmp_path, text))[""].text("rlnMicrographName")) == names


def test_blocks_that_follow_without_a_blank_line_are_two(tmp_path: Path) -> None:
    for columns, row in (("_a\n", "1"), ("_a\n_b\n", "1 2")):
        tables = read_star(write(tmp_path, f"data_x\nloop_\n{columns}{row}\ndata_y\n\nloop_\n_c\n3\n"))
        assert [len(table) for table in tables.values()] == [1, 1]
        assert list(tables) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_\nloop_\n_x\na.mrc\n\ndata_b/m2.mrc\n", "line 6: 'data_b/m2.mrc' stands outside any table"),
        ("data_\nloop_\n_x\n_y\na 1\n\ndata_b 2\n", "line 7: 'data_b' stands outside any table"),
        ("data_\nloop_\n_x\n_m1.mrc\n_m2.mrc\n", "line 4: '_m1.mrc' begins with _ as only labels do"),
        ("data_\nloop_\n_x\n_y\n_m1 1\n", "line 5: '_m1 1' begins with _"),
        ("data_\nloop_\n_x\n_y\n1 2\ndata_b/m2.mrc\n", r"line 6 \(row 2 of data_\): 1 values, expected 2"),
        ("data_\n_x 1\n_x 2\n", "line 3: block data_ has '_x' twice"),
        ("data_\n_x 1\nloop_\n_y\n2\n", "line 3: loop_ after single values"),
    ],
)
def test_rows_that_would_be_lost_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_star(write(tmp_path, text))


@pytest.mark.parametrize("line_end", ["\r", "\r\n", "\r\r\n"])
def test_line_ends_of_other_systems_change_nothing(tmp_path: Path, line_end: str) -> None:
    plain, other = (read_star(write(tmp_path, RELION_31.replace("\n", end), "x.star")) for end in ("\n", line_end))
    assert {n: dict(t.columns) for n, t in plain.items()} == {n: dict(t.columns) for n, t in other.items()}


def test_text_in_utf_16_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x.star").write_bytes(RELION_30.encode("utf-16"))
    with pytest.raises(FormatError, match="UTF-16, expected a STAR file in UTF-8"):
        read_star(tmp_path / "x.star")


@pytest.mark.parametrize("word", ['"a ', "'a ", "\"a 'b "])
def test_unclosed_quotes_cost_time_in_proportion_to_the_line(tmp_path: Path, word: str) -> None:
    """100,000 words took an hour when every quote was searched for to the end of the line."""
    path = write(tmp_path, "data_\nloop_\n_x\n" + word * 100_000 + "\n")
    start = time.process_time()
    with pytest.raises(FormatError, match="00000 values, expected 1"):
        read_star(path)
    assert time.process_time() - start < 20


def test_only_blanks_of_ascii_divide_words(tmp_path: Path) -> None:
    names = ["a\u00a0b.mrc", "a\u3000b.mrc"]
    text = "data_\nloop_\n_x\n" + "\n".join(names) + "\n"
    assert list(read_star(write(tmp_path, text))[""].text("x")) == names


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="needs RELION's relion_star_handler")
def test_relion_takes_rows_that_begin_with_data_for_rows(tmp_path: Path) -> None:
    physics = {"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]}
    group = {"rlnOpticsGroupName": ["g"], "rlnOpticsGroup": [1], "rlnMicrographPixelSize": [1.5], **physics}
    optics = star_text([make_table("optics", group)], version=30001)
    names = ["a/m1.mrc", "data_b/m2.mrc", "data_b/m3.mrc"]
    labels = "_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnOpticsGroup #3\n"
    rows = "".join(f"{name} {k} 1\n" for k, name in enumerate(names))
    path = write(tmp_path, f"{optics}\ndata_particles\n\nloop_\n{labels}{rows}\n", "in.star")
    command = ["relion_star_handler", "--i", "in.star", "--o", "out.star", "--select", "rlnCoordinateX"]
    subprocess.run([*command, "--minval", "0"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    for file in (path, tmp_path / "out.star"):
        assert list(read_star(file)["particles"].text("rlnMicrographName")) == names
