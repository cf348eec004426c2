"""What the side-by-side benchmarks share: processes measured, rows judged, a configuration to run with.

Every figure is a ratio against a peer on the same machine, the same data and the same disk, alternating, median of
the rounds; docs/measurements.md says what each bar means. Called by dev/bench; nothing here is a test.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROUNDS = 5
MB = 1_000_000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command, **options):
    """Runs to the end; gives wall seconds, CPU seconds and peak RSS in MiB of that one process, and its stdout."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, **options)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode()
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}:\n{text}\n{err.read().decode()}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024, "out": text}


def ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Bench:
    """The rows so far, and our own command."""

    def __init__(self, binary, work, rounds):
        self.binary = binary
        self.work = work
        self.rounds = rounds
        self.rows = []

    def row(self, name, found, bar, good, detail=""):
        self.rows.append({"bar": name, "asked": bar, "found": found, "met": good, "detail": detail})
        print(f"{'ok  ' if good else 'MISS'}  {name:<58} asked {bar:<12} found {found:<16} {detail}", flush=True)

    def skip(self, name, why):
        """A row that could not be measured here: shown, and no failure."""
        self.rows.append({"bar": name, "asked": None, "found": None, "met": None, "detail": why})
        print(f"skip  {name:<58} {why}", flush=True)

    def write_config(self, name, sources, targets=(), vault="fs: { path: ./vault }"):
        """A folder of its own with a configuration; sources and targets are lines of YAML below their names."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "schedules").mkdir(parents=True)
        lines = ["vault:", f"  {vault}", f"limits: {{ spool_dir: {folder}/spool, spool_max: 4GiB }}", "sources:"]
        lines += [f"  - {{ name: {name}, {part} }}" for name, part in sources]
        if targets:
            lines += ["targets:", *(f"  - {{ name: {name}, {part} }}" for name, part in targets)]
        lines += ["schedules: schedules/", f'api: {{ listen: "127.0.0.1:{free_port()}" }}']
        config = folder / "tidekeeper.yaml"
        config.write_text("\n".join(lines) + "\n")
        return config

    def tk(self, config, *args):
        return run([self.binary, "--config", str(config), "--json", *map(str, args)])

    def serve(self, config):
        """The daemon, and its port."""
        port = config.read_text().split("127.0.0.1:")[-1].split('"')[0]
        command = [self.binary, "--config", str(config), "serve"]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL), port

    def restore_confirmed(self, config, *args):
        """Plans, and does what was planned."""
        plan = json.loads(self.tk(config, "restore", *args, "--dry-run")["out"])
        return self.tk(config, "restore", *args, "--confirm", plan["hash"])

    def newest_steps(self, config):
        """The steps of the newest run, in seconds."""
        run = json.loads(self.tk(config, "runs")["out"])["runs"][0]["run"]
        steps = json.loads(self.tk(config, "runs", "show", run)["out"])["steps"]
        return {step["name"]: step["took_s"] for step in steps}


def arguments(description, only):
    """What every benchmark can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", required=True, help="the release build of tidekeeper")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default=only)
    return parser


def measure(given, kind, work_list):
    """Runs the parts that are asked for; the exit status says whether every bar was met."""
    with tempfile.TemporaryDirectory(prefix="tidekeeper-bench-") as work:
        bench = kind(given, pathlib.Path(work))
        for part in given.only.split(","):
            work_list[part](bench)
    if given.json:
        given.json.write_text(json.dumps(bench.rows, indent=2) + "\n")
    sys.exit(1 if any(row["met"] is False for row in bench.rows) else 0)
