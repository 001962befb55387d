#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sqlite_zipf.py make DB MIB | run SECONDS SLICE DB... | forget DIRECTORY SECONDS

make    a database of rows of 1,000 bytes
run     picks rows by key with a Zipf distribution (exponent 1): four in five are read, one is changed
        in a transaction of its own. The databases take turns of SLICE seconds, until each has had
        SECONDS. Prints at the end of each turn the database's number, from 0 on, and its operations.
        SQLite's own cache is small, so that the file system is what is measured.
forget  asks the kernel, in turns of so many seconds, to drop what it has cached of all files of a
        directory: it stands for a memory that is much smaller than the data. Until it is killed."""
import bisect
import itertools
import os
import random
import sqlite3
import sys
import time

ROW_BYTES = 1000
RANKS = 65536  # of so many groups of rows; within a group all rows are alike


def connect(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA cache_size=-2000")
    return db


def make(path, mib):
    db = connect(path)
    db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, body BLOB)")
    rows = mib * 1024 * 1024 // (ROW_BYTES + 24)
    for first in range(0, rows, 5000):
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES(?, ?)",
                       ((k, os.urandom(ROW_BYTES)) for k in range(first, min(first + 5000, rows))))
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def turn(db, rows, sums, chance, seconds):
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        rank = bisect.bisect(sums, chance.random() * sums[-1])
        # Neighbours by rank lie far from each other in the file.
        key = (rank * 40503 % RANKS * rows // RANKS + chance.randrange(max(rows // RANKS, 1))) % rows
        if chance.randrange(5) == 0:
            db.execute("UPDATE t SET body = ? WHERE k = ?", (os.urandom(ROW_BYTES), key))
        else:
            db.execute("SELECT body FROM t WHERE k = ?", (key,)).fetchone()
        done += 1
    return done


def run(seconds, length, paths):
    dbs = [connect(path) for path in paths]
    chances = [random.Random(1) for _ in dbs]
    rows = dbs[0].execute("SELECT max(k) + 1 FROM t").fetchone()[0]
    sums = list(itertools.accumulate(1 / rank for rank in range(1, RANKS + 1)))
    for _ in range(max(int(seconds / length), 1)):
        for i, db in enumerate(dbs):
            print(i, turn(db, rows, sums, chances[i], length), flush=True)


def forget(directory, seconds):
    while True:
        for where, _, names in os.walk(directory):
            for name in names:
                try:
                    fd = os.open(os.path.join(where, name), os.O_RDONLY | os.O_NONBLOCK)
                except OSError:
                    continue
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                except OSError:
                    pass
                os.close(fd)
        time.sleep(seconds)


if sys.argv[1] == "make":
    make(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "forget":
    forget(sys.argv[2], float(sys.argv[3]))
else:
    run(float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
