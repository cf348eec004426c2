#!/usr/bin/env python3
"""Measures Tidekeeper's Redis work beside what people use today, in one run, and prints a table and JSON.

What its rows mean: docs/measurements.md; what it shares with other benchmarks: common.py. Called by dev/bench.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

import common
from common import MB, free_port, ready, run


class Redis:
    """A redis-server of our own, ended with the block."""

    def __init__(self, folder, *args):
        self.port = free_port()
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.args = args

    def __enter__(self):
        began = time.perf_counter()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
             "--repl-diskless-sync-delay", "0", "--enable-debug-command", "local", *self.args],
            stdout=subprocess.DEVNULL)
        while not self.serves():
            time.sleep(0.001)
        self.ready_after = time.perf_counter() - began
        return self

    def serves(self):
        """Whether it answers a PING with a PONG: while it loads, it answers an error."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def cli(self, *args, check=True):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *map(str, args)], capture_output=True, text=True)
        if check and done.returncode:
            sys.exit(f"redis-cli {args}: {done.stderr}")
        return done.stdout.strip()

    def fill(self, data):
        """`small:N` keys of 16 bytes by the server itself, or `random:BYTES` in values of 64 KiB."""
        kind, amount = data.split(":")
        if kind == "small":
            self.cli("DEBUG", "POPULATE", amount, "key", 16)
            return
        pipe = subprocess.Popen(["redis-cli", "-p", str(self.port), "--pipe"], stdin=subprocess.PIPE,
                                stdout=subprocess.DEVNULL)
        size = 64 << 10
        for n in range(int(amount) // size):
            name = b"value:%d" % n
            pipe.stdin.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(name), name, size))
            pipe.stdin.write(os.urandom(size) + b"\r\n")
        pipe.stdin.close()
        pipe.wait()


class Bench(common.Bench):
    def __init__(self, given, work):
        super().__init__(given.binary, work, given.rounds)
        self.versitygw = given.versitygw

    def config(self, name, redis, target=None, vault="fs: { path: ./vault }"):
        part = 'redis: {{ url: "redis://127.0.0.1:{}" }}'
        targets = [("scratch", part.format(target.port))] if target else []
        return self.write_config(name, [("redis-main", part.format(redis.port))], targets, vault)

    def backups(self):
        self.backup("small:1000000", "1 M small keys")
        small = self.backup(f"random:{100 * MB}", "100 MB incompressible")
        large = self.backup(f"random:{1000 * MB}", "1 GB incompressible")
        grew = large / small - 1
        self.row("backup: RSS at 1 GB against 100 MB", f"{grew:+.0%}", "within 10 %", abs(grew) <= 0.1)

    def backup(self, data, label):
        """Ours against the pipe of stock tools, both into a directory with fsync."""
        with Redis(self.work / "source") as redis:
            redis.fill(data)
            ours, peers = [], []
            for n in range(self.rounds):
                peers.append(self.peer_pipe(redis))
                config = self.config("backup", redis)
                self.tk(config, "init")
                ours.append(self.tk(config, "backup", "redis-main"))
            mine = statistics.median(one["wall"] for one in ours)
            theirs = statistics.median(peers)
            ratio = mine / theirs
            usual, rss = statistics.median(one["rss"] for one in ours), max(one["rss"] for one in ours)
            cpu = statistics.median(one["cpu"] for one in ours)
            self.row(f"backup {label}: wall against the pipe", f"{ratio:.2f} x", "<= 1.05 x", ratio <= 1.05,
                     f"{mine:.2f} s / {theirs:.2f} s, cpu {cpu:.2f} s")
            self.row(f"backup {label}: peak RSS", f"{rss:.0f} MiB", "<= 64 MiB", rss <= 64,
                     f"the highest of all rounds; median {usual:.1f} MiB")
            return usual

    def peer_pipe(self, redis):
        target = self.work / "peer.rdb.zst"
        target.unlink(missing_ok=True)
        script = (f"set -o pipefail; redis-cli -p {redis.port} --rdb - 2>/dev/null | tee >(sha256sum > {self.work}/sum) "
                  f"| zstd -q -3 -T0 | dd of={target} bs=1M iflag=fullblock conv=fsync status=none")
        return run(["bash", "-c", script])["wall"]

    def restore(self):
        """REPLICAOF to ACK against a redis-server that starts on the same file; and the RESTORE way against --pipe."""
        keys = 1_000_000
        with Redis(self.work / "source") as redis, Redis(self.work / "target") as target:
            redis.fill(f"small:{keys}")
            config = self.config("restore", redis, target)
            self.tk(config, "init")
            self.tk(config, "backup", "redis-main")
            out = self.work / "extracted"
            loads, starts, wholes, preflights = [], [], [], []
            for _ in range(self.rounds):
                shutil.rmtree(out, ignore_errors=True)
                self.tk(config, "extract", "redis-main/latest", "--output", out)
                starts.append(self.start_on(out / "dump.rdb"))
                target.cli("FLUSHALL")
                done = self.restore_once(config)
                wholes.append(done["wall"])
                steps = self.newest_steps(config)
                loads.append(steps["transfer"])
                preflights.append(steps["preflight"])
            ratio = statistics.median(loads) / statistics.median(starts)
            self.row("restore 1 M keys: REPLICAOF to ACK against a start", f"{ratio:.2f} x", "<= 1.3 x", ratio <= 1.3,
                     f"{statistics.median(loads):.2f} s / {statistics.median(starts):.2f} s; pre-flight "
                     f"{statistics.median(preflights):.2f} s, whole command {statistics.median(wholes):.2f} s")
            self.restore_way(config, redis, target, keys)

    def restore_once(self, config, *options):
        return self.restore_confirmed(config, "redis-main/latest", "--to", "scratch", *options)

    def start_on(self, rdb):
        """Seconds from the start of a redis-server on this file until it serves, less those of an empty one."""
        folder = self.work / "starts"
        shutil.rmtree(folder, ignore_errors=True)
        with Redis(folder) as empty:
            nothing = empty.ready_after
        shutil.copy(rdb, folder / "dump.rdb")
        with Redis(folder) as server:
            return server.ready_after - nothing

    def restore_way(self, config, redis, target, keys):
        commands = self.work / "restore.resp"
        write_restores(redis, commands)
        ours, peers = [], []
        for _ in range(self.rounds):
            target.cli("FLUSHALL")
            with open(commands, "rb") as script:
                peers.append(run(["redis-cli", "-p", str(target.port), "--pipe"], stdin=script)["wall"])
            target.cli("FLUSHALL")
            self.restore_once(config, "--option", "way=restore")
            ours.append(self.newest_steps(config)["restore"])
        ratio = statistics.median(peers) / statistics.median(ours)
        self.row("restore 1 M keys: RESTORE way against redis-cli --pipe", f"{ratio:.2f} x", ">= 0.9 x", ratio >= 0.9,
                 f"{keys / statistics.median(ours):,.0f} / {keys / statistics.median(peers):,.0f} keys/s")

    def verify(self, data=f"random:{1000 * MB}"):
        with Redis(self.work / "source") as redis:
            redis.fill(data)
            config = self.config("verify", redis)
            self.tk(config, "init")
            self.tk(config, "backup", "redis-main")
            out = self.work / "verified"
            self.tk(config, "extract", "redis-main/latest", "--output", out)
            (stored,) = (config.parent / "vault/data/redis-main").glob("*/*/dump.rdb.zst")
            runs, peers = [], []
            for _ in range(self.rounds):
                runs.append(self.tk(config, "verify", "redis-main/latest"))
                peers.append(sum(run(["sha256sum", file])["cpu"] for file in (out / "dump.rdb", stored)))
            mine, theirs = statistics.median(one["cpu"] for one in runs), statistics.median(peers)
            rate = 1000 / mine
            self.row("verify: plain bytes a second of CPU", f"{rate:.0f} MB/s", ">= 400 MB/s", rate >= 400,
                     f"wall {statistics.median(one['wall'] for one in runs):.2f} s for 1 GB; cpu {mine:.2f} s, of "
                     f"sha256sum over its plain and its stored bytes {theirs:.2f} s ({mine / theirs:.2f} x)")

    def daemon(self):
        with Redis(self.work / "source") as redis:
            config = self.config("daemon", redis)
            self.tk(config, "init")
            began = time.perf_counter()
            process, port = self.serve(config)
            try:
                while not ready(port):
                    time.sleep(0.005)
                took = time.perf_counter() - began
                time.sleep(10)
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
        self.row("daemon: start to ready", f"{took:.2f} s", "<= 1 s", took <= 1)
        self.row("daemon: idle RSS", f"{rss:.1f} MiB", "<= 30 MiB", rss <= 30)


class Resp:
    """Just enough of the protocol to pipeline DUMPs: what redis-cli cannot do with binary replies."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.replies = self.socket.makefile("rb")

    def send(self, *commands):
        self.socket.sendall(b"".join(encode(command) for command in commands))

    def bulk(self):
        length = int(self.replies.readline()[1:])
        return self.replies.read(length + 2)[:-2]


def encode(parts):
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def write_restores(redis, path, batch=1_000):
    """Writes the RESTORE of every key of database 0 as redis-cli --pipe takes it."""
    keys = subprocess.run(["redis-cli", "-p", str(redis.port), "--scan"], capture_output=True, check=True).stdout.split()
    link = Resp(redis.port)
    with open(path, "wb") as out:
        for start in range(0, len(keys), batch):
            names = keys[start:start + batch]
            link.send(*([b"DUMP", name] for name in names))
            out.writelines(encode([b"RESTORE", name, b"0", link.bulk()]) for name in names)


class Versitygw:
    """An S3 server whose bucket is a folder, ended with the block."""

    keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1"}

    def __init__(self, program, folder):
        self.program, self.folder, self.port = program, pathlib.Path(folder), free_port()
        (self.folder / "vault").mkdir(parents=True)

    def __enter__(self):
        roots = {"ROOT_ACCESS_KEY": self.keys["AWS_ACCESS_KEY_ID"],
                 "ROOT_SECRET_KEY": self.keys["AWS_SECRET_ACCESS_KEY"]}
        self.process = subprocess.Popen(
            [self.program, "--quiet", "--port", f"127.0.0.1:{self.port}", "posix", str(self.folder)],
            env={**os.environ, **roots}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.environ.update(self.keys)
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def cpu(self):
        """Seconds of CPU so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def vault(self):
        return f's3: {{ bucket: vault, endpoint: "http://127.0.0.1:{self.port}", path_style: true }}'


def catalogs(bench):
    """Cold: each listing is a new process, which reads every manifest."""
    with Redis(bench.work / "source") as redis, Versitygw(bench.versitygw, bench.work / "s3") as server:
        redis.fill("small:10")
        config = bench.config("catalog", redis)
        catalog(bench, config, config.parent / "vault", "a directory", 0.3)
        config = bench.config("catalog-s3", redis, vault=server.vault())
        catalog(bench, config, server.folder / "vault", "versitygw", 2, server)


def catalog(bench, config, vault, where, bar, server=None, count=10_000):
    """A vault with `count` manifests: one real one, copied under other ids."""
    bench.tk(config, "init")
    bench.tk(config, "backup", "redis-main")
    folder = vault / "manifests" / "redis-main"
    (real,) = folder.iterdir()
    manifest = json.loads(real.read_text())
    for n in range(count - 1):
        minute = n % 60
        copy_id = f"2025{1 + n // 2400 % 12:02d}{1 + n // 100 % 24:02d}T{n // 60 % 24:02d}{minute:02d}00Z-{n:06d}"
        (folder / f"{copy_id}.json").write_text(json.dumps({**manifest, "id": copy_id}))
    before = server.cpu() if server else 0
    runs = [bench.tk(config, "backups") for _ in range(bench.rounds)]
    servers = f"; the server's {(server.cpu() - before) / bench.rounds:.2f} s" if server else ""
    assert len(json.loads(runs[0]["out"])["backups"]) == count, "the listing is not whole"
    wall = statistics.median(one["wall"] for one in runs)
    bench.row(f"catalog of {count:,} backups from {where}", f"{wall:.2f} s", f"<= {bar} s", wall <= bar,
              f"cpu {statistics.median(one['cpu'] for one in runs):.2f} s{servers}")


def main():
    parts = {"backup": Bench.backups, "restore": Bench.restore, "verify": Bench.verify, "daemon": Bench.daemon,
             "catalog": catalogs}
    arguments = common.arguments(__doc__, ",".join(parts))
    arguments.add_argument("--versitygw", required=True, help="an S3 server")
    common.measure(arguments.parse_args(), Bench, parts)


if __name__ == "__main__":
    main()
