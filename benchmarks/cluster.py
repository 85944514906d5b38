"""A run on a cluster, with its processes killed in every way: are the files the same, and what does it cost?

Starts a Slurm of two nodes on this machine (`scripts/slurm` installs it), needs no root and no network:

    python benchmarks/cluster.py equal faults kills scaling memory -o benchmarks/results

Each part can be run alone; figures go to cluster.json and the table of all parts run so far to cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parents[1] / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
)

from run_files import files_of  # beside the tests, whose Slurm this is
from slurm_cluster import SlurmCluster, start_slurm, stop_slurm
from toy_workers import ENTRY

from cryopick.scale.cluster.config import ClusterSettings
from cryopick.scale.cluster.executor import DaskExecutor
from cryopick.scale.cluster.place import open_place
from cryopick.scale.executor import Done, run_all

JOB = {"queue": "main", "job_cores": 1, "job_memory": "900M", "job_time": "1:00:00", "interface": "lo"}
SEED = 7


@contextmanager
def slurm_of_this_machine() -> Iterator[SlurmCluster]:
    folder = Path(tempfile.mkdtemp(prefix="cryopick-slurm-"))
    try:
        cluster = start_slurm(folder)
        os.environ.update(cluster.environment)
        yield cluster
    finally:
        stop_slurm(SlurmCluster(folder))


# ------------------------------------------------------------------------------------------------------ whole runs


def make_micrographs(folder: Path, *, count: int, shape_yx: tuple[int, int]) -> None:
    """Dark discs of 40 Å in noise."""
    from discs import disc_micrograph

    from cryopick.io.images.micrographs import write_micrograph

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_micrograph(folder / f"m{seed:05d}.mrc", disc_micrograph("m", seed=seed, shape_yx=shape_yx))


def command(work: Path, picker: list[str], how: list[str]) -> list[str]:
    words = [sys.executable, "-m", "cryopick.cli.main", "pick", str(work.parent / "mics"), "-o", "run"]
    return [*words, "--picker", *picker, *how]


def run(work: Path, picker: list[str], how: list[str], *, meanwhile: Callable[[], None] | None = None) -> float:
    """Run `cryopick pick` in a folder; wall seconds."""
    work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with open(work / "told.txt", "ab") as told:
        process = subprocess.Popen(command(work, picker, how), cwd=work, stdout=told, stderr=told)
        if meanwhile is not None:
            meanwhile()
        if process.wait() != 0:
            raise RuntimeError((work / "told.txt").read_text()[-2000:])
    return time.perf_counter() - begun


def on_slurm(folder: Path, jobs: int) -> list[str]:
    config = folder / "cluster.toml"
    values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in JOB.items())
    config.write_text(f"[cluster]\n{values}")
    return ["--cluster", "slurm", "--jobs", str(jobs), "--cluster-config", str(config)]


def worker_processes() -> list[int]:
    """Processes of jobs that pick: children of nannies."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = Path("/proc") / (path / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if (
                b"cryopick.scale.cluster.job" in (parent / "cmdline").read_bytes()
                and os.environ["SLURM_CONF"].encode() in (path / "environ").read_bytes()
                and b"spawn_main" in (path / "cmdline").read_bytes()
            ):
                found.append(int(path.name))
        except OSError:
            continue
    return sorted(found)


def finished(work: Path) -> int:
    return sum(1 for _ in (work / "run").rglob("records/*.json"))


def wait_for(is_true: Callable[[], bool], *, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError("it never came")
        time.sleep(0.05)


def equal(folder: Path, *, count: int) -> dict[str, Any]:
    """The same run by processes, a local cluster, Slurm, and Slurm with a worker killed; `general` with and without."""
    rng = random.Random(SEED)
    make_micrographs(folder / "mics", count=count, shape_yx=(512, 640))
    picker, figures = ["blob", "-d", "40A"], {}
    with slurm_of_this_machine():
        seconds = {"processes": run(folder / "processes", picker, ["-j", "2"])}
        seconds["local"] = run(folder / "local", picker, ["--cluster", "local", "--jobs", "2"])
        seconds["slurm"] = run(folder / "slurm", picker, on_slurm(folder, 2))

        def kill() -> None:
            work = folder / "slurm, a worker killed"
            at = rng.randrange(2, count - 4)
            wait_for(lambda: finished(work) >= at and bool(worker_processes()))
            os.kill(rng.choice(worker_processes()), signal.SIGKILL)

        seconds["slurm, a worker killed"] = run(
            folder / "slurm, a worker killed", picker, on_slurm(folder, 2), meanwhile=kill
        )
        reference = files_of(folder / "processes" / "run")
        for name in list(seconds)[1:]:
            other = files_of(folder / name / "run")
            same = sum(other.get(path) == data for path, data in reference.items())
            figures[name] = f"{same} of {len(reference)} files the same, {seconds[name]:.0f} s"
        general = folder / "general"
        make_micrographs(general / "mics", count=7, shape_yx=(512, 640))
        how = ["general", "--device", "cpu", "--precision", "float32"]
        run(general / "processes", how, ["-j", "2"])
        run(general / "slurm", how, on_slurm(general, 2))
        reference, other = files_of(general / "processes" / "run"), files_of(general / "slurm" / "run")
        same = sum(other.get(path) == data for path, data in reference.items())
        figures["general, 7 micrographs"] = f"{same} of {len(reference)} files the same"
    return {"micrographs": count, "processes": f"{seconds['processes']:.0f} s", **figures}


def kills(folder: Path, *, count: int, times: int) -> dict[str, Any]:
    """The coordinator killed at random; afterwards the same command goes on to the same files."""
    rng = random.Random(SEED)
    make_micrographs(folder / "mics", count=count, shape_yx=(256, 320))
    picker, left_s = ["blob", "-d", "40A"], []
    run(folder / "here", picker, ["-j", "1"])
    with slurm_of_this_machine() as slurm:
        work = folder / "killed"
        work.mkdir()
        for turn in range(times):
            at = min(count - 1, finished(work) + rng.randrange(0, max(1, count // (times + 1))))
            with open(work / "told.txt", "ab") as told:
                process = subprocess.Popen(
                    command(work, picker, on_slurm(folder, 2)), cwd=work, stdout=told, stderr=told
                )
                wait_for(lambda at=at: finished(work) > at and bool(slurm.jobs()))  # type: ignore[misc]
                process.kill()
                process.wait()
            begun = time.monotonic()
            wait_for(lambda: not slurm.jobs(), seconds=120)
            left_s.append(time.monotonic() - begun)
            sys.stderr.write(f"kill {turn + 1}: {finished(work)} finished, jobs gone after {left_s[-1]:.1f} s\n")
        run(work, picker, on_slurm(folder, 2))
    reference, other = files_of(folder / "here" / "run"), files_of(work / "run")
    same = sum(other.get(path) == data for path, data in reference.items())
    return {
        "kills": times,
        "files": f"{same} of {len(reference)} the same",
        "jobs gone after, s": [round(value, 1) for value in left_s],
    }


# ------------------------------------------------------------------------------------------------- the executor alone


@contextmanager
def executor_on_slurm(folder: Path, *, jobs: int, **options: Any) -> Iterator[DaskExecutor]:
    lines: list[str] = []
    place = open_place(
        "slurm", folder=folder / ".cluster", jobs=jobs, settings=ClusterSettings(**JOB), on_line=lines.append, **options
    )
    executor = DaskExecutor(place, ENTRY, 0, is_owner=True)
    try:
        yield executor
    finally:
        executor.close()
        (folder / "lines.txt").write_text("\n".join(lines))


def outcomes(executor: DaskExecutor, items: dict[str, Any], at: dict[int, Callable[[], None]]) -> list[Done]:
    done: list[Done] = []
    for one in run_all(executor, items.items()):
        done.append(one)
        if len(done) in at:
            at.pop(len(done))()
    return done


def told_of(done: list[Done], items: dict[str, Any], begun: float) -> str:
    each = Counter(one.key for one in done)
    once = "each once" if set(each) == set(items) and set(each.values()) == {1} else "NOT EACH ONCE"
    lost = [one.key for one in done if one.lost]
    return f"{len(done)} outcomes, {once}; lost: {', '.join(lost) or 'none'}; {time.perf_counter() - begun:.0f} s"


def faults(folder: Path, *, count: int, jobs: int) -> dict[str, Any]:
    """A node killed, a node stopped, a deadly item, jobs cancelled."""
    items = {f"k{i}": ("sleep", 1.0) for i in range(count)}
    figures: dict[str, Any] = {"items": count, "jobs": jobs}
    for name in ("node killed", "node stopped", "deadly item", "jobs cancelled"):
        work = folder / name
        work.mkdir(parents=True)
        with slurm_of_this_machine() as slurm, executor_on_slurm(work, jobs=jobs, silent_seconds=15.0) as executor:
            begun, given = time.perf_counter(), dict(items)
            if name == "node killed":

                def kill(slurm: SlurmCluster = slurm) -> None:
                    for pid in [slurm.pid("slurmd-n2"), *processes_on("n2")]:
                        kill_quietly(pid, signal.SIGKILL)

                done = outcomes(executor, given, {count // 6: kill})
            elif name == "node stopped":
                stopped = []

                def stop(stopped: list[int] = stopped) -> None:
                    stopped.extend(processes_on("n2"))
                    for pid in stopped:
                        kill_quietly(pid, signal.SIGSTOP)

                done = outcomes(executor, given, {count // 6: stop})
                for pid in stopped:
                    kill_quietly(pid, signal.SIGCONT)
            elif name == "deadly item":
                given["deadly"] = ("die", None)
                done = outcomes(executor, given, {})
            else:
                every = max(1, count // 12)
                at = {every * turn: cancel_one(slurm) for turn in range(1, 11)}
                done = outcomes(executor, given, at)
            figures[name] = told_of(done, given, begun)
            sys.stderr.write(f"{name}: {figures[name]}\n")
    return figures


def cancel_one(slurm: SlurmCluster) -> Callable[[], None]:
    def cancel() -> None:
        running = slurm.run("squeue", "-h", "-t", "running", "-o", "%i").split()
        if running:
            slurm.run("scancel", running[0])

    return cancel


def processes_on(node: str) -> list[int]:
    """Of jobs that this Slurm runs on a node."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in variables and any(
            one == f"SLURM_CONF={os.environ['SLURM_CONF']}".encode() for one in variables
        ):
            found.append(int(path.name))
    return found


def kill_quietly(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return


def scaling(folder: Path, *, most: int) -> dict[str, Any]:
    """4 N + 4 items of 2 s on N workers, from the first moment at which all are there."""
    figures: dict[str, Any] = {}
    with slurm_of_this_machine():
        jobs = 1
        while jobs <= most:
            work = folder / str(jobs)
            work.mkdir(parents=True)
            with executor_on_slurm(work, jobs=jobs) as executor:
                warm = {f"w{i}": ("add", i) for i in range(4 * jobs)}
                while executor.place.workers() < jobs:
                    list(run_all(executor, warm.items()))
                begun = time.perf_counter()
                count = 4 * jobs + 4
                list(run_all(executor, {f"k{i}": ("sleep", 2.0) for i in range(count)}.items()))
                seconds = time.perf_counter() - begun
            ideal = 2.0 * -(-count // jobs)
            figures[f"{jobs} workers"] = f"{seconds:.1f} s, ideal {ideal:.0f} s"
            sys.stderr.write(f"{jobs}: {figures[f'{jobs} workers']}\n")
            jobs *= 2
    return figures


_MEASURED = """
import resource, sys, time
from cryopick.cli.main import main
sys.argv = sys.argv[1:]
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    sys.stderr.write(f"PEAK {used.ru_maxrss / 1024:.1f} CPU {used.ru_utime + used.ru_stime:.1f}\\n")
"""


def memory(folder: Path, *, counts: tuple[int, ...]) -> dict[str, Any]:
    """The coordinator's peak and its processor time, for runs of more and more micrographs of 64 x 64."""
    figures: dict[str, Any] = {}
    for count in counts:
        work = folder / str(count)
        work.mkdir(parents=True)
        rng = np.random.default_rng(SEED)
        from cryopick.io.images.mrc import write_mrc

        (work / "mics").mkdir()
        for number in range(count):
            pixels = rng.normal(size=(64, 64)).astype(np.float32)
            write_mrc(work / "mics" / f"m{number:05d}.mrc", pixels, pixel_size_angstrom=2.0)
        words = ["cryopick", "pick", "mics", "-o", "run", "--picker", "blob", "-d", "20px", "--threshold", "4"]
        begun = time.perf_counter()
        told = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words, "--cluster", "local", "--jobs", "2"],
            cwd=work, capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
        _, peak, _, cpu = told.strip().splitlines()[-1].split()
        figures[f"{count} micrographs"] = (
            f"coordinator {float(peak):.0f} MB at most, {1000 * float(cpu) / count:.1f} ms CPU each, "
            f"{time.perf_counter() - begun:.0f} s"
        )
        sys.stderr.write(f"{count}: {figures[f'{count} micrographs']}\n")
        shutil.rmtree(work)
    return figures


# ------------------------------------------------------------------------------------------------------------ command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["equal", "faults", "kills", "scaling", "memory"])
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--count", type=int, default=40, help="micrographs of equal, kills; items of faults are 1.5 x")
    parser.add_argument("--most", type=int, default=16, help="workers of scaling")
    parser.add_argument("--counts", default="1000,10000", help="micrographs of memory")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = options.output / "cluster.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in options.parts:
        with tempfile.TemporaryDirectory(prefix="cryopick-cluster-") as place:
            folder = Path(place)
            if part == "equal":
                found = equal(folder, count=options.count)
            elif part == "kills":
                found = kills(folder, count=options.count, times=5)
            elif part == "faults":
                found = faults(folder, count=options.count * 3 // 2, jobs=4)
            elif part == "scaling":
                found = scaling(folder, most=options.most)
            else:
                found = memory(folder, counts=tuple(map(int, options.counts.split(","))))
        load = os.getloadavg()[1]
        results[part] = found | {"load of the machine": f"{load:.1f} on {os.cpu_count()} cores"}
        path.write_text(json.dumps(results, indent=1) + "\n")
        (options.output / "cluster.md").write_text(as_markdown(results))


def as_markdown(results: dict[str, dict[str, Any]]) -> str:
    texts = {
        "equal": "The same run by worker processes and on clusters (`blob`, 512 x 640)",
        "faults": "60 items of a second on 4 jobs of two nodes, with",
        "kills": "The command itself killed, and run again (`blob`, 256 x 320, 2 jobs)",
        "scaling": "4 N + 4 items of 2 s on N workers",
        "memory": "Micrographs of 64 x 64 on two workers",
    }
    lines = [
        "# Runs on a cluster",
        "",
        "Made by `benchmarks/cluster.py`, on Slurm and on this machine's own cluster.",
        "",
    ]
    for part, found in results.items():
        lines += [f"## {texts[part]}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in found.items()] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
