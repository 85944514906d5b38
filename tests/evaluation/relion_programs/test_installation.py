"""RELION is found, of the version it says, and MPI gets the options that it needs there."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_relion import MPICH, OPEN_MPI, VERSIONS, install, write_program

from cryopick.errors import InputError
from cryopick.evaluation.relion_programs import find_relion, mpi_command, require_relion

WORDS = ["/opt/relion_refine_mpi", "--i", "p.star"]


@pytest.mark.parametrize(
    ("version", "said"), [("3.1", "3.1.3"), ("4", "4.0.1-commit-ex417f"), ("5", "5.0.0-commit-90d239")]
)
def test_the_version_is_what_the_program_says(tmp_path: Path, version: str, said: str) -> None:
    install(tmp_path, "relion_refine", version=version)
    found = find_relion(search_path=str(tmp_path))
    assert found is not None
    assert (found.version, found.said, found.mpirun) == (version, said, None)


def test_nothing_on_the_path_is_none_and_a_missing_program_is_named(tmp_path: Path) -> None:
    assert find_relion(search_path=str(tmp_path)) is None
    install(tmp_path, "relion_refine")
    with pytest.raises(InputError, match=r"relion_postprocess: not found on the PATH; install RELION.*embedded"):
        require_relion(["relion_refine", "relion_postprocess"], search_path=str(tmp_path))
    found = find_relion(search_path=str(tmp_path))
    assert found is not None
    with pytest.raises(InputError, match=r"relion_reconstruct: not on the PATH, though RELION 3\.1\.3 is"):
        found.path("relion_reconstruct")


@pytest.mark.parametrize("text", ["RELION version: 2.1", "RELION version: 6.0", "some other program"])
def test_another_version_or_program_is_refused_with_its_own_words(tmp_path: Path, text: str) -> None:
    write_program(tmp_path, "relion_refine", f"print({text!r})")
    with pytest.raises(InputError, match=r"expected"):
        find_relion(search_path=str(tmp_path))


def test_open_mpi_gets_its_options_and_another_mpi_none(tmp_path: Path) -> None:
    install(tmp_path / "a", "relion_refine", mpirun=OPEN_MPI)
    ours = find_relion(search_path=str(tmp_path / "a"))
    assert ours is not None
    start = [str(tmp_path / "a" / "mpirun"), "-n", "3", "--bind-to", "none"]
    cores = ours.usable_cores
    most = [] if cores >= 3 else ["--oversubscribe"]
    assert mpi_command(ours, WORDS, ranks=3, is_root=False) == [*start, *most, *WORDS]
    assert "--allow-run-as-root" in mpi_command(ours, WORDS, ranks=3, is_root=True)
    assert "--oversubscribe" in mpi_command(ours, WORDS, ranks=cores + 1, is_root=False)
    install(tmp_path / "b", "relion_refine", mpirun=MPICH)
    other = find_relion(search_path=str(tmp_path / "b"))
    assert other is not None
    assert mpi_command(other, WORDS, ranks=99, is_root=True) == [str(tmp_path / "b" / "mpirun"), "-n", "99", *WORDS]


def test_no_mpirun_is_said_before_anything_starts(tmp_path: Path) -> None:
    install(tmp_path, *("relion_refine", "relion_refine_mpi"), version="4")
    relion = find_relion(search_path=str(tmp_path))
    assert relion is not None
    with pytest.raises(InputError, match=r"mpirun: not on the PATH.*install Open MPI"):
        mpi_command(relion, WORDS, ranks=3)


def test_versions_here_are_those_that_are_told_apart() -> None:
    assert set(VERSIONS) == {"3.1", "4", "5"}
