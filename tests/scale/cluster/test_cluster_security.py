"""Who may speak to a run's processes, and where its secrets lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryopick.errors import InputError, SettingsError
from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.security import begin_secrets, require_safe_address, security_of


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"])
def test_this_machine_may_be_spoken_to_without_certificates(address: str) -> None:
    assert require_safe_address(address, ClusterSettings()) == "tcp"
    assert security_of(address, ClusterSettings()) is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("tcp://scheduler:8786", "tcp:// is not encrypted and lets anybody run code"),
        ("tcp://10.1.2.3:8786", "another one needs tls://"),
        ("tcp://127.0.0.1.example.org:8786", "another one needs tls://"),
        ("tls://scheduler:8786", "needs the files ca, cert, key"),
        ("tls://scheduler", "expected slurm, local, or a scheduler's tls://HOST:PORT"),
        ("ucx://scheduler:8786", "expected slurm, local"),
        ("scheduler:8786", "expected slurm, local"),
        ("sulrm", "expected slurm, local"),
        ("tls://a:notaport", "expected slurm, local"),
    ],
)
def test_any_other_address_is_an_error(address: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        require_safe_address(address, ClusterSettings())


def test_certificates_that_are_named_must_be_there(tmp_path: Path) -> None:
    settings = ClusterSettings(ca=str(tmp_path / "ca.pem"), cert=str(tmp_path / "c.pem"), key=str(tmp_path / "k.pem"))
    with pytest.raises(InputError, match=r"ca is .*ca\.pem, and there is no such file"):
        security_of("tls://scheduler:8786", settings)


def test_each_run_has_a_key_of_its_own_that_only_this_user_reads(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    keys = set()
    for name in ("one", "two"):
        made = begin_secrets(tmp_path / name / ".cluster", ClusterSettings(), with_certificate=True)
        keys.add(made.key.read_text())
        assert (tmp_path / name / ".cluster").stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in (made.key, made.certificate, made.token_file)] == [0o600] * 3
        made.remove()
        assert not (tmp_path / name / ".cluster").exists()
    assert len(keys) == 2


def test_what_a_killed_run_left_is_replaced_by_the_next(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    settings = ClusterSettings(shared_directory=str(tmp_path / "shared"))
    left = begin_secrets(tmp_path / ".cluster", settings, with_certificate=True)
    old = left.key.read_text()
    made = begin_secrets(tmp_path / ".cluster", settings, with_certificate=True)
    assert made.key.is_relative_to(tmp_path / "shared")
    assert made.key.read_text() != old
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [made.folder.name], "nothing else is left"
    made.remove()
    assert list((tmp_path / "shared").iterdir()) == []
