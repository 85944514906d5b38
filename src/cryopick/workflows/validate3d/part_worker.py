"""One part of a validation, in a job of a batch system: `python -m` of this module with the folder and the part."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(root: Path, part: str) -> int:
    """Make the map of a part as the call in the folder asks for it; what went wrong is left for who waits."""
    from cryopick.errors import CryopickError
    from cryopick.workflows.validate3d.parts import read_call, write_ended
    from cryopick.workflows.validate3d.run import validate3d

    failure = ""
    try:
        folder, call = read_call(root)
        os.chdir(folder)
        validate3d(**call, part=part, on_progress=lambda line: sys.stdout.write(f"{line}\n"))
    except CryopickError as error:
        failure = str(error)
    except BaseException as error:
        write_ended(root, part, f"{type(error).__name__}: {error}")
        raise
    write_ended(root, part, failure)
    if failure:
        sys.stderr.write(f"{failure}\n")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
