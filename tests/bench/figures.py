# SPDX-License-Identifier: Apache-2.0
"""What is measured on ckptfs alone, each against a floor: the store used plainly, the log read
once, an empty volume. Every figure is one number `ours`, the `floor` beside it in the same run, and
a limit of ours / floor (or of `ours` itself where there is no floor)."""

import json
import os
import shutil
import time

from targets import Ckptfs, Failed, MIB, drop_pages, run
from workloads import Place


class Figure:
    def __init__(self, group, name, title, unit, floor, limit):
        self.group = group
        self.name = name
        self.title = title
        self.unit = unit
        self.floor = floor  # what the floor is, in words
        self.limit = limit  # (text) of ours / floor


FIGURES = [
    Figure("checkpoint", "upload-rate", "upload of a checkpoint", "MiB/s",
           "a plain parallel client", ">= 0.9"),
    Figure("checkpoint", "checkpoint-rate", "whole checkpoint: fold and upload", "MiB/s",
           "a plain parallel client", None),
    Figure("checkpoint", "checkpoint-cpu", "CPU of a checkpoint", "s/GiB", "LZ4 + SHA-256",
           "<= 1.3"),
    Figure("checkpoint", "checkpoint-cpu-half", "the same, pages that compress to a half", "s/GiB",
           "LZ4 + SHA-256", "<= 1.3"),
    Figure("checkpoint", "checkpoint-bytes", "bytes uploaded for each changed byte", "", None, None),
    Figure("checkpoint", "checkpoint-requests", "requests for a checkpoint", "requests/GiB", None,
           None),
    Figure("cold", "cold-read", "4 KiB random read, only in the store", "us (median)",
           "one ranged GET of 4 KiB", "<= 1.5"),
    Figure("cold", "cold-stream", "sequential read, only in the store", "MiB/s",
           "parallel plain GETs", ">= 0.9"),
    Figure("cold", "first-query", "mount on a bare host to the first query's result", "s", None,
           None),
    Figure("cold", "full-speed", "the same to 90 % of the speed of warm point reads", "s", None,
           None),
    Figure("recovery", "recovery", "mount after a crash", "s", "reading the log once", "<= 2"),
    Figure("catalogue", "mount-empty", "mount of an empty volume", "s", None, None),
    Figure("catalogue", "mount-16384", "mount with 16,384 chunks, over an empty one", "s", None,
           "<= 0.1"),
    Figure("catalogue", "memory-16384", "memory for each of 16,384 chunks", "bytes", None,
           "<= 200"),
    Figure("catalogue", "mount-163840", "mount with 163,840 chunks, over an empty one", "s", None,
           None),
    Figure("catalogue", "memory-163840", "memory for each of 163,840 chunks", "bytes", None,
           "<= 200"),
]


def write_random(path, size, random=4096):
    """Of each page the first bytes are random and the others zeros."""
    with open(path, "wb") as f:
        for _ in range(0, size, MIB):
            if random == 4096:
                f.write(os.urandom(MIB))
            else:
                f.write(b"".join(os.urandom(random) + bytes(4096 - random)
                                 for _ in range(0, MIB, 4096)))
        f.flush()
        os.fsync(f.fileno())


def last_event(target, event):
    found = None
    with open(os.path.join(target.base, "log"), encoding="utf-8") as f:
        for line in f:
            if event in line and line.startswith("{"):
                entry = json.loads(line)
                found = entry if entry.get("event") == event else found
    if not found:
        raise Failed(f"the log has no {event}")
    return found


class Quiet(Ckptfs):
    """A volume of its own that makes checkpoints only on demand."""

    def __init__(self, bench, name, options=""):
        super().__init__(name, bench, ",".join(["checkpoint_interval=0", "wal_limit=4G", options]))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def mount_bare(self):
        """Unmounts, loses the storage root and mounts from the store."""
        self.unmount()
        shutil.rmtree(self.root)
        os.makedirs(self.root)
        return self.mount()


# ---- checkpoints ----------------------------------------------------------------------------------


def settled_cpu_seconds(t):
    """When what the writes left to do (segments of the log that are made ahead) is done."""
    cpu = t.cpu_seconds()
    for _ in range(20):
        time.sleep(0.5)
        last, cpu = cpu, t.cpu_seconds()
        if cpu - last < 0.02:
            break
    return cpu


def timed_checkpoint(bench, t, data):
    """Of this file: its seconds, its CPU and that of its floor in s/GiB."""
    gib = os.path.getsize(data) / MIB / 1024
    cpu = settled_cpu_seconds(t)
    began = time.monotonic()
    t.checkpoint()
    seconds = time.monotonic() - began
    cpu = t.cpu_seconds() - cpu
    floor = json.loads(run([os.path.join(bench.helpers, "bench_io"), "cpu", data]))
    return seconds, cpu / gib, floor["cpu_seconds"] / gib


def checkpoint(bench, add):
    size = bench.megabytes
    plain = [os.path.join(bench.work, f"put-{i}") for i in range(max(size // 64, 1))]
    for path in plain:
        write_random(path, size * MIB // len(plain))
    with Quiet(bench, "checkpoint") as t:
        for _ in range(bench.runs):
            data = os.path.join(t.path, "data")
            write_random(data, size * MIB, random=2048)
            _, cpu, floor = timed_checkpoint(bench, t, data)
            add("checkpoint-cpu-half", cpu, floor)
            write_random(data, size * MIB)
            before = t.status()
            seconds, cpu, floor = timed_checkpoint(bench, t, data)
            after = t.status()
            upload = last_event(t, "checkpoint.uploaded")
            began = time.monotonic()
            bench.store.put_all(plain, 4)
            plain_rate = size / (time.monotonic() - began)
            add("upload-rate", upload["uploaded_bytes"] / MIB / (upload["duration_ms"] / 1e3),
                plain_rate)
            add("checkpoint-rate", size / seconds, plain_rate)
            add("checkpoint-cpu", cpu, floor)
            add("checkpoint-bytes",
                (after["store_bytes_written"] - before["store_bytes_written"]) / (size * MIB))
            requests = sum(after[k] - before[k] for k in after if k.endswith("_requests"))
            add("checkpoint-requests", requests / size * 1024)
    for path in plain:
        os.unlink(path)


# ---- data that is only in the store ---------------------------------------------------------------


def cold(bench, add):
    size = bench.megabytes
    with Quiet(bench, "cold", "no_hot_set") as t:
        place = Place(bench, t, "files")
        write_random(place.file("data"), size * MIB)
        place.helper("bench_sqlite", "make", place.file("query.db"), "delete", 400000)
        t.checkpoint()
        for _ in range(bench.runs):
            t.mount_bare()
            got = place.helper("bench_io", "spread", place.file("data"), 200)
            raw = place.helper("bench_store", "ranged", t.source, 200, 4096)
            add("cold-read", got["p50_us"], raw["p50_us"])
            t.mount_bare()
            began = time.monotonic()
            with open(place.file("data"), "rb", buffering=0) as f:
                while f.read(MIB):
                    pass
            seconds = time.monotonic() - began
            raw = place.helper("bench_store", "stream", t.source, 8)
            add("cold-stream", size / seconds, raw["bytes"] / MIB / raw["seconds"])
            first_query(place, t, add)


def first_query(place, t, add):
    began = time.monotonic()
    t.mount_bare()
    place.helper("bench_sqlite", "query", place.file("query.db"))
    add("first-query", time.monotonic() - began)
    speeds = []
    while time.monotonic() - began < 60:
        speeds.append((time.monotonic() - began,
                       place.helper("bench_sqlite", "read", place.file("query.db"), 1)["per_second"]))
        if len(speeds) > 4 and max(s for _, s in speeds[-4:]) < 1.1 * min(s for _, s in speeds[-4:]):
            break
    best = max(s for _, s in speeds)
    add("full-speed", next(at for at, s in speeds if s >= 0.9 * best))


# ---- recovery and mounting ------------------------------------------------------------------------


def recovery(bench, add):
    size = bench.megabytes
    for _ in range(bench.runs):
        with Quiet(bench, "recovery") as t:
            write_random(os.path.join(t.path, "data"), size * MIB)
            t.kill()
            drop_pages(t.root)
            began = time.monotonic()
            read = 0
            for folder, _, names in os.walk(t.root):
                for name in names:
                    if not name.startswith("segment-"):
                        continue
                    with open(os.path.join(folder, name), "rb", buffering=0) as f:
                        while n := len(f.read(MIB)):
                            read += n
            floor = time.monotonic() - began
            drop_pages(t.root)
            # Spare segments hold no records; they are not part of the log.
            add("recovery", t.mount(), floor * min(1, size * MIB / max(read, 1)))


def catalogue(bench, add):
    empty_seconds, empty_bytes = [], []
    with Quiet(bench, "empty") as t:
        for _ in range(bench.runs):
            t.unmount()
            empty_seconds.append(t.mount())
            empty_bytes.append(t.memory_bytes())
            add("mount-empty", empty_seconds[-1])
    sizes = [16384, 163840] if bench.long else [16384]
    for count in sizes:
        with Quiet(bench, f"chunks-{count}") as t:
            run([os.path.join(bench.helpers, "bench_io"), "chunks", t.path, str(count)], 3600)
            t.checkpoint()
            for i in range(bench.runs):
                t.unmount()
                add(f"mount-{count}", t.mount() - empty_seconds[i])
                add(f"memory-{count}", (t.memory_bytes() - empty_bytes[i]) / count)


GROUPS = {"checkpoint": checkpoint, "cold": cold, "recovery": recovery, "catalogue": catalogue}
