"""Whatever a user types or a list holds, the answer is a list of micrographs or one of our own errors."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryopick.errors import CryopickError
from cryopick.io.inputs.sources import find_micrographs

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
# Parts that mean something to us, between text that does not
PARTS = st.one_of(
    st.sampled_from(["a.mrc", "sub/", "b.png", "/", "..", ".", *"@#[]?'\" ", "*.mrc", "m.star"]),
    st.text(st.characters(exclude_characters="*"), max_size=6),
)
ANY_ENTRIES = st.lists(PARTS, min_size=1, max_size=5).map("".join)
# Folders are searched, so those above the project are left out: they may be the whole machine
ENTRIES = ANY_ENTRIES.filter(lambda entry: not os.path.isabs(entry) and ".." not in entry and "**" not in entry)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    for name in ("a.mrc", "sub/a.mrc", "sub/c.tif"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _must_answer(given_input):
    try:
        sources = find_micrographs([given_input])
    except CryopickError as error:
        return str(error)
    names = [source.name for source in sources]
    assert len(set(names)) == len(names)
    assert not any(os.path.isabs(name) or ".." in name.split("/") for name in names)
    return ""


@FUZZ
@given(entry=ENTRIES)
def test_any_text_as_an_input(project, entry):
    _must_answer(entry)


@FUZZ
@given(entries=st.lists(ENTRIES, max_size=6))
def test_any_text_in_a_list(project, entries):
    (project / "list.txt").write_text("\n".join(entries), encoding="utf-8", errors="surrogatepass")
    _must_answer("@list.txt")


@FUZZ
@given(entries=st.lists(ANY_ENTRIES, min_size=1, max_size=6))
def test_any_text_in_a_star_file_is_a_name(project, entries):
    rows = "\n".join(f'"{entry}"' for entry in entries)
    text = f"data_\nloop_\n_rlnMicrographName\n{rows}\n"
    (project / "m.star").write_text(text, encoding="utf-8", errors="surrogatepass")
    _must_answer("m.star")


@FUZZ
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_list_or_a_star_file(project, content):
    for name, typed in (("list.txt", "@list.txt"), ("m.star", "m.star")):
        # without entries above the project, as before
        (project / name).write_bytes(content.replace(b"*", b"").replace(b"/", b"").replace(b"..", b""))
        _must_answer(typed)


@FUZZ
@given(rows=st.lists(st.tuples(ANY_ENTRIES, st.sampled_from(["1", "2", "x", "nan", ""])), max_size=4))
def test_any_rows_in_a_micrographs_star_file(project, rows):
    head = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 1.2\n\n"
    body = "\n".join(f"{name} {group}" for name, group in rows)
    text = f"{head}data_micrographs\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{body}\n"
    (project / "m.star").write_text(text, encoding="utf-8", errors="surrogatepass")
    _must_answer("m.star")


def test_a_name_longer_than_file_systems_allow_is_refused_by_name(project):
    (project / "list.txt").write_text("a.mrc\n" + "n" * 5000 + ".mrc\n")
    sources = find_micrographs(["@list.txt"])
    assert len(sources) == 2  # kept, so that reading reports it
    assert "no such file" in _must_answer("n" * 5000)
    assert "no path can hold" in _must_answer("a\0.mrc")
    assert "no path can hold" in _must_answer("@\udd00")
