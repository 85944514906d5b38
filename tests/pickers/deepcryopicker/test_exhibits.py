"""What a picker leaves for the report: written and read back, drawn from labelled micrographs, shown as HTML."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cryopick.errors import RunFolderError
from cryopick.pages.parts import Curves, Picture, Table
from cryopick.pages.render import render
from cryopick.pickers.deepcryopicker.label_exhibits import as_png, cluster_picture, contact_sheet, label_exhibits
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, SIDE, TOP
from cryopick.pickers.deepcryopicker.self_labels import LabelledImage
from cryopick.pickers.deepcryopicker.windows import HeldOut, training_record
from cryopick.pickers.exhibits import read_exhibits, write_exhibits

ITEMS = (
    Picture(title="Chosen", png=b"\x89PNG..."),
    Table(title="Counts", caption="of <all>", columns=("", "a"), rows=(("b", "3"),)),
    Curves(title="PR", x_label="recall", y_label="precision", lines={"top": ((0.0, 1.0), (1.0, 0.25))}),
)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def labelled(shape_yx=(100, 120)):
    """Four objects: one of each view that is chosen, and one rejected."""
    pixels = np.zeros(shape_yx, np.float32)
    mask = np.zeros(shape_yx, bool)
    mask[20:30, 20:30] = True
    return LabelledImage(
        pixels=pixels,
        mask=mask,
        xy_px=np.array([[25.0, 25], [60, 25], [60, 60], [100, 80]]),
        view=np.array([TOP, SIDE, IRREGULAR, TOP], np.int32),
        reason=np.array(["", "", "", "area"]),
        score=np.array([0.9, 0.8, 0.7, 0.6], np.float32),
    )


def held_out(rng=None):
    rng = rng or np.random.default_rng(0)
    label = rng.integers(0, 4, 300)
    logits = rng.normal(size=(300, 4)) + 2.0 * np.eye(4)[label]
    return HeldOut(label, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def test_exhibits_are_read_back_as_written(tmp_path):
    write_exhibits(tmp_path, "How it went", ITEMS)
    found = read_exhibits(tmp_path)
    assert found.heading == "How it went"
    assert found.items == ITEMS


def test_a_folder_without_exhibits_has_none_and_a_damaged_file_is_named(tmp_path):
    assert read_exhibits(tmp_path) is None
    (tmp_path / "exhibits.json").write_text('{"heading": "x", "items": [{"kind": "film"}]}')
    with pytest.raises(RunFolderError, match=r"exhibits.json: expected"):
        read_exhibits(tmp_path)


def test_the_report_shows_every_kind_and_escapes_text(tmp_path):
    assert render("exhibits.html", exhibits=None).strip() == ""
    write_exhibits(tmp_path, "How <it> went", ITEMS)
    html = render("exhibits.html", exhibits=read_exhibits(tmp_path))
    assert "<h2>How &lt;it&gt; went</h2>" in html
    assert "data:image/png;base64,iVBORy4uLg==" in html
    assert '<td>b</td><td class="n">3</td>' in html
    assert "of &lt;all&gt;" in html
    # recall 0 at precision 1 is the upper left corner of the plot, recall 1 at 0.25 three quarters down its right side
    assert 'points="58.0,26.0 410.0,176.0"' in html


def test_clusters_are_tinted_and_every_object_is_marked_by_what_became_of_it():
    image = labelled()
    picture = cluster_picture(image)
    zoom = picture.shape[0] // 100
    plain = picture[zoom * 90, zoom * 10]
    inside = picture[zoom * 25, zoom * 25]
    assert inside[0] > plain[0]  # red over the mask
    assert inside[1] < plain[1]
    ring = picture[zoom * 25, zoom * 60 - zoom * 10 - zoom : zoom * 60 - zoom * 10 + zoom]  # left edge of a circle
    assert (ring.astype(int)[:, 2] > ring.astype(int)[:, 0] + 50).any()  # blue: a side view
    cross = picture[zoom * 80 - zoom : zoom * 80 + zoom, zoom * 100 - zoom : zoom * 100 + zoom].reshape(-1, 3)
    assert (cross.astype(int)[:, 0] > cross.astype(int)[:, 2] + 100).any()  # amber: rejected


def test_contact_sheet_holds_every_window_in_order():
    windows = [np.full((11, 11), value, np.float32) for value in np.linspace(-3, 3, 14)]
    sheet = contact_sheet(windows)
    assert sheet.shape == (2 * 24 - 2, 8 * 24 - 2)
    assert sheet[5, 5] == 0
    assert sheet[30, 24 * 5 + 5] == 255  # the fourteenth, sixth in the second row
    assert sheet[5, 24 * 5 + 5] == pytest.approx((windows[5][0, 0] / 3 + 1) * 127.5, abs=1)


def test_a_trained_run_shows_clusters_examples_confusion_and_a_curve_for_each_view():
    record = training_record(held_out(), {"top view": 1, "side view": 1, "irregular": 1})
    items = label_exhibits([labelled(), labelled()], record)
    titles = [item.title for item in items]
    assert titles[:2] == ["Clusters of micrograph 1 of 2", "Clusters of micrograph 2 of 2"]
    assert {"Chosen as top view: 2", "Chosen as side view: 2", "Chosen as irregular: 2", "Rejected: area: 2"} <= set(
        titles
    )
    table, curves = items[-2:]
    assert table.columns == ("", "background", "top view", "side view", "irregular")
    assert sum(int(cell) for row in table.rows for cell in row[1:]) == 300
    assert set(curves.lines) == {"top view", "side view", "irregular", "any particle"}
    pictures = [item for item in items if isinstance(item, Picture)]
    assert all(opened(item.png).min() < opened(item.png).max() for item in pictures)


def test_png_keeps_colours():
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[1, 2] = (250, 100, 3)
    np.testing.assert_array_equal(opened(as_png(picture)), picture)


def test_confusion_and_accuracy_of_held_out_windows_are_counted():
    probability = np.eye(4)[[0, 0, 1, 3, 3]]
    judged = HeldOut(np.array([0, 1, 1, 2, 3]), probability)
    np.testing.assert_array_equal(judged.confusion, [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]])
    assert judged.accuracy == pytest.approx(3 / 5)
    assert judged.particle_accuracy == pytest.approx(4 / 5)  # a wrong view is still a particle


def test_curves_of_held_out_windows_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_curve

    judged = held_out()
    curve = np.array(judged.precision_recall()["side view"])
    precision, recall, _ = precision_recall_curve(judged.label == SIDE, judged.probability[:, SIDE])
    expected = {(round(r, 4), round(p, 4)) for r, p in zip(recall, precision, strict=True)}
    assert {tuple(point) for point in curve.tolist()} <= expected
    assert curve[-1].tolist() == [1.0, pytest.approx(np.mean(judged.label == SIDE), abs=1e-4)]
    assert len(curve) == 60
