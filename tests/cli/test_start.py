"""What starting costs: which libraries are loaded before there is work for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "scipy", "cv2", "matplotlib", "skimage", "sklearn", "openvino", "gemmi", "tifffile")
PROGRAM = """
import json, sys
sys.argv = ["cryopick", *{words!r}]
if {words!r}:
    from cryopick.cli.main import main
    try:
        main()
    except SystemExit:
        pass
else:
    import cryopick
print(json.dumps([len(sys.modules), sorted({{name.partition(".")[0] for name in sys.modules}})]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "most_modules", "also_heavy"),
    [
        ([], 150, ("numpy", "typer", "jinja2")),
        (["--help"], 400, ("jinja2",)),
        (["pick", "--help"], 750, ()),
        (["evaluate", "--help"], 500, ("jinja2",)),
    ],
    ids=lambda each: " ".join(map(str, each)) if isinstance(each, list) else "",
)
def test_what_has_nothing_to_do_yet_is_not_loaded(
    words: list[str], most_modules: int, also_heavy: tuple[str, ...]
) -> None:
    """A count and names, because seconds depend on the machine; `benchmarks/start_and_speed.py` measures those."""
    program = PROGRAM.format(words=words)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, names = json.loads(done.stderr.splitlines()[-1])
    assert not {*HEAVY, *also_heavy} & set(names)
    assert count < most_modules
