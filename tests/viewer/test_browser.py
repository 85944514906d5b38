"""The page in a real Chromium: what is clicked lands where it was clicked, is kept, undone, exported and readable."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Viewer, complaints, open_page, serving, viewer, wait_for, wait_until_still

import cryopick
from cryopick.io.images.mrc import write_mrc
from cryopick.types import Picks
from cryopick.viewer.session import Session
from cryopick.viewer.sources import PicksSource, RunSource
from cryopick.workflows.edits import Journals, Mark, Marks, apply_marks

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Any, run: Path) -> Iterator[tuple[Any, Viewer]]:
    """A browser on a fresh copy of the run; at the end no message may stand in its console."""
    size(browser, 1300, 900)
    requests(browser), complaints(browser)  # what was said of earlier pages
    with serving(Session([RunSource(run)], run / "edits")) as one:
        open_page(browser, one)
        browser.execute_script("localStorage.setItem('cryopick-hinted', '1')")
        browser.execute_script("document.getElementById('hints').hidden = true")
        wait_until_still(browser)
        yield browser, one
        told = complaints(browser)
        browser.get("about:blank")
    assert told == []


def size(driver: Any, width: int, height: int) -> None:
    told = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", told)


def point(driver: Any, x: float, y: float) -> tuple[float, float]:
    """Where a place on the micrograph is in the window."""
    found = driver.execute_script(
        "const [x, y] = cryopick.view.toScreen(arguments[0], arguments[1]);"
        "const box = document.getElementById('over').getBoundingClientRect(); return [x + box.left, y + box.top]",
        x,
        y,
    )
    return found[0], found[1]


def mouse(driver: Any, what: str, x: float, y: float, *, button: str = "left", count: int = 1) -> None:
    told = {
        "type": what,
        "x": x,
        "y": y,
        "button": button,
        "clickCount": count,
        "buttons": int(what != "mouseReleased"),
    }
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", told)


def click(driver: Any, x: float, y: float) -> None:
    sx, sy = point(driver, x, y)
    mouse(driver, "mousePressed", sx, sy)
    mouse(driver, "mouseReleased", sx, sy)


def drag(driver: Any, *places: tuple[float, float]) -> None:
    on_screen = [point(driver, *place) for place in places]
    mouse(driver, "mousePressed", *on_screen[0])
    for (x0, y0), (x1, y1) in itertools.pairwise(on_screen):
        for share in (0.3, 0.7, 1.0):
            mouse(driver, "mouseMoved", x0 + share * (x1 - x0), y0 + share * (y1 - y0))
    mouse(driver, "mouseReleased", *on_screen[-1])


def stroke(driver: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A drag in a single move."""
    mouse(driver, "mousePressed", *point(driver, *start))
    for kind in ("mouseMoved", "mouseReleased"):
        mouse(driver, kind, *point(driver, *end))


def press(driver: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    driver.execute_script("document.getElementById('over').focus()")
    ActionChains(driver).send_keys(key).perform()


def saved(driver: Any) -> dict[str, Any]:
    """The marks of the open micrograph once they are on the disk."""
    wait_for(driver, "document.documentElement.dataset.saved === 'yes' && !cryopick.isSending")
    return dict(driver.execute_script("return cryopick.open.state"))


def picks(driver: Any) -> list[dict[str, Any]]:
    return list(
        driver.execute_script("return cryopick.open.picks.map((p) => ({...p, score: p.score || 0, d: 0, power: 0}))")
    )


def zoom(driver: Any, scale: float, x: float, y: float) -> None:
    driver.execute_script(
        "const v = cryopick.view; v.zoom(arguments[0] / v.scale); v.left = arguments[1] + 0.5 - v.width / v.scale / 2;"
        "v.top = arguments[2] + 0.5 - v.height / v.scale / 2; v.isFitted = false; v.changed()",
        scale,
        x,
        y,
    )


def journal(run: Path, driver: Any) -> Marks:
    name = driver.execute_script("return cryopick.table.name[cryopick.number]")
    key = next(row.key for row in RunSource(run).rows if row.name == name)
    return Journals(run / "edits").read(key).marks


def test_python_and_the_page_make_the_same_of_marks(page: tuple[Any, Viewer]):
    driver, _ = page
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for _case in range(200):
        n = int(rng.integers(0, 25))
        # half of the places stand on a grid of 0.3 diameters, so that distances are often exactly the limit
        xy = np.where(
            rng.random((n, 2)) < 0.5, 6.0 * rng.integers(0, 20, (n, 2)), rng.uniform(-5, 125, (n, 2)).round(3)
        )
        score = rng.choice([0.1, 0.3, 0.5, 0.7, np.nan], n).astype(np.float32)
        power = rng.choice([0.5, 1.0, 2.0, np.nan], n).astype(np.float32)
        reason = rng.choice(["", "", "", "edge"], n)
        placed: dict[str, Mark] = {}
        for number in range(int(rng.integers(0, 6))):
            kind = str(rng.choice(["yes", "no", "junk"]))
            x, y = (6.0 * rng.integers(0, 20, 2)).tolist()
            corners = tuple((float(a), float(b)) for a, b in rng.integers(0, 120, (5, 2))) if kind == "junk" else ()
            placed[f"m{number}"] = Mark(
                kind=kind, x=x, y=y, diameter_px=20.0 if kind == "yes" else None, points=corners
            )
        cut = {
            "threshold": float(rng.choice([0.3, 0.5, 0.65])),
            "low": float(rng.choice([0.0, 1.0])),
            "belief": float(rng.choice([1.0, 0.9])),
        }
        candidates = Picks(xy_px=xy, score=score, diameter_px=np.float32(20), reason=reason, micrograph_name="m")
        kept = apply_marks(
            candidates,
            Marks(by_id=placed),
            threshold=cut["threshold"],
            diameter_px=20.0,
            power=power,
            power_limits=(cut["low"], 3.0),
            belief=cut["belief"],
        )
        expected.append(
            [
                [float(np.float32(x)), float(np.float32(y)), None if np.isnan(s) else float(s)]
                for (x, y), s in zip(kept.xy_px, kept.score, strict=True)
            ]
        )
        columns = {"x": xy[:, 0].tolist(), "y": xy[:, 1].tolist(), "score": score.tolist(), "power": power.tolist()}
        cases.append(
            {
                "columns": {name: [None if np.isnan(v) else v for v in column] for name, column in columns.items()},
                "reason": (reason != "").astype(int).tolist(),
                "marks": {
                    name: {"kind": m.kind, "x": m.x, "y": m.y, "d": m.diameter_px, "points": m.points}
                    for name, m in placed.items()
                },
                "cut": {**cut, "high": 3.0},
            }
        )
    driver.set_script_timeout(60)
    found = driver.execute_async_script(
        """
        const [cases, done] = arguments;
        import('/static/model.js').then(({applyMarks}) => done(cases.map((one) => {
          const c = {n: one.reason.length, reason: one.reason, diameter: one.reason.map(() => 20)};
          for (const [name, column] of Object.entries(one.columns))
            c[name] = Float32Array.from(column, (v) => v === null ? NaN : v);
          const {picks} = applyMarks(c, one.marks, one.cut, 20);
          return picks.map((p) => [Math.fround(p.x), Math.fround(p.y), Number.isNaN(p.score) ? null : p.score]);
        })));
        """,
        cases,
    )
    assert sum(map(len, expected)) > 500
    for number, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        assert theirs == ours, cases[number]


@pytest.mark.parametrize("scale", [None, 9.0, 16.0])
def test_a_click_a_drag_and_a_delete_land_where_they_were_made(
    page: tuple[Any, Viewer], run: Path, scale: float | None
):
    driver, one = page
    size(driver, 1000 if scale == 9.0 else 1300, 700)  # the toolbar wraps, and the canvas moves under the pointer
    time.sleep(0.3)
    if scale is not None:
        zoom(driver, scale, 60, 70)
    before = picks(driver)
    click(driver, 50.0, 60.0)
    (added,) = saved(driver)["marks"].values()
    exact = 1.0 / driver.execute_script("return cryopick.view.scale")
    assert added["kind"] == "yes"
    assert (added["x"], added["y"]) == pytest.approx((50.0, 60.0), abs=exact)
    drag(driver, (added["x"], added["y"]), (65.0, 75.0))
    (moved,) = [mark for mark in saved(driver)["marks"].values() if mark["kind"] == "yes"]
    assert (moved["x"], moved["y"]) == pytest.approx((65.0, 75.0), abs=2 * exact)
    assert len(picks(driver)) == len(before) + 1
    click(driver, moved["x"], moved["y"])
    press(driver, "x")
    assert [mark for mark in saved(driver)["marks"].values() if mark["kind"] == "yes"] == []
    on_disk = journal(run, driver)
    open_page(driver, one)
    assert set(saved(driver)["marks"]) == set(on_disk.by_id)


def test_a_candidate_that_is_removed_comes_back_by_undo_also_after_a_reload(page: tuple[Any, Viewer]):
    driver, one = page
    before = picks(driver)
    target = min((p for p in before if 20 < p["x"] < 140 and 20 < p["y"] < 100), key=lambda p: p["x"])
    click(driver, target["x"], target["y"])
    press(driver, "x")
    assert len(picks(driver)) == len(before) - 1
    saved(driver)
    open_page(driver, one)
    assert len(picks(driver)) == len(before) - 1
    assert driver.execute_script("return document.getElementById('undoable').textContent") == "undo: removed"
    driver.find_element("id", "undo").click()
    saved(driver)
    wait_for(driver, f"cryopick.open.picks.length === {len(before)}")
    driver.find_element("id", "redo").click()
    wait_for(driver, f"cryopick.open.picks.length === {len(before) - 1}")


HOLD_READINGS = """
const fetched = window.fetch, held = window.held = [];
window.fetch = async (address, options) => {
  const answer = await fetched(address, options);
  if (!String(address).endsWith(`/m/${cryopick.number}/marks`) || (options?.method ?? 'GET') !== 'GET') return answer;
  await new Promise((resolve) => held.push(resolve));
  return answer;
};
window.release = () => { window.fetch = fetched; for (const one of held) one(); };
"""
SEEN_WHILE_RELEASED = """
window.looks = 0; window.fewest = Infinity;
const look = () => {
  window.looks += 1;
  window.fewest = Math.min(window.fewest, cryopick.open.picks.filter((p) => p.mark).length);
  setTimeout(look, 4);
};
look();
window.release();
"""


def test_a_reading_of_the_marks_that_a_later_edit_overtook_takes_nothing_back(page: tuple[Any, Viewer]):
    driver, _ = page
    driver.execute_script(HOLD_READINGS)
    click(driver, 30.0, 110.0)
    wait_for(driver, "window.held.length > 0")  # the page heard of an edit, its own, and asks for the marks
    click(driver, 60.0, 110.0)
    saved(driver)
    driver.execute_script(SEEN_WHILE_RELEASED)
    wait_for(driver, "window.looks > 50")
    assert driver.execute_script("return window.fewest") == 2


def test_the_eraser_and_the_lasso_take_what_is_under_them_as_one_action(page: tuple[Any, Viewer]):
    driver, _ = page
    for x in (30.0, 60.0, 90.0):
        click(driver, x, 110.0)
    saved(driver)
    count = len(picks(driver))
    press(driver, "2")
    drag(driver, (20.0, 110.0), (60.0, 110.0), (100.0, 110.0))
    saved(driver)
    assert len(picks(driver)) <= count - 3
    assert driver.execute_script("return document.getElementById('undoable').textContent").startswith("undo: erased")
    driver.find_element("id", "undo").click()
    wait_for(driver, f"cryopick.open.picks.length === {count}")
    stroke(driver, (20.0, 110.0), (100.0, 110.0))
    saved(driver)
    assert len(picks(driver)) <= count - 3, "a quick stroke, of which only its ends are seen, takes what lies between"
    driver.find_element("id", "undo").click()
    wait_for(driver, f"cryopick.open.picks.length === {count}")
    press(driver, "3")
    drag(driver, (15.0, 100.0), (75.0, 100.0), (75.0, 118.0), (15.0, 118.0))
    saved(driver)
    left = {round(p["x"]) for p in picks(driver) if p.get("mark")}
    assert left == {90}


def test_a_ring_stands_within_a_quarter_pixel_of_its_particle_at_sixteen_times(browser: Any, tmp_path: Path):
    pixels = np.full((200, 300), 100.0)
    rows, columns = np.mgrid[:200, :300]
    pixels -= 60 * np.exp(-((rows - 90) ** 2 + (columns - 141) ** 2) / 4.5)  # no single pixel, which would be mended
    write_mrc(tmp_path / "dot.mrc", pixels.astype(np.float32), pixel_size_angstrom=1.0)
    (tmp_path / "dot.csv").write_text("x,y,diameter\n141,90,9\n")
    source = PicksSource(tmp_path / "dot.csv", [str(tmp_path / "dot.mrc")])
    size(browser, 1300, 900)
    with serving(Session([source], tmp_path / "edits")) as one:
        open_page(browser, one)
        zoom(browser, 16.0, 141, 90)
        time.sleep(0.3)
        ring, dot = browser.execute_script(CENTRES)
        browser.get("about:blank")
    assert np.hypot(ring[0] - dot[0], ring[1] - dot[1]) <= 0.25


CENTRES = """
const [sx, sy] = cryopick.view.toScreen(141, 90);
const centre = (canvas, weight) => {
  const {data, width} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0, x = 0, y = 0;
  for (let k = 0; k < data.length; k += 4) {
    const a = k / 4 % width + 0.5, b = Math.floor(k / 4 / width) + 0.5;
    if (Math.hypot(a - sx, b - sy) > 100) continue;
    const w = weight(data, k);
    sum += w; x += w * a; y += w * b;
  }
  return [x / sum, y / sum];
};
return [centre(document.getElementById('over'), (d, k) => d[k + 3]),
  centre(document.getElementById('image'), (d, k) => d[k] < 128 ? 1 : 0)];
"""


def test_two_pages_see_each_others_edits(page: tuple[Any, Viewer]):
    driver, one = page
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        size(driver, 1300, 900)
        open_page(driver, one)
        click(driver, 50.0, 110.0)
        saved(driver)
        second = driver.current_window_handle
        driver.switch_to.window(first)
        wait_for(driver, "Object.keys(cryopick.open.state.marks).length === 1", seconds=6)
        driver.switch_to.window(second)
    finally:
        driver.close()
        driver.switch_to.window(first)


def test_a_killed_viewer_loses_no_edit_and_the_page_sends_what_was_not_saved(browser: Any, run: Path):
    size(browser, 1300, 900)
    with viewer([run]) as one:
        open_page(browser, one)
        for x in (20.0, 45.0, 70.0):
            click(browser, x, 112.0)
        saved(browser)
        one.kill()
        click(browser, 95.0, 112.0)  # not acknowledged
        wait_for(browser, "!document.getElementById('banner').hidden")
        wait_for(browser, "document.getElementById('banner').textContent.includes('1 edit is not saved')")
        assert "not connected" in browser.find_element("id", "banner").text
    assert {round(mark.x) for mark in journal(run, browser).of_kind("yes")} == {20, 45, 70}
    with viewer([run], port=one.port) as again:  # a restart has another token, so the page is opened by its new link
        open_page(browser, again)
        saved(browser)
        assert {round(mark.x) for mark in journal(run, browser).of_kind("yes")} == {20, 45, 70, 95}
        browser.get("about:blank")


def test_the_slider_moves_rings_and_numbers_without_a_request_and_the_exact_ones_follow(
    page: tuple[Any, Viewer], run: Path
):
    driver, _ = page
    wait_for(driver, "cryopick.curve && cryopick.exact && cryopick.indexed[0] === 3")
    wait_for(driver, "[...cryopick.cache.values()].filter((one) => one.base.size).length === 2")  # the neighbour, too
    driver.get_log("performance")
    counts = driver.execute_script(
        """
        const slider = document.getElementById('threshold'), seen = [];
        for (const value of [100, 400, 700, 950]) {
          slider.value = value;
          slider.dispatchEvent(new Event('input'));
          const told = document.getElementById('numbers').textContent;
          seen.push([cryopick.cut.threshold, cryopick.open.picks.length, told]);
        }
        slider.dispatchEvent(new Event('change'));
        return seen;
        """
    )
    asked = [
        one
        for one in requests(driver)
        if "/api/r/0/expect" not in one and "/api/view" not in one and "changes" not in one
    ]
    assert asked == []
    assert [count for _, count, _ in counts] == sorted((count for _, count, _ in counts), reverse=True)
    assert all("~" in text for _, _, text in counts)
    wait_for(driver, "cryopick.exact && !document.getElementById('numbers').textContent.includes('~')")
    threshold = driver.execute_script("return cryopick.cut.threshold")
    kept = driver.execute_script("return cryopick.exact.kept")
    assert kept == cryopick.rethreshold(run, threshold).particles


def requests(driver: Any) -> list[str]:
    """Addresses asked for since this was asked last."""
    messages = [json.loads(one["message"])["message"] for one in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def test_names_are_text_and_nothing_leaves_this_machine(page: tuple[Any, Viewer]):
    driver, one = page
    for _step in range(2):
        press(driver, "n")
        time.sleep(0.2)
    wait_for(driver, "document.documentElement.dataset.state === 'sharp'")
    assert "hacked" not in driver.title
    assert "<img" in driver.find_element("id", "list").text
    open_page(driver, one)
    addresses = {url.split("/")[2] for url in requests(driver) if url.startswith("http")}
    assert addresses == {f"127.0.0.1:{one.port}"}
    assert one.token not in driver.current_url


def test_the_token_of_another_start_is_told_in_words(page: tuple[Any, Viewer]):
    driver, one = page
    driver.execute_script("localStorage.setItem('cryopick-token', 'of-yesterday')")
    driver.get(one.address)
    wait_for(driver, "document.documentElement.dataset.state === 'failed'")
    assert "open the new link" in driver.find_element("id", "banner").text
    assert all("401" in one for one in complaints(driver))


def test_an_export_is_written_from_the_page(page: tuple[Any, Viewer], run: Path):
    driver, _ = page
    click(driver, 50.0, 110.0)
    saved(driver)
    driver.find_element("id", "export").click()
    wait_for(driver, "document.getElementById('export-start')")
    driver.find_element("id", "export-start").click()
    count = int(wait_for(driver, "document.documentElement.dataset.exported"))
    assert sum(map(len, cryopick.read_picks(run / "edited" / "particles.star").values())) == count
    assert "autopick.star" in driver.find_element("id", "export-told").text


def test_every_control_has_a_name_and_every_action_a_key_and_a_button(page: tuple[Any, Viewer]):
    driver, _ = page
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "textbox", "searchbox", "slider", "combobox", "checkbox", "listbox", "application")
    controls = [node for node in tree if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    assert len(controls) > 30
    assert [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")] == []
    press(driver, "?")
    wait_for(driver, "document.getElementById('dialog').open")
    assert driver.execute_script("return document.querySelectorAll('#dialog tbody tr').length") > 30


CONTRAST = """
const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
const poor = [];
for (const element of document.querySelectorAll('body *')) {
  if (!element.offsetParent || !hasText(element) || element.disabled || element.closest('#stage')) continue;
  let back = element, colour;
  do {
    colour = numbers(getComputedStyle(back).backgroundColor);
    back = back.parentElement;
  } while (back && colour.length === 4 && colour[3] === 0);
  const a = light(numbers(getComputedStyle(element).color)), b = light(colour);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
}
return poor;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_nothing_is_wider_than_a_phone(page: tuple[Any, Viewer], scheme: str):
    driver, _ = page
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    wait_for(driver, f"document.documentElement.dataset.scheme === '{scheme}'")
    assert driver.execute_script(CONTRAST) == []
    size(driver, 420, 900)
    time.sleep(0.2)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 420
