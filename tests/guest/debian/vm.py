"""A running Debian guest, in HVX or in QEMU TCG: start, ssh, scp, button, end.

Invariant: whatever happens, close() leaves no process and no file of this guest
behind; both emulators get the same disk, kernel, memory and kind of network
(passt), so a difference is the emulator's.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
LOGIN = r"hvx-debian login: "


class Failed(Exception):
    """The guest did not do what was asked in time; the text says what."""


def build_image(*options):
    """Run mkimage.sh; returns the image's directory."""
    done = subprocess.run(["sh", os.path.join(HERE, "mkimage.sh"), *options], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed("no image")
    return done.stdout.strip()


def find_monitor(named=None):
    """The hvx-monitor to run: named, HVX_MONITOR, or the one of the build tree."""
    for path in (named, os.environ.get("HVX_MONITOR"), "hvx-monitor", os.path.join(TOP, "build", "hvx-monitor")):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    raise Failed("no hvx-monitor: build it (./quickstart build) or set HVX_MONITOR")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def copy_disk(image, target):
    """A private copy of the image's disk, sparse as it is."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", os.path.join(image, "disk.raw"), target], check=True)


def descendants(pid):
    """pid and every process below it."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as f:
                children.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        except OSError:
            continue
    found = [pid]
    for p in found:
        found += children.get(p, [])
    return found


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Guest:
    """One start of a VMM.  vmm is hvx or tcg; disks are raw files, the first has the root file system."""

    def __init__(self, vmm, image, disks, *, monitor=None, qemu="qemu-system-x86_64", memory=1024, ports=(22,),
                 append="", extra=(), keep=None):
        self.vmm, self.image, self.disks, self.memory, self.extra = vmm, image, list(disks), memory, list(extra)
        self.monitor, self.qemu = monitor, qemu
        self.ports = {p: free_port() for p in ports}
        self.name = f"debian{os.getpid()}-{self.ports[22]}"
        self.work = tempfile.mkdtemp(prefix="hvx-guest.")
        self.console = os.path.join(keep or self.work, "console")
        with open(os.path.join(image, "append")) as f:
            self.append = f"{f.read().strip()} {append}".strip()
        self.helpers = []
        self.process = None

    # ---- starting ----

    def command(self):
        """The VMM's command line, its console on standard output."""
        kernel, initrd = (os.path.join(self.image, f) for f in ("vmlinuz", "initrd.img"))
        if self.vmm == "hvx":
            forwards = "".join(f",forward=tcp:127.0.0.1:{host}:{guest}" for guest, host in self.ports.items())
            disks = [f"--disk=path={d},format=raw" for d in self.disks]
            return [self.monitor, "run", f"--name={self.name}", f"--kernel={kernel}", f"--initrd={initrd}",
                    f"--append={self.append}", f"--memory={self.memory}M", *disks, f"--net=user{forwards}", *self.extra]
        words = [self.qemu, "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-smp", "1", "-m", str(self.memory),
                 "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
                 "-qmp", f"unix:{self.work}/qmp,server=on,wait=off",
                 "-kernel", kernel, "-initrd", initrd, "-append", self.append]
        for i, d in enumerate(self.disks):
            words += ["-drive", f"file={d},format=raw,if=none,id=d{i},cache=writeback,aio=threads,discard=unmap",
                      "-device", f"virtio-blk-pci,drive=d{i},disable-legacy=on"]
        return words + ["-netdev", f"stream,id=n0,server=off,addr.type=unix,addr.path={self.work}/net",
                        "-device", "virtio-net-pci,netdev=n0,disable-legacy=on", *self.extra]

    def start_passt(self):
        """TCG's network: what HVX's monitor starts for itself."""
        forwards = [w for guest, host in self.ports.items() for w in ("-t", f"127.0.0.1/{host}:{guest}")]
        # passt would become nobody, to whom QEMU of root does not talk
        root = ["--runas", "0"] if os.getuid() == 0 else []
        p = subprocess.Popen(["passt", "--foreground", "--one-off", "--quiet", "--socket", f"{self.work}/net", *root, *forwards],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.helpers.append(p)
        self.until(lambda: os.path.exists(f"{self.work}/net") or p.poll() is not None, 10, "passt did not start")

    def start(self):
        if self.vmm == "tcg":
            self.start_passt()
        with open(self.console, "wb") as out:
            self.started = time.monotonic()
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.STDOUT, start_new_session=True)
        return self

    # ---- watching ----

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what} (waited {seconds} s)")
            time.sleep(0.05)

    def output(self):
        with open(self.console, "rb") as f:
            return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", f.read().decode("utf-8", "replace"))

    def wait_console(self, pattern, seconds, times=1):
        """Wait until the console has shown pattern that often; returns seconds since the start."""
        def seen():
            text = self.output()
            if len(re.findall(pattern, text)) >= times:
                return True
            if self.process.poll() is not None:
                raise Failed(f"the VMM ended with status {self.process.returncode} before the console showed {pattern!r}")
            if "Kernel panic" in text:
                raise Failed("the guest's kernel panicked")
            return False
        self.until(seen, seconds, f"the console did not show {pattern!r}")
        return time.monotonic() - self.started

    def wait_multi_user(self, seconds, times=1):
        """Wait until the guest is up and answers by ssh; returns the seconds from the start to multi-user.target.

        systemd itself says when that was: a getty takes the console away from its messages."""
        self.wait_console(LOGIN, seconds, times)
        self.wait_ssh()
        self.ssh("systemctl is-system-running --wait", seconds, check=False)
        now = time.monotonic() - self.started
        up = float(self.ssh("cut -d ' ' -f 1 /proc/uptime"))
        reached = int(self.ssh("systemctl show --value -p ActiveEnterTimestampMonotonic multi-user.target"))
        if not reached:
            raise Failed("multi-user.target was not reached")
        return now - up + reached / 1e6

    # ---- talking ----

    def ssh_options(self, port_letter):
        return ["-F", "/dev/null", "-i", os.path.join(self.image, "key"), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20",
                port_letter, str(self.ports[22])]

    def ssh(self, command, seconds=60, check=True):
        """Run a shell command in the guest; returns its output, or with check=False (status, output)."""
        try:
            done = subprocess.run(["ssh", *self.ssh_options("-p"), "root@127.0.0.1", command], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"ssh {shlex.quote(command)}: nothing in {seconds} s") from e
        if not check:
            return done.returncode, done.stdout
        if done.returncode:
            raise Failed(f"ssh {shlex.quote(command)}: status {done.returncode}: {done.stdout.strip()[-500:]}")
        return done.stdout

    def wait_ssh(self, seconds=60):
        end = time.monotonic() + seconds
        while self.ssh("true", check=False)[0]:
            if time.monotonic() > end or self.process.poll() is not None:
                raise Failed("no answer by ssh")
            time.sleep(0.5)

    def scp(self, source, target, seconds=600):
        """Copy a file; the guest's side is written guest:PATH."""
        words = [w.replace("guest:", "root@127.0.0.1:") if w.startswith("guest:") else w for w in (source, target)]
        done = subprocess.run(["scp", "-q", *self.ssh_options("-P"), *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
        if done.returncode:
            raise Failed(f"scp {source} {target}: {done.stdout.strip()}")

    # ---- ending ----

    def press_button(self):
        """hvx-monitor stop, or QEMU's power button.  The command's own status is checked."""
        if self.vmm == "hvx":
            subprocess.run([self.monitor, "stop", self.name, "--timeout=90"], check=True, timeout=100)
            return
        self.qmp('{"execute":"system_powerdown"}')

    def link(self, up):
        """Pull the network cable, or put it back."""
        if self.vmm == "hvx":
            subprocess.run([self.monitor, "link", self.name, "net0", "up" if up else "down"], check=True, timeout=20)
        else:
            self.qmp('{"execute":"set_link","arguments":{"name":"n0","up":%s}}' % str(up).lower())

    def qmp(self, request):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f"{self.work}/qmp")
            s.sendall(b'{"execute":"qmp_capabilities"}' + request.encode())
            time.sleep(0.5)

    def end(self, seconds=90):
        """Wait for the VMM to end by itself; returns its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"the VMM did not end in {seconds} s") from e

    def crash(self):
        """SIGKILL to every process of the VM."""
        kill_all(descendants(self.process.pid))
        self.process.wait()

    def close(self):
        if self.process and self.process.poll() is None:
            self.crash()
        for p in self.helpers:
            p.kill()
            p.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind is Failed:
            print("the console's last lines:", *self.output().split("\n")[-20:], sep="\n  # ", file=sys.stderr)
        self.close()
