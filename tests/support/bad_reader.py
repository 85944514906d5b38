"""A reader that fails in every way that the fuzzer must survive; as a program, the fuzzer that knows it."""

import os
import signal
import time

import fuzzing
from fuzz_targets import TARGETS, Target
from mutations import KINDS

from cryopick.errors import FormatError


def bad_reader(path, random):
    """One fault for each digit that the file may hold."""
    digit = path.read_text()
    if digit == "1":
        raise KeyError("x")
    if digit == "2":
        return bytes(2 << 30)
    while digit == "3":
        pass
    if digit == "4":
        os.kill(os.getpid(), signal.SIGKILL)
    if digit == "5":
        time.sleep(600)
    if digit == "6":
        (path.parents[1] / "stray").write_text("")
    if digit == "7":
        raise FormatError("something is wrong")
    return None


def _make(folder):
    (folder / "file.txt").write_text("0")


KINDS["digit"] = (lambda content, random: str(random.randrange(8)).encode(),)
TARGETS["bad"] = Target("bad", "bad", _make, {"file.txt": "digit"}, (bad_reader,), (FormatError,), is_one_file=True)

if __name__ == "__main__":
    fuzzing.CPU_LIMIT_S = 1.0
    fuzzing.main()
