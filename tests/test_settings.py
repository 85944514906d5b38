"""Settings are typed once: texts, TOML values and Python values end as the same thing, and wrong ones are named."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.errors import FormatError, SettingsError
from cryopick.geometry.units import Length, parse_length
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.runs.settings import make_settings, read_config, settings_sections
from cryopick.settings import as_plain, convert, convert_settings, require_choices, settings_of, to_toml
from cryopick.workflows.train import read_plan_file


@dataclass(frozen=True, kw_only=True)
class Example:
    diameter_angstrom: Annotated[float, "how wide"]
    size: Annotated[Length | None, "a length"] = None
    count: Annotated[int, "how many"] = 3
    mode: Annotated[Literal["dark", "bright"], "which"] = "dark"
    is_fast: Annotated[bool, "hurry"] = False
    sizes: Annotated[tuple[float, ...], "several"] = (1.0, 2.0)
    place: Annotated[Path | None, "where"] = None


def test_fields_of_a_dataclass_are_described_as_options() -> None:
    found = {setting.name: (setting.flag, setting.type_name, setting.default_text) for setting in settings_of(Example)}
    assert found == {
        "diameter_angstrom": ("--diameter", "number", "must be given"),
        "size": ("--size", "length", "not set"),
        "count": ("--count", "whole number", "3"),
        "mode": ("--mode", "dark|bright", "dark"),
        "is_fast": ("--is-fast", "true|false", "false"),
        "sizes": ("--sizes", "number,...", "1,2"),
        "place": ("--place", "path", "not set"),
    }


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("180A", Length | None, Length(180, 180, "A")),
        (150, Length, Length(150, 150, "A")),
        ("none", Length | None, None),
        ("3", int, 3),
        (3.0, int, 3),
        ("1e-3", float, 0.001),
        (2, float, 2.0),
        ("yes", bool, True),
        (False, bool, False),
        ("1,2.5", tuple[float, ...], (1.0, 2.5)),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ("bright", Literal["dark", "bright"], "bright"),
        ("a/b", Path | None, Path("a/b")),
        ("0.3", float | Literal["auto"], 0.3),
        ("auto", float | Literal["auto"], "auto"),
    ],
)
def test_values_become_the_type_of_their_field(value: Any, annotation: Any, expected: Any) -> None:
    assert convert(value, annotation, where="x") == expected


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("wide", float, "expected number, got 'wide'"),
        ("2.5", int, "expected whole number"),
        (True, float, "expected number"),
        ("grey", Literal["dark", "bright"], "dark|bright"),
        ("180 parsec", Length | None, "parsec"),
        ("maybe", bool, "true|false"),
        ("inf", int, "whole number"),
    ],
)
def test_a_wrong_value_names_what_was_expected(value: Any, annotation: Any, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        convert(value, annotation, where="--option")
    assert words in str(error.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="no setting wdith; it has: count, diameter_angstrom"):
        convert_settings(Example, {"wdith": 1}, section="example")


plain_values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(st.integers(0, 9)),
)


@given(st.dictionaries(st.sampled_from(["a", "b_c", "d9"]), plain_values))
def test_toml_text_reads_back_as_the_same_values(values: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml({"section": values})) == {"section": values}


def test_toml_text_has_values_before_tables_and_each_list_on_its_line() -> None:
    text = to_toml({"group": {"range": (1.0, 2)}, "size": 3, "other": {"name": 'a "b"', "is_on": True}})
    assert text == 'size = 3\n\n[group]\nrange = [1.0, 2]\n\n[other]\nname = "a \\"b\\""\nis_on = true\n'


def test_every_picker_with_its_defaults_survives_a_config_file(tmp_path: Path) -> None:
    for name in list_pickers():
        required = {s.name for s in settings_of(picker_class(name)) if s.default_text == "must be given"}
        assert not required, f"{name} cannot be made without {required}"
        settings = make_settings(name, diameter="180A", max_count=7)
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(settings_sections(settings)), encoding="utf-8")
        again = make_settings(**read_config(path))
        assert settings_sections(again) == settings_sections(settings)
        assert as_plain(again.picker)["diameter"] == "180A"


def test_every_setting_of_every_picker_has_a_help_sentence() -> None:
    silent = [f"{name} {s.flag}" for name in list_pickers() for s in settings_of(picker_class(name)) if not s.help]
    assert silent == []


def test_no_two_settings_of_a_picker_and_the_run_share_a_flag_with_different_names() -> None:
    from cryopick.geometry.selection import SelectionSettings
    from cryopick.runs.settings import RunSettings

    for name in list_pickers():
        names_of: dict[str, set[str]] = {}
        for cls in (picker_class(name), SelectionSettings, RunSettings):
            for setting in settings_of(cls):
                names_of.setdefault(setting.flag, set()).add(setting.name)
        assert {flag for flag, names in names_of.items() if len(names) > 1} == set()


def test_a_config_section_of_another_picker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[run]\npicker = "blob"\n[template]\nreferences = "x.mrcs"\n')
    with pytest.raises(SettingsError, match=r"\[template\] is not a section"):
        read_config(path)


def test_a_length_given_as_a_range_stays_a_range() -> None:
    assert make_settings("blob", diameter="150-200A").picker.diameter == parse_length("150-200A")


def test_config_files_that_nest_too_deep_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("x = " + "[" * 100_000)
    for read in (read_config, read_plan_file):
        with pytest.raises((SettingsError, FormatError), match=r"config\.toml"):
            read(tmp_path / "config.toml")


def test_fixed_words_take_no_other() -> None:
    require_choices(Example(diameter_angstrom=1.0), where="example")
    with pytest.raises(SettingsError, match="example: mode is 'grey', expected dark or bright"):
        require_choices(Example(diameter_angstrom=1.0, mode="grey"), where="example")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list_pickers())
def test_no_picker_takes_a_word_that_its_settings_do_not_know(name: str) -> None:
    words = [setting.name for setting in settings_of(picker_class(name)) if get_origin(setting.annotation) is Literal]
    for word in words:
        with pytest.raises(SettingsError, match=f"{word}.* 'nonsense'"):
            picker_class(name)(**{word: "nonsense"})


def test_a_config_file_of_a_windows_editor_is_read_and_one_of_another_encoding_is_told(tmp_path: Path) -> None:
    text = '[run]\npicker = "blob"\n\n[blob]\ndiameter = "40px"\n'
    path = tmp_path / "config.toml"
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert read_config(path)["picker"] == "blob"
    path.write_bytes(f"# ö\n{text}".encode("latin-1"))
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        read_config(path)
