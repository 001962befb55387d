#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Readers of data that is only in the store: the figures of doc/cold_reads.md.

  cold_readers.py random    200 reads at random places of a file of 256 MiB
  cold_readers.py scan      a database-like reader of a hot set while a file ten times the cache is
                            scanned: with ckptctl cat --cold, and with cat
  cold_readers.py hot       a reader of 32 hot MiB of a file of 256 MiB on a host that has just restored
                            the volume, with the set of hot parts and without (a build with fault
                            hooks: the store answers after --latency ms)

`--build` is the build directory. With --store s3 an S3 server beside it (tests/s3-server).
"""

import argparse
import json
import mmap
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
# pylint: disable=wrong-import-position
from figures import Quiet, write_random  # noqa: E402
from stores import FileStore, S3Store  # noqa: E402
from targets import MIB, drop_pages, run  # noqa: E402


class Bench:
    """What the targets need to know."""

    def __init__(self, arguments):
        build = os.path.abspath(arguments.build)
        self.ckptfs = os.environ.get("CKPTFS", os.path.join(build, "ckptfs"))
        self.ckptctl = os.path.join(build, "ckptctl")
        self.helpers = os.path.join(build, "tests/bench")
        self.work = tempfile.mkdtemp(prefix="ckptfs-bench-", dir=arguments.work)
        self.interval = "0"
        self.store = S3Store(self.work) if arguments.store == "s3" else FileStore(self.work)

    def helper(self, program, *arguments):
        return json.loads(run([os.path.join(self.helpers, program), *map(str, arguments)]))

    def close(self):
        self.store.stop()
        shutil.rmtree(self.work, ignore_errors=True)


# ---- random readers -------------------------------------------------------------------------------


def random_reads(bench, a):
    with Quiet(bench, "random", ",".join(["no_hot_set", a.options])) as t:
        data = os.path.join(t.path, "data")
        write_random(data, 256 * MIB)
        t.checkpoint()
        for i in range(a.runs):
            t.mount_bare()
            got = bench.helper("bench_io", "spread", data, 200, 4711 + i)
            status = t.status()
            block = bench.helper("bench_store", "ranged", t.source, 60, 4 * MIB)
            print(f"200 reads: median {got['p50_us']:.0f} us, 99th percentile {got['p99_us']:.0f} us, "
                  f"{got['seconds']:.2f} s, {status['store_bytes_read'] / MIB:.0f} MiB fetched, "
                  f"{status['read_bytes_foreground'] / MIB:.1f} MiB of them in the foreground; a GET of "
                  f"4 MiB: median {block['p50_us']:.0f} us, 99th percentile {block['p99_us']:.0f} us",
                  flush=True)


# ---- a scan beside a database ---------------------------------------------------------------------


def copies(target):
    """Bytes in blocks of hot_cache, by name without its ending."""
    found = {}
    for folder, _, names in os.walk(os.path.join(target.root, "hot_cache")):
        for name in names:
            try:
                bytes_here = os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
            found[name[:64]] = found.get(name[:64], 0) + bytes_here
    return found


class Residency(threading.Thread):
    """Samples which part of the hot set is in hot_cache."""

    def __init__(self, target, hot):
        super().__init__()
        self.target = target
        self.hot = hot
        self.parts = []
        self.done = threading.Event()

    def run(self):
        all_bytes = sum(self.hot.values())
        while not self.done.wait(0.1):
            here = copies(self.target)
            self.parts.append(sum(min(here.get(k, 0), v) for k, v in self.hot.items()) / all_bytes)

    def end(self):
        self.done.set()
        self.join()
        return statistics.mean(self.parts)


def beside(bench, t, a, hot, command):
    """Runs the reader while the command runs, or for some seconds."""
    before = t.status()
    sampler = Residency(t, hot)
    sampler.start()
    reader = subprocess.Popen(
        [os.path.join(bench.helpers, "bench_io"), "point", os.path.join(t.path, "hot"), str(a.hot), str(a.seconds)],
        stdout=subprocess.PIPE, text=True)
    began = time.monotonic()
    if command:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - began
    got = json.loads(reader.communicate()[0])
    part = sampler.end()
    after = t.status()
    fetched = {k: (after[k] - before[k]) / MIB for k in after if k.startswith("read_bytes_")}
    return got, part, seconds, fetched


def scan(bench, a):
    with Quiet(bench, "scan") as t:
        write_random(os.path.join(t.path, "hot"), a.hot * MIB)
        t.checkpoint()
        write_random(os.path.join(t.path, "large"), 10 * a.quota * MIB)
        t.checkpoint()
        t.unmount()
        shutil.rmtree(t.root)
        os.makedirs(t.root)
        t.mount(f"quota={a.quota}M,page_cache=8M,wal_limit=16M")
        large = os.path.join(t.path, "large")
        bench.helper("bench_io", "point", os.path.join(t.path, "hot"), a.hot, 3)
        run([bench.ckptctl, "hydrate", os.path.join(t.path, "hot")])
        hot = copies(t)
        run([bench.ckptctl, "limits", "--set", f"read_limit={a.limit}M", t.path])
        cold = [("alone", None),
                ("ckptctl cat --cold", [bench.ckptctl, "cat", "--cold", large])]
        for name, command in cold * a.runs + [("cat", ["cat", large])]:
            cached = copies(t)
            got, part, seconds, fetched = beside(bench, t, a, hot, command)
            rate = f"scan at {10 * a.quota / seconds / a.limit:.3f} of the limit, " if command else ""
            same = "the same" if copies(t) == cached else "others"
            print(f"{name}: {got['per_second']:.0f} reads/s, median {got['p50_us']:.0f} us, 99th "
                  f"percentile {got['p99_us']:.0f} us; {100 * part:.1f} % of the hot set here; "
                  f"{rate}copies {same}; MiB fetched: " +
                  ", ".join(f"{k[11:]} {v:.0f}" for k, v in fetched.items() if v > 0), flush=True)
            drop_pages(t.path)


# ---- after a restore ------------------------------------------------------------------------------

HOT_PARTS = 32
APART = 8  # MiB from one to the next


def hot_reads(path, seconds, seed):
    """Reads pages of the hot parts at random, one after the other: when each ended, and its seconds."""
    chance = random.Random(seed)
    page = mmap.mmap(-1, 4096)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    began = last = time.monotonic()
    reads = []
    while last - began < seconds:
        place = chance.randrange(HOT_PARTS) * APART * MIB + chance.randrange(256) * 4096
        os.preadv(fd, [page], place)
        now = time.monotonic()
        reads.append((now - began, now - last))
        last = now
    os.close(fd)
    return reads


def at_speed(reads, share):
    """When the reads of a tenth of a second first reach this share of the speed at the end."""
    speeds = {}
    for at, _ in reads:
        speeds[int(at * 10)] = speeds.get(int(at * 10), 0) + 1
    end = statistics.median(list(speeds.values())[-20:])
    return next((w + 1) / 10 for w in sorted(speeds) if speeds[w] >= share * end)


def after_restore(bench, a):
    faults = os.path.join(bench.work, "faults")
    with open(faults, "w", encoding="ascii"):
        os.environ["CKPTFS_STORE_FAULTS"] = faults
    options = ",".join(["page_cache=8M", f"read_limit={a.limit}M" if a.limit else "", a.options])
    with Quiet(bench, "hot", options) as t:
        data = os.path.join(t.path, "data")
        write_random(data, HOT_PARTS * APART * MIB)
        t.checkpoint()
        t.mount_bare()  # what was written is no longer warm
        hot_reads(data, 10, 1)
        t.unmount()
        for option in ["no_hot_set", "hot_set"] * a.runs:
            shutil.rmtree(t.root)
            os.makedirs(t.root)
            with open(faults, "w", encoding="ascii") as f:
                f.write(f"slow {a.latency}\n")
            t.mount("takeover,no_hot_set" if option == "no_hot_set" else "takeover")
            reads = hot_reads(data, a.seconds, 2)
            status = t.status()
            with open(faults, "w", encoding="ascii"):
                pass
            t.kill()  # writes no set of its own
            waits = [s for _, s in reads if s >= a.latency / 1000]
            print(f"{option}: 90 % of the speed after {at_speed(reads, 0.9):.1f} s; {len(waits)} reads "
                  f"waited for the store, {sum(waits):.1f} s; the last of them after "
                  f"{max((at for at, s in reads if s >= a.latency / 1000), default=0):.1f} s; "
                  f"{status['get_requests']} GET, {status['store_bytes_read'] / MIB:.0f} MiB; "
                  f"{status['hot_parts_fetched']} parts fetched, {status['overtaking_reads']} overtakes",
                  flush=True)
        t.mount()


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["random", "scan", "hot"])
    p.add_argument("--build", default=os.environ.get("TEST_TOP_BUILDDIR", os.getcwd()))
    p.add_argument("--work", default=os.environ.get("CKPTFS_TEST_DIR", "/var/tmp"))
    p.add_argument("--store", choices=["file", "s3"], default="file")
    p.add_argument("--options", default="", help="of the mount")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--quota", type=int, default=64, help="MiB (%(default)s)")
    p.add_argument("--hot", type=int, default=16, help="MiB of the hot set (%(default)s)")
    p.add_argument("--limit", type=int, default=40, help="MiB/s from the store (%(default)s); hot: 0 is none")
    p.add_argument("--latency", type=int, default=30, help="ms; of hot (%(default)s)")
    p.add_argument("--seconds", type=int, default=16, help="of the reader (%(default)s)")
    a = p.parse_args()
    bench = Bench(a)
    try:
        bench.store.renew()
        {"random": random_reads, "scan": scan, "hot": after_restore}[a.what](bench, a)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
