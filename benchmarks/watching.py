"""Made-up sessions followed by `cryopick watch`, killed, compared with a batch run; latency, and what watching costs.

    python benchmarks/watching.py session --output /tmp/session      # B9.1, B9.2: 60 micrographs, six kill -9
    python benchmarks/watching.py latency --output /tmp/latency      # B9.6: from whole file to picks
    python benchmarks/watching.py many --output /tmp/many            # B9.7: 500 and 5,000 tiny files
    python benchmarks/watching.py general --output /tmp/general --images FOLDER     # B9.1: eight real micrographs

Each prints its lines for `benchmarks/results/watching.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.inputs.sources import find_micrographs
from cryopick.types import Micrograph

WATCH = [sys.executable, "-m", "cryopick", "watch"]
NOT_COMPARED = ("run.log", "command.txt", ".lock")
TIMES = ("seconds", "started", "ended")


def micrograph(seed: int, shape_yx: tuple[int, int], diameter_px: int = 24) -> Micrograph:
    """Dark discs on a shaken grid in noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 0.5, shape_yx)
    offsets = np.arange(diameter_px) - (diameter_px - 1) / 2
    disc = np.hypot(offsets[:, None], offsets) <= diameter_px / 2
    for y in range(10, shape_yx[0] - 60, 60):
        for x in range(10, shape_yx[1] - 60, 60):
            top, left = y + int(rng.integers(0, 20)), x + int(rng.integers(0, 20))
            pixels[top : top + diameter_px, left : left + diameter_px] -= disc
    return Micrograph(pixels.astype(np.float32), name=f"m{seed}", pixel_size_angstrom=2.0)


# ------------------------------------------------------------------------------------------------------- whole sessions


def write_session(source: Path, target: Path, *, pause_s: float, seed: int) -> None:
    """Bring files in random order by every way that writers have."""
    rng, names = random.Random(seed), sorted(path.name for path in source.iterdir())
    rng.shuffle(names)
    target.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        data = (source / name).read_bytes()
        way = place % 5
        if way == 0:  # rsync
            (target / f".{name}.Ab12Cd").write_bytes(data)
            (target / f".{name}.Ab12Cd").rename(target / name)
        elif way == 1:  # in four slices with pauses
            with open(target / name, "wb") as stream:
                for part in np.array_split(np.frombuffer(data, np.uint8), 4):
                    stream.write(part.tobytes())
                    stream.flush()
                    time.sleep(pause_s / 2)
        else:
            shutil.copy(source / name, target / name)
        if place == 7:
            os.link(target / name, target / "linked.mrc")
        if place == 11:  # its space is taken in advance
            (target / "preallocated.mrc").write_bytes(data[:4000] + bytes(len(data) - 4000))
            threading.Timer(8, lambda data=data: (target / "preallocated.mrc").write_bytes(data)).start()
        if place == 17:
            (target / names[12]).rename(target / "renamed.mrc")
        if place == 23:
            shutil.copy(source / names[3], target / names[2])  # replaced
        time.sleep(rng.uniform(0, 2 * pause_s))


def followed(folder: Path, inside: Path, words: list[str], *, kills: int, finish_s: float, seed: int = 5) -> list[str]:
    """Follow a session, killed so many times, to its end; in which state each kill hit."""
    rng, states = random.Random(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for kill in range(kills + 1):
        with open(folder / "events.jsonl", "ab") as events, open(folder / "errors.txt", "ab") as errors:
            process = subprocess.Popen(
                [*WATCH, str(inside), "-o", "run", *words, "--json"], cwd=folder, stdout=events, stderr=errors
            )
            if kill == kills:
                assert process.wait(timeout=finish_s) == 0, (folder / "errors.txt").read_text()[-2000:]
                return states
            if kill >= kills - 2:  # in the end phase
                deadline = time.monotonic() + finish_s
                while state_of(folder / "run") != "ending" and time.monotonic() < deadline:
                    time.sleep(0.02)
                time.sleep(rng.uniform(0, 2))
            else:
                records = count_records(folder / "run") + rng.randrange(1, 8)
                deadline = time.monotonic() + 90
                while count_records(folder / "run") < records and time.monotonic() < deadline:
                    time.sleep(0.02)
            states.append(state_of(folder / "run") or "final")
            process.send_signal(signal.SIGKILL)
            process.wait()
    raise AssertionError


def state_of(run: Path) -> str:
    try:
        return str(json.loads((run / "state.json").read_text())["state"])
    except (OSError, ValueError):
        return ""


def count_records(run: Path) -> int:
    return sum(1 for _ in (run / "records").rglob("*.json"))


def batch(folder: Path, inside: Path, words: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "cryopick", "pick", str(inside), "-o", "run", *words], cwd=folder, check=True)


def different_files(one: Path, other: Path) -> tuple[int, list[str]]:
    """How many files the folders have, and the names of those that differ or are in one alone."""
    ours, theirs = files_of(one), files_of(other)
    names = sorted(ours.keys() | theirs.keys())
    return len(names), [name for name in names if ours.get(name) != theirs.get(name)]


def files_of(run: Path) -> dict[str, bytes]:
    """Every file, without durations and times of day."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name not in NOT_COMPARED):
        name, data = path.relative_to(run).as_posix(), path.read_bytes()
        if name.startswith("records/") or name == "summary.json":
            data = json.dumps({k: v for k, v in json.loads(data).items() if k not in TIMES}).encode()
        if name == "micrographs.star":
            column = int(re.search(rb"_cryopickSeconds #(\d+)", data).group(1)) - 1
            rows = [line.split() for line in data.splitlines()]
            data = b"\n".join(
                b" ".join(row[:column] + row[column + 1 :]) if len(row) > 9 else b" ".join(row) for row in rows
            )
        found[name] = data
    return found


def session(options: argparse.Namespace) -> None:
    place, words = options.output, ["--picker", "blob", "-d", "24px", "-j", "1"]
    shutil.rmtree(place, ignore_errors=True)
    (place / "whole").mkdir(parents=True)
    for seed in range(60):
        write_micrograph(place / "whole" / f"m{seed:02d}.mrc", micrograph(seed, (512, 640)))
    writer = threading.Thread(
        target=write_session, args=(place / "whole", place / "in"), kwargs={"pause_s": options.pause, "seed": 1}
    )
    writer.start()
    timing = ["--poll", "1s", "--quiet", "2s", "--stop-idle", "20s", "--summary-every", "10s"]
    states = followed(place / "live", place / "in", [*words, *timing], kills=6, finish_s=900)
    writer.join()
    batch(place / "batch", place / "in", words)
    count, different = different_files(place / "live" / "run", place / "batch" / "run")
    events = [
        json.loads(line) for line in (place / "live" / "events.jsonl").read_text().splitlines() if line[-1:] == "}"
    ]
    picked = sum(event["event"] == "micrograph" for event in events)
    micrographs = json.loads((place / "live" / "run" / "summary.json").read_text())["micrographs"]
    print(
        f"- session, `blob -d 24px`: {micrographs} micrographs of 512 x 640 in random order (slices, rsync names, a "
        f"hard link, one preallocated, one renamed, one replaced), killed 6 times ({', '.join(states)}): {count} "
        f"files, {len(different)} differ from the batch run {different or ''}; {picked} micrographs picked in all calls"
    )


def general(options: argparse.Namespace) -> None:
    place = options.output
    shutil.rmtree(place, ignore_errors=True)
    (place / "in").mkdir(parents=True)
    images = [source.path for source in find_micrographs([options.images])][:8]

    def write() -> None:
        for path in random.Random(3).sample(images, len(images)):
            shutil.copy(path, place / "in" / path.name)
            time.sleep(options.pause)

    writer = threading.Thread(target=write)
    writer.start()
    words = ["-j", "1"]
    followed(
        place / "live", place / "in", [*words, "--stop-idle", "30s", "--poll", "1s", "--quiet", "2s"], kills=0,
        finish_s=3000,
    )  # fmt: skip
    writer.join()
    batch(place / "batch", place / "in", words)
    count, different = different_files(place / "live" / "run", place / "batch" / "run")
    print(f"- `general`, {len(images)} real micrographs: {count} files, {len(different)} differ {different or ''}")


# ---------------------------------------------------------------------------------------------------- latency and cost


def latency(options: argparse.Namespace) -> None:
    place, poll_s, quiet_s = options.output, 1.0, 1.0
    shutil.rmtree(place, ignore_errors=True)
    (place / "in").mkdir(parents=True)
    write_micrograph(place / "one.mrc", micrograph(1, (2048, 2048)))
    words = ["--picker", "blob", "-d", "24px", "-j", "1", "--poll", f"{poll_s}s", "--quiet", f"{quiet_s}s"]
    place_of_run = place / "live"
    place_of_run.mkdir()
    process = subprocess.Popen([*WATCH, str(place / "in"), "-o", "run", *words, "--json"], cwd=place_of_run,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    waits = []
    for number in range(options.count + 1):
        shutil.copy(place / "one.mrc", place / ".next.mrc")
        os.rename(place / ".next.mrc", place / "in" / f"m{number:03d}.mrc")
        begin = time.monotonic()
        picks = place_of_run / "run" / "picks" / f"m{number:03d}_picks.star"
        while not picks.exists():
            time.sleep(0.01)
        waits.append(time.monotonic() - begin)
    process.send_signal(signal.SIGTERM)
    process.wait()
    waits = sorted(waits[1:])  # the first one waits for Python to start
    load, most = os.getloadavg()[0], waits[int(0.95 * (len(waits) - 1))]
    print(
        f"- latency, `blob`, {len(waits)} micrographs of 2048 x 2048, one after the other, --quiet {quiet_s:g}s "
        f"--poll {poll_s:g}s: median {statistics.median(waits):.2f} s, 95 % within {most:.2f} s "
        f"(load average {load:.1f} on {os.cpu_count()} cores)"
    )


def many(options: argparse.Namespace) -> None:
    for count in options.counts:
        followed_files(options.output / str(count), count)


def followed_files(place: Path, count: int) -> None:
    """All files there from the beginning; what watching costs once they are picked."""
    from cryopick.runs.following.clock import SteadyClock
    from cryopick.runs.following.options import WatchOptions
    from cryopick.runs.settings import make_settings
    from cryopick.runs.workers import Workforce
    from cryopick.workflows.watch import Watch

    shutil.rmtree(place, ignore_errors=True)
    (place / "in").mkdir(parents=True)
    write_micrograph(place / "one.mrc", micrograph(1, (96, 112), 20))
    for number in range(count):
        shutil.copy(place / "one.mrc", place / "in" / f"m{number:05d}.mrc")
    heard = {"summary": 0, "tables_s": 0.0, "picked": 0}
    begun = {}

    def hear(event) -> None:
        if event.kind == "summary":
            heard["summary"] += 1
        if event.kind == "micrograph":
            heard["picked"] += 1
            if heard["picked"] == count:
                begun.update(wall=time.monotonic(), cpu=time.process_time())
        if event.kind == "end":
            begun.update(end=time.monotonic(), end_cpu=time.process_time())

    watching = Watch(
        place / "in", place / "run", make_settings("blob", diameter="20px"),
        WatchOptions(stop_idle_s=90, quiet_s=2, summary_every_s=20), workforce=Workforce(workers=1),
        clock=SteadyClock(),
    )  # fmt: skip
    original = type(watching)._begin
    tables = []

    def begin(self, *arguments, **keywords):
        follower = original(self, *arguments, **keywords)
        write = follower.run.write_tables_so_far

        def timed(*given):
            start = time.monotonic()
            result = write(*given)
            tables.append(time.monotonic() - start)
            return result

        follower.run.write_tables_so_far = timed
        return follower

    type(watching)._begin = begin
    start = time.monotonic()
    try:
        watching.run(hear)
    finally:
        type(watching)._begin = original
    quiet_s, cpu_s = begun["end"] - begun["wall"], begun["end_cpu"] - begun["cpu"]
    followed_s = begun["end"] - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"- {count:,} tiny files: picked after {begun['wall'] - start:.0f} s; then, for {quiet_s:.0f} s, watching "
        f"took {cpu_s / quiet_s:.1%} of one core, tables included; {len(tables)} summaries took {sum(tables):.1f} s, "
        f"{sum(tables[:-1] or tables) / followed_s:.1%} of the time; peak memory so far {peak_mb:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("session", "latency", "many", "general"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="of `general`")
    parser.add_argument("--pause", type=float, default=1.0, help="between files, s")
    parser.add_argument("--count", type=int, default=20, help="of `latency`")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 5000], help="of `many`")
    options = parser.parse_args()
    options.output = options.output.resolve()
    {"session": session, "latency": latency, "many": many, "general": general}[options.what](options)


if __name__ == "__main__":
    main()
