"""What a shell leaves of `~` and variables on the command line."""

import pytest

from cryopick.cli.options import as_meant
from cryopick.errors import InputError, SettingsError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "me")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--output=~/run", "--output={home}/run"),
        ("~/mics/*.mrc", "{home}/mics/*.mrc"),
        ("-o~/run", "-o{home}/run"),
        ("--weights=~/w.safetensors", "--weights={home}/w.safetensors"),
        ("--set", "--set"),
        ("a~/b", "a~/b"),
        ("--output=a~b", "--output=a~b"),
    ],
)
def test_a_tilde_that_begins_a_path_is_the_home_folder(home, word, meant):
    assert as_meant(["pick", word]) == ["pick", meant.format(home=home)]


@pytest.mark.parametrize("words", [["-o", ""], ["--output="], ["-o", "$SCRATCH/run"], ["--output=${RUN}"]])
def test_an_output_from_a_variable_that_is_not_set_is_refused(home, words):
    with pytest.raises(SettingsError, match="variable"):
        as_meant(["pick", "mics", *words])


def test_a_home_folder_that_does_not_exist_is_told(home):
    with pytest.raises(InputError, match="no home folder for ~no-such-user"):
        as_meant(["pick", "--output=~no-such-user/run"])
