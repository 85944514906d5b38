"""The tables of a training folder survive what a disk or an editor did to them."""

import csv
import math

import pytest

from cryopick.training.logs import Table

GOOD = "step,loss\n1,0.5\n2,0.4\n3,0.3\n"


@pytest.mark.parametrize(
    "damaged",
    [b"\xff\xfe" + GOOD.encode("utf-16-le"), GOOD.encode().replace(b"step", b"stex"), b"\0" * 40, b"step,step\n1,2\n"],
    ids=["utf-16", "header", "zeros", "double"],
)
def test_a_damaged_table_is_kept_aside_and_begun_anew_aloud(damaged, tmp_path, caplog):
    path = tmp_path / "loss.csv"
    path.write_bytes(damaged)
    Table(path, keep_to_step=2).append({"step": 3, "loss": 0.25})
    assert path.read_text() == "step,loss\n3,0.25\n"
    assert (tmp_path / "loss.damaged.csv").read_bytes() == damaged
    assert "loss.damaged.csv" in caplog.text


def test_a_whole_table_goes_on_after_the_kept_step(tmp_path, caplog):
    path = tmp_path / "loss.csv"
    path.write_text(GOOD + "4,0.")
    Table(path, keep_to_step=2).append({"step": 3, "loss": 0.25})
    assert path.read_text() == "step,loss\n1,0.5\n2,0.4\n3,0.25\n"
    assert not caplog.records


def test_a_value_that_earlier_rows_lack_gets_a_column_of_its_own(tmp_path):
    path = tmp_path / "loss.csv"
    path.write_text("step,lozs\n1,0.5\n")  # a damaged header
    table = Table(path, keep_to_step=2)
    table.append({"step": 2, "loss": 0.4})
    table.append({"step": 3, "loss": 0.3})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["loss"]) for row in rows[1:]] == [0.4, 0.3]
    assert float(rows[0]["lozs"]) == 0.5
    assert math.isnan(float(rows[0]["loss"]))
