"""Make the pictures of docs/view.md, with the browser of the tests: make_view_picture.py RUN docs/images."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browser import chromium, open_page, serving

from cryopick.viewer.session import Session
from cryopick.viewer.sources import RunSource


def main() -> None:
    import cv2
    import numpy as np

    run, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        chromium(Path(scratch) / "profile", width=1300, height=850) as driver,
    ):
        session = Session([RunSource(run)], Path(scratch) / "edits")
        with serving(session) as one:
            for scheme in ("light", "dark"):
                media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
                open_page(driver, one)
                driver.execute_script("document.getElementById('hints').hidden = true; cryopick.view.fit()")
                driver.execute_script("if (cryopick.layer !== 'band') document.getElementById('layer-band').click()")
                time.sleep(2)
                picture = cv2.imdecode(np.frombuffer(driver.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
                cv2.imwrite(str(output / f"view-{scheme}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
            driver.get("about:blank")


if __name__ == "__main__":
    main()
