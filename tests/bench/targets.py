# SPDX-License-Identifier: Apache-2.0
"""What is measured: directories, and how they come about and go."""

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

MIB = 1 << 20


class Failed(Exception):
    """A target or a workload could not do its part; the benchmark goes on without it."""


class TooSlow(Failed):
    """It may still be at it."""


def run(command, timeout=600, **keywords):
    """Runs a command and returns what it printed. What is not done in time is ended with its
    process group, and not waited for: it may be in a request that is never answered. (Jobs of fio
    have sessions of their own; Other.stop ends them.)"""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True,
                                   **keywords)
    except OSError as e:
        raise Failed(f"{command[0]}: {e.strerror}") from e
    try:
        printed, complaint = process.communicate(timeout=timeout)
    except BaseException as e:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(e, subprocess.TimeoutExpired):
            raise TooSlow(f"{command[0]}: not done after {timeout} s") from e
        raise
    if process.returncode != 0:
        text = (complaint.strip() or printed.strip()).splitlines()[-1:] or ["no message"]
        raise Failed(f"{' '.join(command[:3])}: ended with {process.returncode}: {text[0]}")
    return printed


def write_random(path, size):
    with open(path, "wb") as f:
        f.write(os.urandom(size))


def wait_until(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == path for line in f)


def drop_pages(directory):
    """Makes the kernel forget the pages of all files below a directory (of these only)."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isfile(path) or os.path.islink(path):
                continue
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def end_process(process, seconds=60):
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_all(word):
    """Processes whose command line has this word: what has put itself into the background, and may
    wait for ever for a server that is about to go."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                if word in f.read():
                    os.kill(int(pid), signal.SIGKILL)


def sync(path):
    run(["sync", "-f", path], 120)


class Directory:
    """A directory of a file system that is there: the plain disk, or one given by the user."""

    def __init__(self, name, path, temporary=False):
        self.name = name
        self.path = path
        self.temporary = temporary

    def start(self):
        os.makedirs(self.path, exist_ok=True)
        os.chmod(self.path, 0o755)

    def stop(self):
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def settle(self):
        """What was made for a workload is written before it begins."""
        sync(self.path)

    def drop_caches(self, directory):
        drop_pages(directory)

    def measuring(self):
        return Nothing()


class Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class Ckptfs:
    """A volume on a storage root of its own, mounted by a given program."""

    def __init__(self, name, bench, options="", program=None):
        self.name = name
        self.bench = bench
        self.options = options
        self.program = program or bench.ckptfs
        self.base = os.path.join(bench.work, name)
        self.root = os.path.join(self.base, "root")
        self.path = os.path.join(self.base, "mnt")
        self.process = None
        self.source = None

    def start(self):
        os.makedirs(self.path)
        os.makedirs(self.root)
        self.source = self.bench.store.source(self.name)
        self.mount()

    def mount(self, extra=""):
        """Mounts and returns how many seconds that took, until the first stat."""
        options = ["create", f"root={self.root}", f"checkpoint_interval={self.bench.interval}",
                   *self.bench.store.options(), self.options, extra]
        if os.geteuid() == 0:
            options.append("allow_other")
        log = open(os.path.join(self.base, "log"), "ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [self.program, "-f", "-o", ",".join(o for o in options if o), self.source, self.path],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        wait_until(f"the mount of {self.source}", 120,
                   lambda: is_mounted(self.path) or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise Failed(f"{self.program} ended with {self.process.returncode}; see {log.name}")
        os.stat(self.path)
        return time.monotonic() - began

    def unmount(self):
        run(["umount", self.path])
        wait_until("the daemon's end", 300, lambda: self.process.poll() is not None)
        if self.process.returncode != 0:
            raise Failed(f"the daemon of {self.name} ended with {self.process.returncode}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        subprocess.run(["umount", "-l", self.path], check=False, stderr=subprocess.DEVNULL)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            try:
                self.unmount()
            except Failed:
                end_process(self.process)
        if is_mounted(self.path):
            subprocess.run(["umount", "-l", self.path], check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def drop_caches(self, directory):
        """The kernel's pages of the files and of what the daemon has on disk."""
        drop_pages(directory)
        drop_pages(self.root)

    def settle(self):
        self.checkpoint()

    def checkpoint(self, *flags):
        run([self.bench.ckptctl, "checkpoint", *flags, self.path])

    def status(self):
        return json.loads(run([self.bench.ckptctl, "status", "--json", self.path]))

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self):
        """Memory of the daemon's own, without mapped files."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return sum(int(line.split()[1]) * 1024 for line in f
                       if line.startswith(("RssAnon", "RssShmem")))

    def measuring(self):
        return Nothing()


class Under:
    """A target under some circumstance, which __enter__ and __exit__ bring about and end."""

    def __init__(self, of, circumstance):
        self.of = of
        self.name = of.name + "+" + circumstance
        self.path = of.path

    def start(self):
        pass

    def stop(self):
        pass

    def drop_caches(self, directory):
        self.of.drop_caches(directory)

    def measuring(self):
        return self


class Awake(Under):
    """A target while idle processors poll, as ckptfs makes them while requests come fast."""

    def __init__(self, of):
        super().__init__(of, "awake")
        self.fd = -1

    def __enter__(self):
        self.fd = os.open("/dev/cpu_dma_latency", os.O_WRONLY)
        os.write(self.fd, struct.pack("=i", 0))
        return self

    def __exit__(self, *_):
        os.close(self.fd)


class Busy(Under):
    """A target while checkpoints of a ckptfs target run back to back: of its own, or, to see what of
    that is the disk's doing, the plain directory while a MiB of the other one goes through each time."""

    def __init__(self, of, volume=None):
        super().__init__(of, "checkpoints")
        self.volume = volume or of
        self.ended = threading.Event()
        self.thread = None
        self.error = None

    def __enter__(self):
        self.ended.clear()
        self.error = None
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()
        return self

    def loop(self):
        while not self.ended.is_set():
            try:
                if self.volume is not self.of:
                    write_random(os.path.join(self.volume.path, "beside"), MIB)
                self.volume.checkpoint()
            except (Failed, OSError) as e:
                self.error = e
                return

    def __exit__(self, kind, *_):
        self.ended.set()
        self.thread.join()
        if self.error and not kind:
            raise Failed(f"without checkpoints at the end: {self.error}")


class Other:
    """Another FUSE file system: commands that mount it, ended by unmounting."""

    def __init__(self, name, bench, mount, unmount_also=()):
        self.name = name
        self.bench = bench
        self.mount_commands = mount
        self.unmount_also = unmount_also
        self.base = os.path.join(bench.work, name)
        self.path = os.path.join(self.base, "mnt")
        self.processes = []

    def start(self):
        os.makedirs(self.path)
        for command in self.mount_commands(self):
            if command[0] == "&":
                with open(os.path.join(self.base, "log"), "ab") as log:
                    self.processes.append(subprocess.Popen(
                        command[1:], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            else:
                run(command, 120)
        try:
            wait_until(f"the mount of {self.name}", 20, lambda: is_mounted(self.path))
        except Failed as e:
            with open(os.path.join(self.base, "log"), "ab+") as log:
                log.seek(0)
                last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"{e}: {(last or ['it said nothing'])[0]}") from e

    def stop(self):
        for path in [self.path, *self.unmount_also_paths()]:
            if is_mounted(path):
                subprocess.run(["umount", "-l", path], check=False)
        for process in self.processes:
            end_process(process)
        self.processes = []
        kill_all(self.base)
        shutil.rmtree(self.base, ignore_errors=True)

    def settle(self):
        sync(self.path)

    def unmount_also_paths(self):
        return [os.path.join(self.base, name) for name in self.unmount_also]

    def drop_caches(self, directory):
        drop_pages(directory)
        for name in ("cache", "backing"):
            drop_pages(os.path.join(self.base, name))

    def measuring(self):
        return Nothing()


def passthrough(bench):
    """libfuse's example passthrough_ll, compiled from where Debian puts it."""
    source = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"
    if not os.path.exists(source) or not shutil.which("cc"):
        return None

    def commands(t):
        program = os.path.join(t.base, "passthrough_ll")
        backing = os.path.join(t.base, "backing")
        os.makedirs(backing)
        flags = run(["pkg-config", "--cflags", "--libs", "fuse3"]).split()
        yield ["cc", "-O2", "-w", "-o", program, source, *flags]
        yield ["&", program, "-f", "-o",
               f"source={backing},writeback,cache=always,allow_other", t.path]
    return Other("passthrough", bench, commands)


def s3fs(bench):
    if not shutil.which("s3fs") or not bench.store.endpoint:
        return None

    def commands(t):
        bucket = bench.store.bucket(t.name)
        yield ["s3fs", bucket, t.path, "-o", f"url={bench.store.endpoint}", "-o",
               "use_path_request_style,allow_other", "-o",
               f"use_cache={os.path.join(t.base, 'cache')}"]
    return Other("s3fs", bench, commands)


def rclone(bench):
    if not shutil.which("rclone") or not bench.store.endpoint:
        return None

    def commands(t):
        bucket = bench.store.bucket(t.name)
        # Its S3 client cannot take certificates from the environment.
        yield ["&", "env", "-u", "AWS_CA_BUNDLE", "rclone", "mount", "--config", "/dev/null", "--vfs-cache-mode", "full",
               "--cache-dir", os.path.join(t.base, "cache"), "--allow-other",
               f":s3,provider=Ceph,env_auth=true,endpoint='{bench.store.endpoint}':{bucket}",
               t.path]
    return Other("rclone", bench, commands)


def s3backer(bench):
    """s3backer's block device in a file, a loop device over it, ext4 on that."""
    if not shutil.which("s3backer") or not bench.store.endpoint or os.geteuid() != 0:
        return None

    def commands(t):
        bucket = bench.store.bucket(t.name)
        device = os.path.join(t.base, "device")
        os.makedirs(device)
        cache = os.path.join(t.base, "cache.file")
        yield ["s3backer", f"--baseURL={bench.store.endpoint}/", "--blockSize=128k", "--size=4g",
               "--listBlocks", "--blockCacheSize=8000", f"--blockCacheFile={cache}",
               f"--accessId={os.environ['AWS_ACCESS_KEY_ID']}",
               f"--accessKey={os.environ['AWS_SECRET_ACCESS_KEY']}", bucket, device]
        yield ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard",
               os.path.join(device, "file")]
        yield ["mount", "-o", "loop", os.path.join(device, "file"), t.path]
    return Other("s3backer+ext4", bench, commands, ("device",))


OTHERS = {"passthrough": passthrough, "s3fs": s3fs, "rclone": rclone, "s3backer": s3backer}
