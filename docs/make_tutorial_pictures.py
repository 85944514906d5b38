"""Make the pictures of the tutorials, from the commands on their pages: make_tutorial_pictures.py docs/images [WORK].

Walks docs/tutorial-pick.md in an empty folder, takes pictures of the report and of the viewer with the browser of the
tests, and draws the classes of a finished docs/tutorial-relion.md where WORK holds one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import cv2
import numpy as np
from browser import chromium, open_page, serving
from walked import walk

from cryopick.io.images.mrc import read_mrc_stack
from cryopick.viewer.session import Session
from cryopick.viewer.sources import RunSource

PAGES = Path(__file__).parent
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 80]
CLASSES = "session/Class2D/cryopick/run_it015_classes.mrcs"


def main() -> None:
    output = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else Path(scratch) / "work"
        if not (work / "run1").is_dir():
            walk(PAGES / "tutorial-pick.md", work)
        draw_report_and_viewer(work, Path(scratch), output)
        if (work / CLASSES).is_file():
            draw_classes(work / CLASSES, output / "tutorial-classes.png")


def draw_report_and_viewer(work: Path, scratch: Path, output: Path) -> None:
    with chromium(scratch / "profile", width=1100, height=860) as driver:
        driver.get((work / "run1" / "report.html").as_uri())
        time.sleep(1)
        save(driver, output / "tutorial-report.jpg")
        driver.set_window_size(1100, 1300)
        driver.execute_script("document.querySelectorAll('h2')[2].scrollIntoView()")
        time.sleep(1)
        save(driver, output / "tutorial-micrographs.jpg")
        driver.set_window_size(1300, 850)
        with serving(Session([RunSource(work / "run1")], scratch / "edits")) as one:
            open_page(driver, one)
            driver.execute_script("document.getElementById('hints').hidden = true; cryopick.view.fit()")
            time.sleep(2)
            save(driver, output / "tutorial-view.jpg")
        driver.get("about:blank")


def save(driver, path: Path) -> None:
    picture = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(path), picture, QUALITY)


def draw_classes(stack: Path, path: Path) -> None:
    """RELION's class averages side by side, three times as large."""
    images = read_mrc_stack(stack)[0]
    low, high = np.percentile(images, (1, 99.8))
    row = np.hstack([np.pad(image, 1, constant_values=low) for image in images])
    grey = (255 * np.clip((row - low) / (high - low), 0, 1)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(grey, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))


if __name__ == "__main__":
    main()
