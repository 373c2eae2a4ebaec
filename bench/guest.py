"""Start a guest (or the native run) and read what it measured.

Invariant: whatever happens to the guest, its processes are gone when a function
returns: each runs in a session of its own, which is killed at the end.
"""

import collections
import os
import re
import selectors
import signal
import subprocess
import sys
import time

Sample = collections.namedtuple("Sample", "ns iterations result skew why")

# No line for this long means that the guest hangs: four times a row's limit.
SILENCE_FACTOR = 4.5
NATIVE = """
set -e
mount -t tmpfs -o size=512m tmpfs "$1/tmp"
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
exec chroot "$1" /bin/busybox sh /init --native
"""


def command(args, env, initrd, append, memory):
    """The command that runs a guest with its console on stdin and stdout."""
    append = "console=ttyS0 " + append
    cpus = getattr(args, "cpus", 1)
    if env == "hvx":
        return [args.monitor, "run", f"--kernel={args.kernel}", f"--initrd={initrd}", f"--append={append}",
                f"--memory={memory}M", f"--cpus={cpus}", "--no-reboot", *args.monitor_args.split()]
    return [args.qemu, "-accel", "tcg,thread=multi" if cpus > 1 else "tcg,thread=single", "-cpu", "max", "-smp", str(cpus), "-m", str(memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", args.kernel, "-initrd", initrd, "-append", append]


def native_command(args):
    unshare = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-r", "-m"]
    return [*unshare, "sh", "-c", NATIVE, "sh", args.root]


class Process:
    """A running guest: its output as (host time, line), its descendants, its end."""

    def __init__(self, argv, env=None, verbose=False):
        self.verbose = verbose
        self.start = time.monotonic()
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  start_new_session=True, env=env)
        self.rest = b""

    def lines(self, silence):
        """Yield (host time, line) until the end of output; stop when silent for too long."""
        fd = self.p.stdout.fileno()
        with selectors.DefaultSelector() as sel:
            sel.register(fd, selectors.EVENT_READ)
            while True:
                if not sel.select(silence):
                    yield time.monotonic(), "SILENT"
                    return
                data = os.read(fd, 65536)
                if not data:
                    return
                now = time.monotonic()
                *whole, self.rest = (self.rest + data).split(b"\n")
                for raw in whole:
                    line = raw.decode("utf-8", "replace").strip()
                    if self.verbose and line:
                        print("  |", line, file=sys.stderr, flush=True)
                    yield now, line

    def pids(self):
        """This process and its descendants."""
        children = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    parent = int(f.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(pid))
        found = [self.p.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def end(self, patience=15):
        """Wait for the end, then make sure of it.  Returns the exit status, or None if it had to be killed."""
        status = None
        mine = self.pids()
        try:
            status = self.p.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        if status is None:
            mine = self.pids()
            for pid in mine:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.p.wait()
        self.p.stdin.close()
        self.p.stdout.close()
        return status


def run_rows(args, env):
    """Run the wanted rows once in env.  Returns {row: Sample}; a failed row has ns None and a reason."""
    if env == "native":
        environ = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "rows": args.rows,
                   "target": str(args.target_ms), "limit": str(args.limit_ms)}
        proc = Process(native_command(args), environ, args.verbose)
    else:
        append = f"quiet rows={args.rows} target={args.target_ms} limit={args.limit_ms}"
        proc = Process(command(args, env, args.initrd, append, args.memory), None, args.verbose)
    samples, tail = read_rows(proc, args.limit_ms / 1000 * SILENCE_FACTOR)
    status = proc.end()
    if status != 0:
        print(f"bench: {env} ended with status {status}; its last lines:", *tail, sep="\n  ", file=sys.stderr)
    return samples


def read_rows(proc, silence):
    samples, begun, name, done = {}, 0, None, False
    tail = collections.deque(maxlen=12)
    for now, line in proc.lines(silence):
        words = line.split()
        tail.append(line)
        if not words:
            continue
        if words[0] == "RUN" and len(words) == 2:
            name, begun = words[1], now
        elif words[0] == "ROW" and len(words) == 6:
            samples[words[1]] = sample_of(words, now - begun)
            name = None
        elif words[0] == "BAD" and len(words) == 3:
            samples[words[1]] = Sample(None, 0, "", 0, words[2])
            name = None
        elif line == "MARK done":
            done = True
        elif line == "SILENT":
            break
    if name:
        samples[name] = Sample(None, 0, "", 0, "guest-ended" if proc.p.poll() is not None else "hang")
    if not done:
        print("bench: the guest did not finish its rows", file=sys.stderr)
    return samples, tail


def sample_of(words, host):
    """A row's line with the host's idea of how long it took: skew is guest time over host time."""
    spent = int(words[5]) / 1e9
    skew = spent / host if host > 0.2 else 1.0
    return Sample(float(words[2]), int(words[3]), words[4], skew, "")


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+\s*(.*)$")


def memory_kib(pid, memory_mib):
    """(all, guest RAM) of a process in KiB: proportional set size, page tables counted as the process's own."""
    total = ram = 0
    is_ram = False
    try:
        with open(f"/proc/{pid}/smaps") as f:
            for line in f:
                head = HEADER.match(line)
                if head:
                    size = int(head[2], 16) - int(head[1], 16)
                    # HVX's RAM is a named memfd; QEMU's is one anonymous mapping of its size.
                    is_ram = "memfd:hvx-ram" in head[3] or (not head[3] and size >= memory_mib << 20)
                elif line.startswith("Pss:"):
                    kib = int(line.split()[1])
                    total += kib
                    ram += kib if is_ram else 0
        with open(f"/proc/{pid}/status") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("VmPTE:"))
    except OSError as e:
        print(f"bench: memory of process {pid}: {e}", file=sys.stderr)
    return total, ram


def run_system(args, env):
    """Boot the small guest once.  Returns boot seconds, MiB beyond the guest's RAM, idle CPU in per cent."""
    memory = 512
    proc = Process(command(args, env, args.shell_initrd, "", memory), None, args.verbose)
    found = {}
    for now, line in proc.lines(120):
        if line.startswith("hvx guest:"):
            found["boot"] = now - proc.start
            break
    if "boot" in found:
        time.sleep(3)
        pids = proc.pids()
        before, begun = cpu_seconds(pids), time.monotonic()
        time.sleep(6)
        found["idle"] = 100 * (cpu_seconds(pids) - before) / (time.monotonic() - begun)
        sizes = [memory_kib(pid, memory) for pid in pids]
        found["overhead"] = sum(t - r for t, r in sizes) / 1024
        found["ram"] = sum(r for _, r in sizes) / 1024
        found["processes"] = len(pids)
        proc.p.stdin.write(b"exit\n")
        proc.p.stdin.flush()
        for _ in proc.lines(20):
            pass
    else:
        print(f"bench: {env} did not reach init", file=sys.stderr)
    found["status"] = proc.end()
    return found
