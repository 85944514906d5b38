"""How quick `cryopick view` is in a headless Chromium without a GPU: pictures, threshold, 5,000 micrographs.

    python benchmarks/viewer.py benchmarks/results/viewer.json
    python benchmarks/viewer.py benchmarks/results/viewer.json "5000 micrographs"    # that part alone, measured anew

Times are in ms unless named otherwise; those named `cpu` are of the server's process, and say the same on a busy
machine. `script` is what the page's own code took for a frame. Read the others against `still_frame`, the median time
of a frame of the same page in which nothing changes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browser import chromium, open_page, serving, wait_for

from cryopick.io.coordinates.candidates import candidates_text
from cryopick.io.images.mrc import write_mrc
from cryopick.runs.folder import RunFolder
from cryopick.runs.record import record_text
from cryopick.runs.settings import make_settings
from cryopick.types import Picks
from cryopick.viewer.session import Session
from cryopick.viewer.sources import RunSource
from cryopick.workflows.pick import pick_to_folder

MANY = "5000 micrographs"
SIZES = (("4096", 4096, 1500, 3), ("4096, 5000 picks", 4096, 5000, 2), ("8192", 8192, 1500, 2))
"""Name, side in pixels, candidates a micrograph, micrographs. They are white noise, of which JPEG is largest: 2.4 MB
for 2048 x 2048 pixels, where micrographs of an integrating camera (EMPIAR-10017) take 0.5 MB."""
FRAMES = """
const [count, change, done] = [arguments[0], arguments[1], arguments[arguments.length - 1]];
const act = new Function('n', change), times = [];
const step = (n) => {
  if (n === count) return done(times);
  const start = performance.now();
  act(n);
  requestAnimationFrame(() => requestAnimationFrame(() => { times.push(performance.now() - start); step(n + 1); }));
};
step(0);
"""


def picked(folder: Path, side: int, count: int, *, names: int) -> Path:
    """A run of `names` micrographs of one size with `count` candidates each; picked once, the candidates made up."""
    rng = np.random.default_rng(0)
    for number in range(names):
        path = folder / "mics" / f"m{number}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(-3000, 3000, (side, side), np.int16).astype(np.float32)
        write_mrc(path, pixels, pixel_size_angstrom=1.0)
    settings = make_settings("blob", diameter="150px")
    pick_to_folder([folder / "mics"], folder / "run", settings, workers=1)
    run = RunFolder(folder / "run")
    for record in run.records():
        xy = rng.uniform(0, side - 1, (count, 2))
        score = rng.uniform(0, 1, count).astype(np.float32)
        picks = Picks(xy_px=xy, score=score, diameter_px=np.float32(100), micrograph_name=record.name)
        run.write(run.candidates_path(record.key), candidates_text(picks))
        run.write_record(replace(record, candidate_count=count))
    return folder / "run"


def multiplied(run: Path, count: int) -> None:
    """`count` more records of the first micrograph, whose files are hard links."""
    folder = RunFolder(run)
    first = folder.records()[0]
    for number in range(count):
        key = f"more/x{number:05d}"
        for of in (folder.candidates_path, folder.image_path):
            of(key).parent.mkdir(parents=True, exist_ok=True)
            os.link(of(first.key), of(key))
        record = replace(first, name=f"{key}.mrc", key=key, relion_name=f"{key}.mrc", maps=())
        folder.record_path(key).parent.mkdir(parents=True, exist_ok=True)
        folder.record_path(key).write_text(record_text(record))


def frames(driver: Any, count: int, change: str) -> list[float]:
    """Time from each change to the frame after the one that shows it, ms."""
    # a page under the viewer's policy makes no function of a text, so the change is named, not sent
    return list(
        driver.execute_async_script(FRAMES.replace("new Function('n', change)", f"(n) => {{ {change} }}"), count, "")
    )


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 1), "p95": round(float(np.percentile(values, 95)), 1)}


def page_times(driver: Any) -> dict[str, float]:
    """What the page has taken so far, s."""
    driver.execute_cdp_cmd("Performance.enable", {})
    return {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}


def over_a_slow_line(driver: Any, slider: str) -> dict[str, Any]:
    """50 ms away at 20 Mbit/s: a step of the threshold, the page loaded again, and then its next micrograph, ms."""
    driver.execute_cdp_cmd("Network.enable", {})
    speed = {"offline": False, "latency": 50, "downloadThroughput": 20e6 / 8, "uploadThroughput": 20e6 / 8}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", speed)
    told: dict[str, Any] = {
        "threshold_step": spread(frames(driver, 30, slider + "s.dispatchEvent(new Event('input'))"))
    }
    driver.execute_script("location.reload()")
    time.sleep(0.5)
    wait_for(driver, "document.documentElement.dataset.state === 'sharp'")
    told["overview"] = round(driver.execute_script("return cryopick.firstPicture"))
    time.sleep(4)  # a first page rests for a second before it fetches its neighbour
    driver.execute_script("document.documentElement.dataset.state = 'leaving'; cryopick.list.go(1)")
    wait_for(driver, "document.documentElement.dataset.state === 'sharp'")
    told["next_micrograph"] = round(driver.execute_script("return cryopick.lastOpenMs"))
    without = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", without)
    return told


def look(driver: Any, run: Path, *, micrographs: int, indexed: int) -> dict[str, Any]:
    """Everything that is measured on one run."""
    told: dict[str, Any] = {}
    before = time.process_time()
    session = Session([RunSource(run)], run / "edits")
    told["start_s"] = round(time.process_time() - before, 2)
    with serving(session) as one:
        open_page(driver, one)
        told["overview"] = round(driver.execute_script("return cryopick.firstPicture"))
        told["sharp"] = round(driver.execute_script("return cryopick.lastOpenMs"))
        sizes = "return performance.getEntriesByType('resource').reduce((n, e) => n + e.transferSize, 0)"
        told["bytes_of_first_page"] = driver.execute_script(sizes)
        told["requests_of_first_page"] = driver.execute_script("return performance.getEntriesByType('resource').length")
        told["still_frame"] = spread(frames(driver, 20, ""))
        slider = "const s = document.getElementById('threshold'); s.value = 100 + 40 * (n % 20);"
        told["threshold_step"] = spread(frames(driver, 30, slider + "s.dispatchEvent(new Event('input'))"))
        driver.execute_script("document.getElementById('threshold').dispatchEvent(new Event('change'))")
        driver.execute_script("cryopick.view.zoom(2)")
        told["pan"] = spread(frames(driver, 30, "cryopick.view.pan(n % 2 ? 9 : -9, 4)"))
        driver.execute_script("cryopick.view.fit()")
        nexts = []
        for _ in range(min(4, micrographs - 1)):
            time.sleep(1.5)  # the neighbours are fetched beforehand
            driver.execute_script("document.documentElement.dataset.state = 'leaving'; cryopick.list.go(1)")
            wait_for(driver, "document.documentElement.dataset.state === 'sharp'")
            nexts.append(driver.execute_script("return cryopick.lastOpenMs"))
        told["next_micrograph"] = [round(value) for value in nexts]
        told["slow_line"] = over_a_slow_line(driver, slider)
        if indexed > 100:
            before_scroll = page_times(driver)
            told["scroll"] = spread(frames(driver, 40, "document.getElementById('list').scrollTop = n * 5000"))
            told["scroll_by_a_row"] = spread(frames(driver, 40, "document.getElementById('list').scrollTop = n * 60"))
            told["scroll_script"] = round(
                1000 * (page_times(driver)["ScriptDuration"] - before_scroll["ScriptDuration"]) / 80, 1
            )
            told["still_frame_then"] = spread(frames(driver, 20, ""))
            start = time.monotonic()
            while session.sources[0].indexed < indexed:
                time.sleep(0.5)
            told["index_wall_s_after_the_above"] = round(time.monotonic() - start, 1)
            start_cpu, exact = time.process_time(), []
            for _ in range(9):
                exact.append(
                    driver.execute_async_script(
                        "const [done] = arguments, t = performance.now();"
                        "fetch('/api/r/0/expect?threshold=0.5', {headers: {Authorization: 'Bearer token-of-the-test'}})"
                        ".then((r) => r.arrayBuffer()).then(() => done(performance.now() - t))"
                    )
                )
            told["exact_numbers"] = round(float(np.median(exact)))
            told["exact_numbers_cpu"] = round(1000 * (time.process_time() - start_cpu) / 9, 1)
        told["cpu_s"] = round(time.process_time() - before, 1)
        told["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        driver.get("about:blank")
    return told


def main() -> None:
    from cryopick.evaluation.machine import describe_machine

    parts = [*(name for name, *_ in SIZES), MANY]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="JSON file of the figures")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(map(repr, parts))}; default: all")
    options = parser.parse_args()
    if set(options.parts) - set(parts):
        parser.error(f"parts are {', '.join(map(repr, parts))}, got {options.parts}")
    output, wanted = options.output, options.parts
    results: dict[str, Any] = json.loads(output.read_text("utf-8")) if wanted else {}
    facts = {"machine": asdict(describe_machine()), "load": os.getloadavg()}
    if not wanted:
        results = facts
    with (
        tempfile.TemporaryDirectory() as scratch,
        chromium(Path(scratch) / "profile", width=1400, height=1000) as driver,
    ):
        for name, side, count, names in SIZES:
            if wanted and name not in wanted:
                continue
            run = picked(Path(scratch) / name.replace(", ", "-").replace(" ", "-"), side, count, names=names)
            results[name] = look(driver, run, micrographs=names, indexed=names)
            print(name, json.dumps(results[name]), flush=True)
        if not wanted or MANY in wanted:
            run = picked(Path(scratch) / "many", 1024, 400, names=1)
            multiplied(run, 4999)
            results[MANY] = look(driver, run, micrographs=5000, indexed=5000)
            print(MANY, json.dumps(results[MANY]), flush=True)
    for name in wanted:
        results[name] |= {"load_then": facts["load"]}
    if not wanted:
        results["load_at_end"] = os.getloadavg()
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
