# SPDX-License-Identifier: Apache-2.0
"""Where checkpoints go: a directory, or an S3 server from the environment (tests/with-s3)."""

import os
import re
import shutil
import subprocess
import urllib.parse

from targets import Failed, run


class FileStore:
    endpoint = None

    def __init__(self, work):
        self.work = os.path.join(work, "store")

    def renew(self):
        self.stop()

    def stop(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def source(self, name):
        folder = os.path.join(self.work, name)
        os.makedirs(folder, exist_ok=True)
        return f"file://{folder}/tenant"

    def options(self):
        return []

    def usage(self, name):
        """Objects of this source, and their bytes."""
        sizes = [os.path.getsize(os.path.join(d, n))
                 for d, _, names in os.walk(os.path.join(self.work, name)) for n in names]
        return len(sizes), sum(sizes)

    def put_all(self, paths, at_once):
        """Puts files as a plain client would: copies made durable, so many at once."""
        folder = os.path.join(self.work, "plain")
        os.makedirs(folder, exist_ok=True)
        in_parallel([["dd", f"if={p}", f"of={folder}/{os.path.basename(p)}", "bs=1M", "conv=fsync",
                      "status=none"] for p in paths], at_once)


class S3Store:
    """The server that the variables of tests/with-s3 name; else tests/s3-server, anew for each
    group of workloads, for it keeps in memory what is written over, too."""

    SERVER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../s3-server")

    def __init__(self, work):
        self.directory = os.path.join(work, "s3")
        self.own = "CKPT_TEST_S3_ENDPOINT" not in os.environ
        self.count = 0
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
        os.environ.setdefault("CKPT_S3_MEMORY_GB", str(max(2, memory // 4)))
        self.endpoint = self.region = None  # before the first renew
        self.made = set()

    def renew(self):
        self.stop()
        if self.own:
            os.makedirs(self.directory)
            for line in run([self.SERVER, "start", self.directory]).splitlines():
                name, _, value = line.partition("=")
                os.environ[name] = value
            os.environ["AWS_ACCESS_KEY_ID"] = os.environ["CKPT_TEST_S3_ACCESS_KEY"]
            os.environ["AWS_SECRET_ACCESS_KEY"] = os.environ["CKPT_TEST_S3_SECRET_KEY"]
            for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
                os.environ.pop(name, None)
        self.endpoint = os.environ["CKPT_TEST_S3_ENDPOINT"]
        self.region = os.environ["CKPT_TEST_S3_REGION"]
        self.count += 1
        self.made = set()

    def stop(self):
        if self.own and os.path.isdir(self.directory):
            run([self.SERVER, "stop", self.directory])
            shutil.rmtree(self.directory, ignore_errors=True)

    def curl(self, *arguments):
        key = os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]
        return ["curl", "-sS", "-f", "--noproxy", "*", "--user", key, "--aws-sigv4",
                f"aws:amz:{self.region}:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
                *arguments]

    def bucket(self, name):
        bucket = "bench-" + re.sub("[^a-z0-9-]", "-", name) + f"-{os.getpid()}-{self.count}"
        if bucket not in self.made:
            run(self.curl("-X", "PUT", f"{self.endpoint}/{bucket}"))
            self.made.add(bucket)
        return bucket

    def source(self, name):
        return f"s3://{self.bucket(name)}/prefix/tenant"

    def options(self):
        return [f"endpoint={self.endpoint}", f"region={self.region}"]

    def usage(self, name):
        """As above, from listings of the bucket."""
        sizes, token = [], ""
        while True:
            query = (f"continuation-token={urllib.parse.quote(token, safe='')}&" if token else "")
            text = run(self.curl(f"{self.endpoint}/{self.bucket(name)}?{query}list-type=2"))
            sizes += [int(size) for size in re.findall("<Size>([0-9]+)</Size>", text)]
            more = re.search("<NextContinuationToken>([^<]+)</NextContinuationToken>", text)
            if not more:
                return len(sizes), sum(sizes)
            token = more.group(1)

    def put_all(self, paths, at_once):
        bucket = self.bucket("plain")
        # No header of one's own beside the hash: curl would sign it as it does not send it.
        in_parallel([self.curl("-T", p,
                               f"{self.endpoint}/{bucket}/{urllib.parse.quote(os.path.basename(p))}")
                     for p in paths], at_once)


def in_parallel(commands, at_once):
    waiting = list(commands)
    running = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(subprocess.Popen(waiting.pop(0), stdin=subprocess.DEVNULL))
        process = running.pop(0)
        if process.wait() != 0:
            for other in running:
                other.wait()
            raise Failed(f"{process.args[0]} ended with {process.returncode}")
