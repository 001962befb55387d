# SPDX-License-Identifier: Apache-2.0
"""Where checkpoints go: a directory, or an S3 server from the environment (tests/with-s3)."""

import os
import re
import subprocess
import urllib.parse

from targets import Failed, run


class FileStore:
    endpoint = None

    def __init__(self, work):
        self.work = os.path.join(work, "store")

    def source(self, name):
        return f"file://{self.work}/{name}/tenant"

    def options(self):
        return []

    def put_all(self, paths, at_once):
        """Puts files as a plain client would: copies made durable, so many at once."""
        folder = os.path.join(self.work, "plain")
        os.makedirs(folder, exist_ok=True)
        in_parallel([["dd", f"if={p}", f"of={folder}/{os.path.basename(p)}", "bs=1M", "conv=fsync",
                      "status=none"] for p in paths], at_once)


class S3Store:
    """Credentials and place come from the variables that tests/with-s3 sets."""

    def __init__(self):
        self.endpoint = os.environ["CKPT_TEST_S3_ENDPOINT"]
        self.region = os.environ["CKPT_TEST_S3_REGION"]
        self.made = set()

    def curl(self, *arguments):
        key = os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]
        return ["curl", "-sS", "-f", "--noproxy", "*", "--user", key, "--aws-sigv4",
                f"aws:amz:{self.region}:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
                *arguments]

    def bucket(self, name):
        bucket = "bench-" + re.sub("[^a-z0-9-]", "-", name) + f"-{os.getpid()}"
        if bucket not in self.made:
            run(self.curl("-X", "PUT", f"{self.endpoint}/{bucket}"))
            self.made.add(bucket)
        return bucket

    def source(self, name):
        return f"s3://{self.bucket(name)}/prefix/tenant"

    def options(self):
        return [f"endpoint={self.endpoint}", f"region={self.region}"]

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
