#!/usr/bin/env python3
"""Measures Tidekeeper's MongoDB work beside what people use today, in one run, and prints a table and JSON.

The servers are doubles (benches/wire.rs), faster than any that could be measured here, and secantusd. What the rows
mean: docs/measurements.md; what it shares with other benchmarks: common.py. Called by dev/bench.
"""

import datetime
import json
import pathlib
import shutil
import signal
import statistics
import subprocess
import time

import common
from common import MB, free_port, run

LARGE = 2_000 * MB
DOCUMENT = 1_000
RSS = 128


class Server:
    """What all servers here have: an address, a process, and an end."""

    def __init__(self, wire):
        self.wire = wire
        self.port = free_port()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self):
        return f"mongodb://{self.address}"

    def ask(self, db, command, fields="{}"):
        return json.loads(run([self.wire, "ask", self.address, db, command, fields])["out"])

    def scan(self, parallel, names):
        """Reads collections and throws them away: wall seconds."""
        return run([self.wire, "scan", self.address, str(parallel), *names])["wall"]


class Double(Server):
    """A double, ended with the block."""

    def __init__(self, wire, *args):
        super().__init__(wire)
        self.args = args

    def __enter__(self):
        command = [self.wire, "serve", "--port", str(self.port), *map(str, self.args)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("listening"), "the double does not start"
        return self

    def digests(self, *databases):
        """Counts and digests by namespace."""
        found = [one for db in databases for one in self.ask(db, "wireDigest")["namespaces"]]
        return {one["ns"]: (one["count"], one["digest"]) for one in found}


class Secantusd(Server):
    """A real server, ended with the block."""

    def __init__(self, wire, program, folder):
        super().__init__(wire)
        self.program, self.folder = program, folder

    def __enter__(self):
        self.folder.mkdir(parents=True)
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), "--storage-path", str(self.folder), "--oplog-max-entries", "1000"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self.answers():
            time.sleep(0.05)
        return self

    def answers(self):
        ping = [self.wire, "ask", self.address, "admin", "ping", "{}"]
        return subprocess.run(ping, capture_output=True).returncode == 0


class Bench(common.Bench):
    def __init__(self, given, work):
        super().__init__(given.binary, work, given.rounds)
        self.wire = given.wire
        self.secantusd = given.secantusd
        self.mongodump = shutil.which(given.mongodump)
        self.mongorestore = shutil.which(given.mongorestore)
        self.large = given.large

    def config(self, name, server, target=None, timeline=False):
        more = ", timeline: true, segment_every: 2s" if timeline else ""
        sources = [("mongo-main", f'mongodb: {{ uri: "{server.uri}"{more} }}')]
        targets = [("mongo-scratch", f'mongodb: {{ uri: "{target.uri}" }}')] if target else []
        config = self.write_config(name, sources, targets)
        self.tk(config, "init")
        return config

    def rss(self, name, runs):
        highest, usual = max(one["rss"] for one in runs), statistics.median(one["rss"] for one in runs)
        self.row(f"{name}: peak RSS", f"{highest:.0f} MiB", f"<= {RSS} MiB", highest <= RSS,
                 f"the highest of all rounds; median {usual:.1f} MiB")

    def ratio(self, name, runs, walls, asked, at_least, amount):
        """A row: the peer's median wall against ours, with rates of `amount` bytes."""
        mine, theirs = statistics.median(one["wall"] for one in runs), statistics.median(walls)
        cpu = statistics.median(one["cpu"] for one in runs)
        self.row(name, f"{theirs / mine:.2f} x", asked, theirs / mine >= at_least,
                 f"{mine:.2f} s / {theirs:.2f} s, {amount / mine / MB:.0f} / {amount / theirs / MB:.0f} MB/s, "
                 f"cpu {cpu:.2f} s")

    def dump_by_peer(self, server, *options):
        """Wall seconds and stored bytes of a mongodump into an empty folder."""
        out = self.work / "peer"
        shutil.rmtree(out, ignore_errors=True)
        done = run([self.mongodump, "--quiet", "--uri", server.uri, "--out", str(out), *options])
        return done["wall"], size_of(out)

    def backup(self, server):
        """One into a new vault, and what it stored."""
        config = self.config("backup", server)
        done = self.tk(config, "backup", "mongo-main")
        return done, size_of(config.parent / "vault" / "data")

    def dump(self):
        """One large collection, beside mongodump with and without --gzip."""
        label = f"dump {self.large // MB:,} MB"
        with Double(self.wire, "--collection", f"big.orders:{self.large}:{DOCUMENT}") as server:
            ours, plain, gzip = [], [], []
            for _ in range(self.rounds):
                if self.mongodump:
                    gzip.append(self.dump_by_peer(server, "--gzip"))
                    plain.append(self.dump_by_peer(server))
                    shutil.rmtree(self.work / "peer")
                ours.append(self.backup(server))
        runs = [done for done, _ in ours]
        if self.mongodump:
            packed, bare = [wall for wall, _ in gzip], [wall for wall, _ in plain]
            self.ratio(f"{label}: against mongodump --gzip", runs, packed, ">= 4 x", 4, self.large)
            self.ratio(f"{label}: against plain mongodump", runs, bare, ">= 0.9 x", 0.9, self.large)
            share = ours[0][1] / gzip[0][1]
            self.row(f"{label}: stored bytes against mongodump --gzip", f"{share:.2f} x", "<= 0.8 x", share <= 0.8,
                     f"{ours[0][1] / MB:,.0f} MB / {gzip[0][1] / MB:,.0f} MB of {self.large / MB:,.0f} MB")
        else:
            self.skip(label, "no mongodump here; docs/mongodb.md says where to get it")
        self.rss(label, runs)

    def restore(self):
        """The same collection back, into a new double each time, beside mongorestore with two workers."""
        label = f"restore {self.large // MB:,} MB"
        with Double(self.wire, "--collection", f"big.orders:{self.large}:{DOCUMENT}") as server:
            if self.mongorestore and self.mongodump:
                self.dump_by_peer(server)
            config = self.config("restore", server)
            self.tk(config, "backup", "mongo-main")
            expected = server.digests("big")
            ours, peers, found = [], [], []
            for _ in range(self.rounds):
                if self.mongorestore and self.mongodump:
                    peers.append(self.restore_by_peer())
                done, digests = self.restore_once(config, server)
                ours.append(done)
                found.append(digests)
        if peers:
            self.ratio(f"{label}: against mongorestore, 2 workers", ours, peers, ">= 1.3 x", 1.3, self.large)
        else:
            self.skip(label, "no mongodump and mongorestore here; docs/mongodb.md says where to get them")
        same = sum(digests == expected for digests in found)
        self.row(f"{label}: count and digest as in the source", f"{same} of {len(found)}", "all", same == len(found))
        self.rss(label, ours)

    def restore_by_peer(self):
        with Double(self.wire) as target:
            return run([self.mongorestore, "--quiet", "--uri", target.uri, "--numInsertionWorkersPerCollection", "2",
                        "--dir", str(self.work / "peer")])["wall"]

    def restore_once(self, config, server):
        """The newest backup into a new double: what it took without the plan, and what then is there."""
        with Double(self.wire) as target:
            text = config.read_text().partition("targets:")[0].partition("schedules:")[0]
            listen = config.read_text().partition("schedules:")[2]
            scratch = f'targets:\n  - {{ name: mongo-scratch, mongodb: {{ uri: "{target.uri}" }} }}\n'
            config.write_text(f"{text}{scratch}schedules:{listen}")
            done = self.restore_confirmed(config, "mongo-main/latest", "--to", "mongo-scratch")
            return done, target.digests("big")

    def small(self, count=200, documents=1_000):
        """Many small collections, beside mongodump -j 4."""
        label = f"dump {count} collections of {documents:,} documents"
        amount = count * documents * DOCUMENT
        with Double(self.wire, "--small", f"{count}:{documents}") as server:
            ours, peers = [], []
            for _ in range(self.rounds):
                if self.mongodump:
                    peers.append(self.dump_by_peer(server, "-j", "4")[0])
                ours.append(self.backup(server)[0])
        if peers:
            self.ratio(f"{label}: against mongodump -j 4", ours, peers, ">= 1 x", 1, amount)
        else:
            self.skip(label, "no mongodump here; docs/mongodb.md says where to get it")
        self.rss(label, ours)

    def replay(self, operations=1_000_000):
        """A log of as many operations replayed over a line of 1 ms, by applyOps and where that is refused."""
        for way, options in (("applyOps", []), ("bulk writes", ["--no-apply-ops"])):
            with Double(self.wire, "--collection", "big.orders:1000000:1000") as server, \
                    Double(self.wire, "--rtt", "1ms", *options) as target:
                config = self.config("replay", server, target, timeline=True)
                moment = self.log(config, server, operations)
                target.ask("admin", "wireStats", '{"reset": true}')
                done = self.restore_confirmed(config, "mongo-main", "--at", moment, "--to", "mongo-scratch")
                stats = target.ask("admin", "wireStats")
                same = target.digests("bench") == server.digests("bench")
            label = f"replay {operations:,} operations by {way}"
            trips, most = stats["round_trips"], operations // 100
            self.row(f"{label}: round trips", f"{trips:,}", f"<= {most:,}", trips <= most,
                     f"{done['wall']:.1f} s at 1 ms a round trip, cpu {done['cpu']:.1f} s; {shown(stats['commands'])}")
            self.row(f"{label}: state as the log says", "equal" if same else "different", "equal", same)
            self.rss(label, [done])

    def log(self, config, server, operations):
        """Follows the log while the operations happen; gives the moment after the last one."""
        daemon, _ = self.serve(config)
        try:
            self.wait_for(config, lambda timeline: timeline["timelines"])
            self.tk(config, "backup", "mongo-main")
            last = server.ask("bench", "wireOplog", json.dumps({"wireOplog": operations}))["last"]["$timestamp"]["t"]
            moment = datetime.datetime.fromtimestamp(last, datetime.timezone.utc)
            text = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            self.wait_for(config, lambda timeline: any(window["to"] >= text for window in timeline["windows"]))
            return text
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()

    def wait_for(self, config, condition, limit=300):
        """Until the timeline is as it should be; before its first record there is none."""
        command = [self.binary, "--config", str(config), "--json", "timeline", "mongo-main"]
        began = time.perf_counter()
        while True:
            looked = subprocess.run(command, capture_output=True, text=True)
            if looked.returncode == 0 and condition(json.loads(looked.stdout)):
                return
            assert time.perf_counter() - began < limit, f"the log is not followed: {looked.stdout}"
            time.sleep(0.5)

    def memory(self):
        """Documents of almost 16 MB, and a tenth of the large collection: the peak must not follow either."""
        for label, collection in (("of 1 KB documents, a tenth", f"big.orders:{self.large // 10}:{DOCUMENT}"),
                                  ("of 16 MB documents", f"big.files:{self.large // 4}:16000000")):
            with Double(self.wire, "--collection", collection) as server:
                config = self.config("memory", server)
                self.rss(f"dump {label}", [self.tk(config, "backup", "mongo-main")])
                self.rss(f"restore {label}", [self.restore_once(config, server)[0]])

    def secantus(self, collections=4, size=32 * MB):
        """A server in Python, which is the bottleneck: beside the barest scan with as many connections."""
        if not shutil.which(self.secantusd):
            self.skip("dump of secantusd", "no secantusd here; dev/setup installs it")
            return
        names = [f"shop.c{n}" for n in range(collections)]
        with Secantusd(self.wire, self.secantusd, self.work / "secantusd") as server:
            run([self.wire, "fill", server.address, *(f"{name}:{size}:{DOCUMENT}" for name in names)])
            ours, steps, peers = [], [], []
            for _ in range(self.rounds):
                peers.append(server.scan(collections, names))
                ours.append(self.backup(server)[0])
                steps.append(self.newest_steps(self.work / "backup" / "tidekeeper.yaml"))
        mine, theirs = statistics.median(one["wall"] for one in ours), statistics.median(peers)
        survey, dump = (statistics.median(one[name] for one in steps) for name in ("survey", "dump"))
        ratio = mine / theirs
        self.row("dump of secantusd: wall against a bare scan", f"{ratio:.2f} x", "<= 1.1 x", ratio <= 1.1,
                 f"{mine:.2f} s / {theirs:.2f} s for {collections * size / MB:.0f} MB, {collections} connections; "
                 f"survey {survey:.2f} s, dump {dump:.2f} s")
        self.rss("dump of secantusd", ours)


def size_of(folder):
    return sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())


def shown(commands):
    return ", ".join(f"{count:,} {name}" for name, count in sorted(commands.items(), key=lambda one: -one[1])[:4])


def main():
    parts = {"dump": Bench.dump, "restore": Bench.restore, "small": Bench.small, "replay": Bench.replay,
             "memory": Bench.memory, "secantus": Bench.secantus}
    arguments = common.arguments(__doc__, ",".join(parts))
    arguments.add_argument("--wire", required=True, help="the release build of benches/wire.rs")
    arguments.add_argument("--secantusd", default="secantusd-py")
    arguments.add_argument("--mongodump", default="mongodump")
    arguments.add_argument("--mongorestore", default="mongorestore")
    arguments.add_argument("--large", type=int, default=LARGE, help="bytes of the one large collection")
    common.measure(arguments.parse_args(), Bench, parts)


if __name__ == "__main__":
    main()
