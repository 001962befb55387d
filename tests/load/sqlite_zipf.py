#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sqlite_zipf.py make DB MIB | run DB SECONDS INTERVAL

A database of rows of 1,000 bytes, and rows by key with a Zipf distribution (exponent 1): four in
five are read, one is changed in a transaction of its own. Prints the number of operations at the end
of each interval. SQLite's own cache is small, so that the file system is what is measured."""
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


def run(path, seconds, interval):
    random.seed(1)
    db = connect(path)
    rows = db.execute("SELECT max(k) + 1 FROM t").fetchone()[0]
    sums = list(itertools.accumulate(1 / rank for rank in range(1, RANKS + 1)))
    began = time.monotonic()
    done, shown = 0, 0
    while shown * interval < seconds:
        rank = bisect.bisect(sums, random.random() * sums[-1])
        # Neighbours by rank lie far from each other in the file.
        key = (rank * 40503 % RANKS * rows // RANKS + random.randrange(max(rows // RANKS, 1))) % rows
        if random.randrange(5) == 0:
            db.execute("UPDATE t SET body = ? WHERE k = ?", (os.urandom(ROW_BYTES), key))
        else:
            db.execute("SELECT body FROM t WHERE k = ?", (key,)).fetchone()
        done += 1
        if time.monotonic() - began >= (shown + 1) * interval:
            print(done, flush=True)
            done = 0
            shown += 1


if sys.argv[1] == "make":
    make(sys.argv[2], int(sys.argv[3]))
else:
    run(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
