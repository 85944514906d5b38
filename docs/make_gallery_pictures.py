"""Make the pictures of the gallery by running the examples: make_gallery_pictures.py docs/images/gallery."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import cv2
import numpy as np
from browser import chromium
from notebooks import shown_by

EXAMPLES = Path(__file__).parents[1] / "examples"
WIDTH_PX = 800


def main() -> None:
    output = Path(sys.argv[1]).resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for script in ("pick_an_array", "pick_a_folder", "facility_service"):
            subprocess.run([sys.executable, EXAMPLES / f"{script}.py", work / script], check=True)
        save(cv2.imread(str(work / "pick_an_array" / "picks.png")), output / "pick_an_array.jpg")
        with chromium(work / "profile", width=1000, height=800) as driver:
            driver.get((work / "pick_a_folder" / "run" / "report.html").as_uri())
            time.sleep(1)
            save(decoded(driver.get_screenshot_as_png()), output / "pick_a_folder.jpg")
        save(decoded(last_picture(EXAMPLES / "notebook.ipynb", work)), output / "notebook.jpg")


def last_picture(notebook: Path, work: Path) -> bytes:
    """What the last cell that draws shows."""
    os.chdir(work)
    pictures = [value.png for value in shown_by(notebook) if hasattr(value, "png")]
    return pictures[-1]


def decoded(png: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def save(picture: Any, path: Path) -> None:
    scale = min(1.0, WIDTH_PX / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()
