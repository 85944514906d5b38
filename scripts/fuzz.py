#!/usr/bin/env python3
"""Give damaged files to every reader of cryopick, for as long as you like; the test suite tries the first few thousand.

    .venv/bin/python scripts/fuzz.py --count 100000
    .venv/bin/python scripts/fuzz.py --target coordinates/star --target run/ --count 2000 --seed 7
    .venv/bin/python scripts/fuzz.py --target image/png --seed 7 --case 123

Every call has 10 s of processor time and 1 GB, in a process of its own. Targets are rows of
tests/support/fuzz_targets.py; --count is of all cases together, shared out as the rows say. The damaged files of
failures are kept in --save. The exit status is 1 where something failed.
"""

import argparse
import importlib.util
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from fuzz_targets import TARGETS  # found by the line above
from fuzzing import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", metavar="NAME", help="a target, or how its name begins")
    parser.add_argument("--count", type=int, default=100_000, help="cases of all targets together")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: another one each time")
    parser.add_argument("--case", type=int, help="only this case of each target, as a failure names it")
    parser.add_argument("--save", type=Path, default=Path("fuzz-failures"), help="folder for the damaged files")
    parser.add_argument("--list", action="store_true", help="list the targets")
    given = parser.parse_args()
    wanted = tuple(given.target or [""])
    rows = [row for row in TARGETS.values() if row.name.startswith(wanted)]
    if given.list or not rows:
        print("\n".join(TARGETS))
        return 0 if given.list else 2
    absent = {row.needs for row in rows if row.needs and not importlib.util.find_spec(row.needs)}
    share = sum(row.count for row in rows if row.needs not in absent)
    print(f"seed {given.seed}" + (f"; left out for want of {', '.join(absent)}" if absent else ""), flush=True)
    failed, tried = Counter[tuple[str, str, str, str]](), 0
    for row in rows:
        if row.needs in absent:
            continue
        count = 1 if given.case is not None else max(1, round(given.count * row.count / share))
        started = time.monotonic()

        def show(name: str, case: int, count: int = count) -> None:
            if sys.stderr.isatty() and case % 20 == 0:
                print(f"\r{name} {case} of {count}  ", end="", file=sys.stderr)

        found = fuzz([row.name], seed=given.seed, count=count, first=given.case or 0, save=given.save, on_case=show)
        tried += count
        seconds = time.monotonic() - started
        print(f"\r{row.name:32} {count:7} cases {seconds:8.0f} s {len(found):5} failures", flush=True)
        for one in found:
            kind = (one.target, one.call, one.error, one.place)
            failed[kind] += 1
            if failed[kind] == 1:  # each fault once; the table counts them
                print(one, flush=True)
    print(f"\n{sum(failed.values())} failures in {tried} cases")
    for (target, call, error, place), times in failed.most_common():
        print(f"{times:6}  {target}  {call}  {error}  {place}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
