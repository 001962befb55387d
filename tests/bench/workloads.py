# SPDX-License-Identifier: Apache-2.0
"""Workloads that run on any directory. Each has a name, belongs to a group, and yields one number
per run (more is better) and, where it makes sense, the 99th percentile of the latency of one
operation in microseconds. `target` is the ratio to the plain directory that is aimed at."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from targets import Failed, MIB, drop_pages, run, wait_until, write_random


def time_limit(seconds):
    """For a run that should take so many; most of the rest is for making files."""
    return 120 + 20 * seconds


class Workload:
    def __init__(self, group, name, title, unit, target, measure, fixture=None):
        self.group = group
        self.name = name
        self.title = title
        self.unit = unit
        self.target = target
        self.measure = measure  # (place) -> value or (value, p99_us)
        self.fixture = fixture  # class of what is prepared once a target and shared in the group


class Place:
    """A workload's directory on one target."""

    def __init__(self, bench, target, name):
        self.bench = bench
        self.target = target
        self.path = os.path.join(target.path, name)
        os.makedirs(self.path, exist_ok=True)

    def file(self, name):
        return os.path.join(self.path, name)

    def helper(self, program, *arguments):
        seconds = self.bench.seconds
        return json.loads(run([os.path.join(self.bench.helpers, program), *map(str, arguments)],
                              timeout=time_limit(seconds)))

    def drop_caches(self):
        self.target.drop_caches(self.path)


class Fixture:
    def __init__(self, place):
        self.place = place

    def close(self):
        pass


def write_file(path, size, seed=1):
    """Data of which about half goes away by compression, made durable."""
    block = (os.urandom(2048) + bytes([seed]) * 2048) * 256
    with open(path, "wb") as f:
        for _ in range(0, size, len(block)):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())


# ---- SQLite ---------------------------------------------------------------------------------------


class Databases(Fixture):
    def __init__(self, place):
        super().__init__(place)
        for mode in ("wal", "delete"):
            place.helper("bench_sqlite", "make", place.file(mode + ".db"), mode, 20000)
        place.helper("bench_sqlite", "make", place.file("read.db"), "delete", 400000)


def sqlite_commit(mode):
    def measure(f):
        r = f.place.helper("bench_sqlite", "commit", f.place.file(mode + ".db"), mode,
                           f.place.bench.seconds)
        return r["per_second"], r["p99_us"]
    return measure


def sqlite_load(f):
    return f.place.helper("bench_sqlite", "load", f.place.file("load.db"), 400000)["per_second"]


def sqlite_read(cold):
    def measure(f):
        path = f.place.file("read.db")
        if cold:
            f.place.drop_caches()
        else:
            with open(path, "rb", buffering=0) as whole:
                while whole.read(MIB):
                    pass
        seconds = min(f.place.bench.seconds, 2) if cold else f.place.bench.seconds
        r = f.place.helper("bench_sqlite", "read", path, seconds)
        return r["per_second"], r["p99_us"]
    return measure


# ---- fio ------------------------------------------------------------------------------------------


def fio(place, name, **options):
    options = {"name": name, "directory": place.path, "ioengine": "psync", "group_reporting": 1,
               "output-format": "json", "randrepeat": 1, **options}
    arguments = [f"--{k}={v}" for k, v in options.items()]
    text = run(["fio", *arguments], timeout=time_limit(place.bench.seconds))
    return json.loads(text[text.index("{"):])["jobs"][0]


class FioFiles(Fixture):
    """Files that are laid out in full, so that no run measures allocation."""

    def __init__(self, place):
        super().__init__(place)
        for i in range(16):
            write_file(place.file(f"commit.{i}.0"), 16 * MIB, i)
        write_file(place.file("sequential.0.0"), place.bench.megabytes * MIB)
        write_file(place.file("hot.0.0"), 128 * MIB)


def fio_commit(jobs, one_file=False):
    def measure(f):
        where = {"filename": "commit.0.0"} if one_file else {}
        if one_file:
            where["offset_increment"] = "1m"
        job = fio(f.place, "commit", rw="randwrite", bs="4k", size="16m", numjobs=jobs,
                  fdatasync=1, time_based=1, runtime=f.place.bench.seconds, **where)
        p99 = max(job["sync"]["lat_ns"]["percentile"]["99.000000"], 0) / 1e3
        return job["write"]["iops"], p99
    return measure


def fio_sequential_write(f):
    job = fio(f.place, "sequential", rw="write", bs="1m", size=f"{f.place.bench.megabytes}m",
              end_fsync=1, overwrite=1)
    return job["write"]["bw_bytes"] / MIB


def fio_write_fsync(f):
    job = fio(f.place, "sequential", rw="write", bs="1m", size=f"{f.place.bench.megabytes}m",
              fsync=1, overwrite=1, time_based=1, runtime=f.place.bench.seconds)
    return job["write"]["bw_bytes"] / MIB, job["sync"]["lat_ns"]["percentile"]["99.000000"] / 1e3


def fio_sequential_read(f):
    f.place.drop_caches()
    job = fio(f.place, "sequential", rw="read", bs="1m", size=f"{f.place.bench.megabytes}m")
    return job["read"]["bw_bytes"] / MIB


def fio_random_read(cold):
    def measure(f):
        if cold:
            # Each page once at most: what has been read is not cold any more.
            name, size, how = "sequential", f"{f.place.bench.megabytes}m", {}
            f.place.drop_caches()
        else:
            name, size, how = "hot", "128m", {"time_based": 1, "norandommap": 1}
            with open(f.place.file("hot.0.0"), "rb", buffering=0) as whole:
                while whole.read(MIB):
                    pass
        job = fio(f.place, name, rw="randread", bs="4k", size=size, invalidate=0,
                  runtime=f.place.bench.seconds, **how)
        return job["read"]["iops"], job["read"]["clat_ns"]["percentile"]["99.000000"] / 1e3
    return measure


def fio_direct(mix):
    def measure(f):
        job = fio(f.place, "hot", rw="randrw", rwmixread=mix, bs="4k", size="128m", direct=1,
                  time_based=1, runtime=f.place.bench.seconds, overwrite=1)
        return job["read"]["iops"] + job["write"]["iops"]
    return measure


# ---- streams --------------------------------------------------------------------------------------


class Stream(Fixture):
    """A file that does not compress: what is kept of it is stored as it is."""

    def __init__(self, place):
        super().__init__(place)
        self.path = place.file("stream")
        write_random(self.path, place.bench.megabytes * MIB)


def warm_stream(also_below):
    """MiB/s of one reader in sequence. The kernel has forgotten the file; with `also_below` what the
    target has on disk, too."""
    def measure(f):
        if also_below:
            f.place.drop_caches()
        else:
            drop_pages(f.place.path)
        block = bytearray(MIB)
        count = 0
        began = time.monotonic()
        with open(f.path, "rb", buffering=0) as file:
            while n := file.readinto(block):
                count += n
        return count / MIB / (time.monotonic() - began)
    return measure


# ---- names ----------------------------------------------------------------------------------------


class Names(Fixture):
    def __init__(self, place):
        super().__init__(place)
        os.makedirs(place.file("many"), exist_ok=True)
        place.helper("bench_io", "names", place.file("many"), place.bench.names)


def create_fsync_unlink(f):
    r = f.place.helper("bench_io", "create", f.place.path, f.place.bench.seconds)
    return r["per_second"], r["p99_us"]


def stat_500(f):
    return f.place.helper("bench_io", "stat", f.place.file("many"), 500,
                          f.place.bench.seconds)["per_second"]


def read_directory(f):
    return f.place.helper("bench_io", "readdir", f.place.file("many"))["per_second"]


# ---- PostgreSQL -----------------------------------------------------------------------------------


def postgres_programs():
    base = "/usr/lib/postgresql"
    found = [os.path.join(base, v, "bin") for v in os.listdir(base)] if os.path.isdir(base) else []
    found = [b for b in found if os.path.exists(os.path.join(b, "postgres"))]
    if not found:
        raise Failed("PostgreSQL is not installed")
    return sorted(found)[-1]


class Postgres(Fixture):
    """A server of its own, on a Unix socket only."""

    def __init__(self, place):
        super().__init__(place)
        self.bin = postgres_programs()
        self.socket = tempfile.mkdtemp(prefix="ckptfs-bench-pg-", dir="/tmp")
        self.data = place.file("data")
        self.process = None
        os.makedirs(self.data, exist_ok=True)
        self.user = []
        if os.geteuid() == 0:
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            for path in (self.socket, self.data):
                shutil.chown(path, "postgres", "postgres")
        os.chmod(self.data, 0o700)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def tool(self, name, *arguments, timeout=600):
        environment = {**os.environ, "PGHOST": self.socket, "PGDATABASE": "postgres",
                       "HOME": self.socket}
        return run([*self.user, os.path.join(self.bin, name), *arguments], timeout,
                   env=environment)

    def start(self):
        self.tool("initdb", "-D", self.data, "--auth=trust", "--encoding=UTF8", "--locale=C")
        with open(os.path.join(self.socket, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [*self.user, os.path.join(self.bin, "postgres"), "-D", self.data, "-c",
                 "listen_addresses=", "-k", self.socket, "-c", "shared_buffers=128MB", "-c",
                 "max_wal_size=1GB"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("PostgreSQL", 60, self.answers)
        self.tool("pgbench", "-i", "-q", "-s", "10")
        self.tool("psql", "-X", "-q", "-c", "CHECKPOINT")

    def answers(self):
        if self.process.poll() is not None:
            raise Failed("PostgreSQL ended instead of starting")
        try:
            self.tool("pg_isready", "-q")
            return True
        except Failed:
            return False

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(120)
        shutil.rmtree(self.socket, ignore_errors=True)


def pgbench(clients, *flags):
    def measure(f):
        text = f.tool("pgbench", "-n", "-c", str(clients), "-j", "1", "-T",
                      str(f.place.bench.seconds), *flags)
        found = re.search(r"tps = ([0-9.]+)", text)
        if not found:
            raise Failed("pgbench did not say how many transactions")
        return float(found.group(1))
    return measure


# ---- RocksDB --------------------------------------------------------------------------------------


def db_bench(f, benchmark, *flags):
    text = run(["db_bench", f"--db={f.place.file('rocks')}", f"--benchmarks={benchmark}",
                "--threads=1", "--compression_type=none", *flags],
               timeout=time_limit(f.place.bench.seconds))
    found = re.search(benchmark + r"\s*:\s*[0-9.]+ micros/op ([0-9]+) ops/sec", text)
    if not found:
        raise Failed("db_bench did not say how many operations")
    return float(found.group(1))


def rocks_fill(f):
    return db_bench(f, "fillsync", "--num=20000000", f"--duration={f.place.bench.seconds}")


class RocksFilled(Fixture):
    def __init__(self, place):
        super().__init__(place)
        db_bench(self, "fillseq", "--num=1000000")


def rocks_read(f):
    return db_bench(f, "readrandom", "--use_existing_db=1", "--num=1000000",
                    f"--duration={f.place.bench.seconds}", "--cache_size=8388608")


WORKLOADS = [
    Workload("sqlite", "sqlite-wal", "SQLite commit, WAL", "commits/s", 1.1,
             sqlite_commit("wal"), Databases),
    Workload("sqlite", "sqlite-rollback", "SQLite commit, rollback journal", "commits/s", 1.25,
             sqlite_commit("delete"), Databases),
    Workload("sqlite", "sqlite-load", "SQLite bulk load", "rows/s", 0.9, sqlite_load, Databases),
    Workload("sqlite", "sqlite-read-hot", "SQLite point reads, hot", "reads/s", None,
             sqlite_read(False), Databases),
    Workload("sqlite", "sqlite-read-cold", "SQLite point reads, dropped caches", "reads/s", None,
             sqlite_read(True), Databases),
    Workload("fio", "commit-1", "4 KiB random write + fdatasync", "commits/s", 1.2,
             fio_commit(1), FioFiles),
    Workload("fio", "commit-4", "the same, 4 jobs, 4 files", "commits/s", 0.9,
             fio_commit(4), FioFiles),
    Workload("fio", "commit-16", "the same, 16 jobs, 16 files", "commits/s", 0.9,
             fio_commit(16), FioFiles),
    Workload("fio", "commit-4-one-file", "the same, 4 jobs, one file", "commits/s", None,
             fio_commit(4, True), FioFiles),
    Workload("fio", "write-fsync", "sequential 1 MiB write + fsync of each", "MiB/s", 0.85,
             fio_write_fsync, FioFiles),
    Workload("fio", "write-stream", "sequential 1 MiB write, fsync at the end", "MiB/s", None,
             fio_sequential_write, FioFiles),
    Workload("fio", "read-stream", "sequential read, dropped caches", "MiB/s", 0.9,
             fio_sequential_read, FioFiles),
    Workload("fio", "read-hot", "4 KiB random read, hot", "reads/s", 1.0,
             fio_random_read(False), FioFiles),
    Workload("fio", "read-cold", "4 KiB random read, dropped caches", "reads/s", None,
             fio_random_read(True), FioFiles),
    Workload("fio", "direct-mix", "O_DIRECT 4 KiB, 70 % reads", "ops/s", None,
             fio_direct(70), FioFiles),
    Workload("stream", "warm-stream", "sequential read, dropped caches, no compression", "MiB/s", 0.85,
             warm_stream(True), Stream),
    Workload("stream", "warm-stream-above", "the same, the storage root in the kernel's cache", "MiB/s",
             None, warm_stream(False), Stream),
    Workload("names", "create", "create + fsync + unlink", "files/s", 1.5,
             create_fsync_unlink, Names),
    Workload("names", "stat", "stat of 500 files", "calls/s", 0.95, stat_500, Names),
    Workload("names", "readdir", "readdir of all names", "names/s", None, read_directory, Names),
    Workload("postgres", "tpcb-1", "pgbench TPC-B, 1 client", "tps", None, pgbench(1), Postgres),
    Workload("postgres", "tpcb-4", "pgbench TPC-B, 4 clients", "tps", 0.8, pgbench(4), Postgres),
    Workload("postgres", "tpcb-16", "pgbench TPC-B, 16 clients", "tps", None, pgbench(16),
             Postgres),
    Workload("postgres", "select-4", "pgbench select-only, 4 clients", "tps", 0.98,
             pgbench(4, "-S"), Postgres),
    Workload("rocksdb", "rocks-fillsync", "RocksDB fillsync", "ops/s", None, rocks_fill,
             RocksFilled),
    Workload("rocksdb", "rocks-read", "RocksDB readrandom", "ops/s", None, rocks_read,
             RocksFilled),
]
