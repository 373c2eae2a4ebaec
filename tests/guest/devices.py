#!/usr/bin/env python3
# The devices that hvx-vcpu serves itself, and what drivers do to a disk, with Linux's own; one line a check, in TAP.
#
# usage: devices.py cloud|generic [CHECK...]      (generic: the watchdog and AHCI; cloud: the others)
# HVX_MONITOR names the hvx-monitor to use (default: that of the build tree it is called from).
#
# Invariant: what the guest says is compared with what the host sees; nothing is left behind.
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

here = os.path.dirname(os.path.abspath(__file__))
monitor = os.environ.get("HVX_MONITOR", os.path.join(os.getcwd(), "hvx-monitor"))
name = "dev%d" % os.getpid()
MIB = 1 << 20
PATIENCE = 6  # how many times longer than on an idle host something may take before it counts as hung


class Guest:
    """A VM in the foreground; its console is a pipe to init-devices."""

    def __init__(self, *options, memory="256M", append="", vm="", within=()):
        self.name = name + vm
        command = list(within) + [monitor, "run", "--name=" + self.name, "--kernel=" + kernel, "--initrd=" + initrd, "--memory=" + memory,
                   "--append=console=ttyS0 panic=-1 quiet " + append] + list(options)
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = ""
        self.until("DONE ready\n", 60)

    def until(self, what, seconds=30):
        """The text up to and without what; what comes after it stays for the next call."""
        end = time.time() + PATIENCE * seconds
        while what not in self.text:
            left = end - time.time()
            if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
                raise AssertionError("no %r in %r" % (what, self.text[-1500:]))
            data = os.read(self.p.stdout.fileno(), 65536)
            if not data:
                raise AssertionError("ended without %r: %r" % (what, self.text[-1500:]))
            self.text += data.decode(errors="replace").replace("\r", "")
        got, self.text = self.text.split(what, 1)
        return got

    def send(self, line):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()

    def run(self, line, seconds=30):
        """Runs a line in the guest; its output. It must succeed."""
        self.send(line)
        out = self.until("DONE ", seconds)
        status = self.until("\n")
        assert status == "0", "%s: status %s: %s" % (line, status, out)
        return out.strip()

    def stats(self):
        return json.loads(subprocess.check_output([monitor, "stats", "--json", self.name]))

    def end(self):
        """Powers it off: its exit status. The kernel has nothing to complain of."""
        if self.p.poll() is None:
            log = self.run("dmesg | grep -E 'Call Trace|Oops|BUG:|WARNING:|bad page|nobody cared|Spurious' || true")
            assert log == "", log
            self.send("poweroff -f")
        try:
            self.p.communicate(timeout=PATIENCE * 20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise AssertionError("does not power off")
        return self.p.returncode


def control(*words):
    return subprocess.run([monitor] + list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def within(seconds, what):
    """Waits until what() is true."""
    end = time.time() + PATIENCE * seconds
    while not what():
        assert time.time() < end, "not within %d s" % seconds
        time.sleep(0.1)


# ---- checks ----

def check_rng():
    g = Guest("--rng=bytes=64K,bytes-burst=64K")
    assert g.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"
    one, two = (g.run("head -c 64 /dev/hwrng | md5sum") for _ in range(2))
    assert one != two
    begin = time.time()
    g.run("head -c 262144 /dev/hwrng >/tmp/r; test $(stat -c %s /tmp/r) = 262144; gzip -c /tmp/r >/tmp/z; "
          "test $(stat -c %s /tmp/z) -gt 262144")
    took = time.time() - begin
    assert 2.5 < took < PATIENCE * 15, "256 KiB at 64 KiB/s took %.1f s" % took
    s = g.stats()
    assert s["rng.bytes"] >= 262144 + 128 and s["rng.throttled"] > 0 and s["rng.limit_bytes"] == 65536, s
    # another limit while a reader waits by the old one
    assert control("limit", name, "rng", "bytes=100", "bytes-burst=100").returncode == 0
    g.run("(head -c 65536 /dev/hwrng >/tmp/r2; touch /tmp/done) & sleep 1; test ! -e /tmp/done")
    s = g.stats()
    assert s["rng.limit_bytes"] == 100 and s["rng.limit_bytes_burst"] == 100, s
    assert control("limit", name, "rng", "bytes=none").returncode == 0
    g.run("for i in 1 2 3 4 5; do [ -e /tmp/done ] || sleep 1; done; test -e /tmp/done")
    assert g.run("cd /sys/bus/virtio/drivers/virtio_rng; echo virtio0 >unbind; echo virtio0 >bind; "
                 "head -c 16 /dev/hwrng | wc -c") == "16"
    assert g.stats()["rng.resets"] >= 1
    assert g.end() == 0


def check_disk_drivers():
    """Drivers that let go in the middle of reads and writes, at both levels; the data stays what it is."""
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/disk.raw", "wb") as f:
            f.write(os.urandom(16 * MIB) + bytes(16 * MIB))
        g = Guest("--disk=id=d,path=" + tmp + "/disk.raw")
        half = "dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum"
        want = g.run(half)
        with open(tmp + "/disk.raw", "rb") as f:
            assert want.split()[0] == hashlib.md5(f.read(16 * MIB)).hexdigest()
        # whatever fails while the driver goes must not come back as success with other data
        work = ("(while [ -e /tmp/go ]; do echo 3 >/proc/sys/vm/drop_caches; "
                "dd if=/dev/vda of=/dev/null bs=1M; dd if=/tmp/junk of=/dev/vda seek=20 bs=1M conv=fsync; done) >/dev/null 2>&1 &")
        g.run("dd if=/dev/urandom of=/tmp/junk bs=1M count=8")
        pci = g.run("cd /sys/bus/virtio/devices/virtio0; basename $(readlink -f ..)")
        for turn, (where, what) in enumerate([("virtio/drivers/virtio_blk", "virtio0"), ("pci/drivers/virtio-pci", pci)] * 2):
            g.run("touch /tmp/go; " + work)
            time.sleep(0.05 + 0.1 * (turn % 3))
            g.run("cd /sys/bus/%s; echo %s >unbind; rm /tmp/go; wait; test ! -b /dev/vda && rm -f /dev/vda" % (where, what))
            g.run("cd /sys/bus/%s; echo %s >bind; for i in 1 2 3 4 5; do [ -b /dev/vda ] || sleep 1; done; "
                  "echo 3 >/proc/sys/vm/drop_caches" % (where, what))
            assert g.run(half) == want, "turn %d" % turn
        g.run("dd if=/tmp/junk of=/dev/vda seek=20 bs=1M conv=fsync; echo 3 >/proc/sys/vm/drop_caches; "
              "dd if=/dev/vda skip=20 bs=1M count=8 | cmp - /tmp/junk")
        s = g.stats()
        assert s["d.resets"] >= 4 and s["d.broken"] == 0, s
        assert "error" not in g.run("dmesg | grep -i 'virtio.*error' || true")
        assert g.end() == 0


def each_cpu_its_queue(g):
    """What a CPU reads from /dev/vdb interrupts that CPU."""
    counts = "grep virtio1-req /proc/interrupts | awk '{ for (i = 2; i < 6; i++) n[i] += $i } END { print n[2], n[3], n[4], n[5] }'"
    for cpu in range(4):
        before = [int(n) for n in g.run(counts).split()]
        g.run("taskset -c %d dd if=/dev/vdb of=/dev/null bs=4k count=200 iflag=direct 2>/dev/null" % cpu)
        grown = [int(n) - b for n, b in zip(g.run(counts).split(), before)]
        assert grown[cpu] >= 100 and sum(grown) - grown[cpu] < 100, (cpu, grown)


def check_disk_cpus():
    """Interrupts of a disk, of one queue or a queue a CPU, go to other CPUs while all read from it; nothing is lost or late."""
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/disk.raw", "wb") as f:
            f.write(os.urandom(8 * MIB))
        with open(tmp + "/disk.raw", "rb") as f:
            want = hashlib.md5(f.read()).hexdigest()
        disk = "path=" + tmp + "/disk.raw,readonly"
        g = Guest("--disk=queues=1," + disk, "--disk=" + disk, "--cpus=4")
        assert g.run("ls /sys/block/vda/mq | wc -l; ls /sys/block/vdb/mq | wc -l").split() == ["1", "4"]
        each_cpu_its_queue(g)
        read = "dd if=/dev/vd$d bs=16k iflag=direct 2>/dev/null | md5sum"
        g.run("touch /tmp/go; for d in a b a b; do (while [ -e /tmp/go ]; do " + read + "; done >>/tmp/sums) & done; sleep 1")
        where = set()
        for turn in range(2):
            for cpu in (3, 2, 1):
                g.run("echo 0 >/sys/devices/system/cpu/cpu%d/online; for d in a b; do %s >/tmp/one; grep -q %s /tmp/one || break; done"
                      % (cpu, read, want), 60)
                counts = g.run("grep virtio0-req /proc/interrupts | awk '{ print $2, $3, $4, $5 }'").splitlines()
                where |= {c for line in counts for c, n in enumerate(line.split()) if n.isdigit() and int(n)}
            g.run("for c in 1 2 3; do echo 1 >/sys/devices/system/cpu/cpu$c/online; done")
        g.run("rm /tmp/go; wait; test $(wc -l </tmp/sums) -ge 8; ! grep -v %s /tmp/sums" % want, 60)
        assert len(where) > 1, where
        assert g.end() == 0


def check_many_disks():
    """A dozen disks, beside everything else that has a place on the bus: each is its own, in order."""
    with tempfile.TemporaryDirectory() as tmp:
        paths = [tmp + "/%d.raw" % i for i in range(12)]
        for p in paths:
            with open(p, "wb") as f:
                f.write(os.urandom(MIB) + bytes(MIB))
        g = Guest("--balloon", "--rng", "--virtio-console=file:" + tmp + "/out", "--watchdog=none",
                  *("--disk=serial=n%d,path=%s" % (i, p) for i, p in enumerate(paths)))
        disks = ["vd%c" % (ord("a") + i) for i in range(12)]
        each = "for d in %s; do " % " ".join(disks)
        assert g.run(each + "cat /sys/block/$d/serial; echo; done").split() == ["n%d" % i for i in range(12)]
        # all at once, and what each has read goes to its second half
        g.run(each + "(cp /dev/$d /tmp/$d; dd if=/tmp/$d of=/dev/$d bs=1M count=1 seek=1 conv=fsync) 2>/dev/null & done; wait")
        sums = g.run(each + "head -c 1048576 /tmp/$d | md5sum; done").split()[::2]
        for p, d in zip(paths, sums):
            with open(p, "rb") as f:
                first, second = f.read(MIB), f.read(MIB)
            assert hashlib.md5(first).hexdigest() == d and second == first, p
        s = g.stats()
        assert all(s["blk%d.writes" % i] > 0 and s["blk%d.broken" % i] == 0 for i in range(12)), s
        assert g.end() == 0


def meminfo(g, what):
    return int(g.run("grep ^%s: /proc/meminfo" % what).split()[1]) << 10


def check_balloon():
    g = Guest("--balloon")
    host = lambda: g.stats()["ram_host_bytes"]
    # what the guest frees is reported and leaves the host
    g.run("dd if=/dev/urandom of=/tmp/a bs=1M count=70 2>/dev/null; md5sum /tmp/a >/tmp/sum")
    full = host()
    g.run("cp /tmp/a /tmp/b; rm /tmp/b; dd if=/dev/zero of=/tmp/c bs=1M count=80 2>/dev/null; rm /tmp/c; md5sum -c /tmp/sum")
    g.run("rm /tmp/a; sync; echo 3 >/proc/sys/vm/drop_caches")
    within(20, lambda: host() < full - 50 * MIB)
    s = g.stats()
    assert s["balloon.pages_reported"] << 12 > 100 * MIB and s["ram_pages_punched"] == s["balloon.pages_reported"], s
    # the balloon: memory goes
    free = meminfo(g, "MemFree")
    assert abs(s["balloon.guest_free"] - free) < 8 * MIB and s["balloon.guest_total"] == meminfo(g, "MemTotal"), s
    r = control("balloon", name, "128M")
    assert r.returncode == 0, r.stdout
    within(20, lambda: g.stats()["balloon.actual_bytes"] == 128 * MIB)
    s = g.stats()
    assert s["balloon.target_bytes"] == 128 * MIB and s["ram_pages_ballooned"] << 12 == 128 * MIB, s
    assert s["balloon.pages_inflated"] << 12 >= 128 * MIB, s
    assert meminfo(g, "MemFree") < free - 120 * MIB
    assert host() < 110 * MIB, host()
    r = control("balloon", name, "1G")
    assert r.returncode == 1 and "256M" in r.stdout, r.stdout
    # and comes back, all of it good
    assert control("balloon", name, "256M").returncode == 0
    within(20, lambda: g.stats()["balloon.actual_bytes"] == 256 * MIB)
    assert g.stats()["ram_pages_ballooned"] == 0
    g.run("dd if=/dev/urandom of=/tmp/a bs=1M count=150 2>/dev/null; md5sum /tmp/a >/tmp/sum; md5sum -c /tmp/sum")
    # a guest that runs out of memory takes it back itself
    g.run("rm /tmp/a; mount -o remount,size=200M /tmp")
    control("balloon", name, "110M")
    within(20, lambda: g.stats()["balloon.actual_bytes"] < 116 * MIB)
    g.run("dd if=/dev/zero of=/tmp/a bs=1M count=100 2>/dev/null")
    assert g.stats()["balloon.actual_bytes"] > 150 * MIB
    out = control("balloon", name).stdout
    assert "balloon.target_bytes" in out and "rng" not in out, out
    # the driver goes and comes again
    g.run("rm /tmp/a; cd /sys/bus/virtio/drivers/virtio_balloon; echo virtio0 >unbind; echo virtio0 >bind")
    within(20, lambda: g.stats()["balloon.actual_bytes"] < 116 * MIB)
    assert control("pause", name).returncode == 0
    assert "balloon.target_bytes" in control("balloon", name).stdout
    assert control("resume", name).returncode == 0
    assert g.end() == 0


def check_balloon_reboot():
    """Nothing of the old balloon in the next life, but its target."""
    g = Guest("--balloon", append="reboot=t")
    control("balloon", name, "160M")
    within(20, lambda: g.stats()["balloon.actual_bytes"] == 160 * MIB)
    g.send("reboot -f")
    g.until("DONE ready\n", 60)
    within(20, lambda: g.stats()["balloon.actual_bytes"] == 160 * MIB)
    assert g.stats()["ram_pages_ballooned"] << 12 == 96 * MIB
    g.run("dd if=/dev/urandom of=/tmp/a bs=1M count=60 2>/dev/null; md5sum /tmp/a >/tmp/sum; md5sum -c /tmp/sum")
    assert g.end() == 0


class Host:
    """What a monitor that runs within self.wrapper takes for the host's memory: files of ours in their places in /proc."""

    def __init__(self, tmp):
        self.files = {"/proc/meminfo": tmp + "/meminfo", "/proc/pressure/memory": tmp + "/pressure"}
        self.says(available=50)
        mounts = "".join("mount --bind %s %s && " % (mine, real) for real, mine in self.files.items() if os.path.exists(real))
        self.wrapper = ["unshare", "-m", "sh", "-c", mounts + 'exec "$@"', "sh"]

    def says(self, available):
        """So many percent of its memory are available."""
        for path, text in ("/proc/meminfo", "MemTotal: 10000000 kB\nMemAvailable: %8d kB\n" % (available * 100000)), \
                          ("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"):
            with open(self.files[path], "r+" if os.path.exists(self.files[path]) else "w") as f:
                f.write(text)


def check_balloon_auto():
    """A host that is short of memory has what the guest can spare; the guest has it back before it swaps, while the host is short."""
    with tempfile.TemporaryDirectory() as tmp:
        host = Host(tmp)
        if subprocess.run(host.wrapper + ["true"], stderr=subprocess.DEVNULL).returncode:
            return "no mount namespace to be had here"
        with open(tmp + "/swap.raw", "wb") as f:
            f.truncate(128 * MIB)
        g = Guest("--balloon=auto", "--memory-guarantee=96M", "--disk=format=raw,path=" + tmp + "/swap.raw",
                  within=host.wrapper)
        g.run("mkswap /dev/vda && swapon /dev/vda")
        has = lambda: g.stats()["balloon.actual_bytes"]
        time.sleep(3)
        assert has() == 256 * MIB  # nobody is short of anything
        host.says(available=3)
        within(60, lambda: has() < 170 * MIB)
        # what it needs it gets, in steps as it takes it
        for step in range(30):
            g.run("dd if=/dev/zero of=/tmp/%d bs=1M count=4 2>/dev/null" % step)
            within(20, lambda: meminfo(g, "MemAvailable") > 16 * MIB)
        s = g.stats()
        assert s["balloon.actual_bytes"] > 190 * MIB, s
        assert g.run("grep -E '^pswpout|^oom_kill' /proc/vmstat").split() == ["pswpout", "0", "oom_kill", "0"]
        # and gives it again, down to its guarantee and not below, and gets all of it when the host has plenty
        g.run("rm /tmp/*")
        within(60, lambda: has() < 140 * MIB)
        time.sleep(6)
        assert has() >= 96 * MIB, has()
        host.says(available=60)
        within(120, lambda: has() == 256 * MIB)
        assert g.end() == 0


def check_memory_short():
    """A VM that may be paused is, while the host is out of memory, and says why; one within its guarantee is not; a command counts."""
    with tempfile.TemporaryDirectory() as tmp:
        host = Host(tmp)
        if subprocess.run(host.wrapper + ["true"], stderr=subprocess.DEVNULL).returncode:
            return "no mount namespace to be had here"
        options = ["--memory-short=pause"]
        a = Guest(*options, vm="a", within=host.wrapper)
        b = Guest("--memory-guarantee=256M", *options, vm="b", within=host.wrapper)
        state = lambda g: json.loads(control("status", "--json", g.name).stdout)
        try:
            host.says(available=5)  # short, no more
            time.sleep(9)
            assert state(a)["state"] == "running"
            host.says(available=2)
            within(30, lambda: state(a)["state"] == "paused")
            assert "the host is out of memory" in control("status", a.name).stdout
            assert state(b)["state"] == "running"
            host.says(available=5)  # not clearly over
            time.sleep(5)
            assert state(a)["state"] == "paused"
            host.says(available=40)
            within(30, lambda: state(a)["state"] == "running")
            a.run("true")
            # whoever pauses it meanwhile has it paused, and who resumes it has it run
            host.says(available=1)
            within(30, lambda: state(a)["state"] == "paused")
            assert control("pause", a.name).returncode == 0
            host.says(available=40)
            time.sleep(5)
            assert state(a)["state"] == "paused" and "out of memory" not in control("status", a.name).stdout
            assert control("resume", a.name).returncode == 0
            host.says(available=1)
            within(30, lambda: state(a)["state"] == "paused")
            assert control("resume", a.name).returncode == 0
            a.run("sleep 5")
            assert state(a)["state"] == "running" and state(b)["state"] == "running"
            assert a.end() == 0 and b.end() == 0
        finally:
            control("kill", a.name)
            control("kill", b.name)


class Pty:
    """A terminal: what a program on it shows, and its size."""

    def __init__(self, master):
        self.fd = master
        self.text = ""

    def size(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, what, seconds=20):
        end = time.time() + PATIENCE * seconds
        while what not in self.text:
            assert time.time() < end, "no %r in %r" % (what, self.text[-500:])
            if select.select([self.fd], [], [], 0.2)[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace").replace("\r", "")
        got, self.text = self.text.split(what, 1)
        return got

    def type(self, text):
        os.write(self.fd, text.encode())


SHELL = "setsid sh -c 'exec sh </dev/hvc0 >/dev/hvc0 2>&1' & sleep 1"


def check_console():
    data = tempfile.NamedTemporaryFile()
    g = Guest("--virtio-console=file:" + data.name)
    g.run("exec 4>/dev/hvc0; stty raw -F /dev/hvc0; head -c 3000000 /dev/urandom >/tmp/a; cat /tmp/a >&4", 60)
    digest = g.run("md5sum </tmp/a").split()[0]
    within(20, lambda: hashlib.md5(open(data.name, "rb").read()).hexdigest() == digest)
    assert g.stats()["console.bytes_from_guest"] == 3000000
    assert g.end() == 0
    g = Guest("--virtio-console=pty")
    g.run(SHELL)
    second = [l.split()[-1] for l in control("status", name).stdout.splitlines() if l.startswith("second:")]
    t = Pty(os.open(second[0], os.O_RDWR | os.O_NOCTTY))
    t.type("echo I am $((6 * 7))\n")
    t.until("I am 42\n")
    t.size(101, 33)
    t.type("true\n")
    t.type("sleep 1; stty size\n")
    t.until("33 101\n")
    # attached from a terminal, which is resized
    master, slave = pty.openpty()
    a = Pty(master)
    a.size(90, 20)
    p = subprocess.Popen([monitor, "console", "--second", name], stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
    a.until("I am 42\n")  # what was there before
    a.type("sleep 1; stty size\n")
    a.until("20 90\n")
    a.size(77, 44)
    p.send_signal(signal.SIGWINCH)
    a.type("sleep 1; stty size\n")
    a.until("44 77\n")
    a.type("\x01x")
    assert p.wait(10) == 0
    r = control("console", "--second", name + "x")
    assert r.returncode == 1, r.stdout
    assert g.end() == 0
    g = Guest()
    r = control("console", "--second", name)
    assert r.returncode == 1 and "no such console" in r.stdout, r.stdout
    assert g.end() == 0


def check_console_stdio():
    """The terminal is the second console's; the serial one has a pty."""
    master, slave = pty.openpty()
    t = Pty(master)
    t.size(120, 40)
    p = subprocess.Popen([monitor, "run", "--name=" + name, "--kernel=" + kernel, "--initrd=" + initrd, "--memory=256M",
                          "--append=console=ttyS0 quiet", "--virtio-console=stdio"], stdin=slave, stdout=slave, stderr=slave)
    serial = Pty(os.open(t.until("\n").split()[-1], os.O_RDWR | os.O_NOCTTY))
    serial.until("DONE ready\n", 60)
    serial.type(SHELL + "\n")
    serial.until("DONE 0")
    t.type("stty size\n")
    t.until("40 120\n")
    t.size(80, 24)
    p.send_signal(signal.SIGWINCH)
    t.type("sleep 1; stty size\n")
    t.until("24 80\n")
    t.type("\x01x")
    assert p.wait(10) == 8


def watched(action, *options):
    """A guest whose watchdog has four seconds and is being answered."""
    g = Guest("--watchdog=" + action, *options, append="reboot=t")
    g.run("rmmod i6300esb; insmod /drivers/i6300esb.ko heartbeat=4")
    assert g.run("cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog0/bootstatus") == \
        "i6300ESB timer\n0"
    g.run("exec 3>/dev/watchdog0")
    return g


def check_watchdog():
    if flavour == "cloud":
        return "this kernel has no driver for it"
    g = watched("reset")
    g.run("for i in 1 2 3 4 5 6 7 8; do echo >&3; sleep 1; done")
    assert control("pause", name).returncode == 0
    time.sleep(6)  # the time of a guest that stands still does not count
    assert control("resume", name).returncode == 0
    g.run("echo >&3")
    s = g.stats()
    assert s["watchdog.reloads"] >= 9 and s["watchdog.timeouts"] == 0, s
    said = g.until("DONE ready\n", 60)  # nobody answers any more
    assert "the watchdog has run out: the VM restarts" in said, said
    assert "boots:    2" in control("status", name).stdout
    assert g.run("cat /sys/class/watchdog/watchdog0/bootstatus") == "32"  # WDIOF_CARDRESET
    g.run("sleep 5")
    assert g.end() == 0


def check_ahci():
    """A disk and a CD by libata: read and written, many commands at once, by a driver that goes and comes back."""
    if flavour == "cloud":
        return "this kernel has no driver for it"
    with tempfile.TemporaryDirectory() as tmp:
        disk, cd = os.urandom(8 * MIB) + bytes(16 * MIB), os.urandom(4 * MIB)
        for path, data in ("/disk.raw", disk), ("/cd.iso", cd):
            with open(tmp + path, "wb") as f:
                f.write(data)
        g = Guest("--disk=path=" + tmp + "/disk.raw,format=raw,bus=ahci", "--cdrom=" + tmp + "/cd.iso")

        def digest(what):
            return g.run(what + " 2>/dev/null | md5sum", 60).split()[0]
        for _ in range(2):
            within(20, lambda: g.run("test -b /dev/sda && test -b /dev/sr0; echo $?") == "0")
            assert g.run("blockdev --getsize64 /dev/sda") == str(24 * MIB) and g.run("blockdev --getsize64 /dev/sr0") == str(4 * MIB)
            assert digest("dd if=/dev/sda bs=64k count=128") == hashlib.md5(disk[:8 * MIB]).hexdigest()
            assert digest("cat /dev/sr0") == hashlib.md5(cd).hexdigest()
            g.run("! dd if=/dev/zero of=/dev/sr0 bs=2048 count=1 conv=fsync")
            # small ones, several at once, past the guest's cache
            g.run("for k in 0 1 2 3; do dd if=/dev/sda of=/dev/sda bs=4k skip=$((k * 512)) seek=$((2048 + k * 512)) count=512 "
                  "iflag=direct oflag=direct 2>/dev/null & done; wait", 120)
            g.run("dd if=/dev/sda of=/dev/sda bs=1M count=8 seek=16 conv=fsync; echo 3 >/proc/sys/vm/drop_caches", 60)
            assert digest("dd if=/dev/sda bs=64k skip=128 count=128") == digest("dd if=/dev/sda bs=64k skip=256")
            g.run("rmmod ahci; test ! -e /dev/sda && insmod /drivers/ahci.ko")
        said = g.run("dmesg | grep -E 'ata[0-9].*(xception|failed|rror|frozen|slow)' || true")
        assert said == "", said
        assert g.end() == 0
        with open(tmp + "/disk.raw", "rb") as f:
            assert f.read() == disk[:8 * MIB] * 3


def up(g, address, card="eth0"):
    g.run("ip addr add %s/24 dev %s; ip link set %s up" % (address, card, card))


def copy(a, b, address, port):
    """16 MiB from a to b; the digest."""
    b.run("rm -f /tmp/open; mkfifo /tmp/open; exec 3<>/tmp/open")  # a sender goes when the receiver has no more to say
    b.send("nc -l -p %d >/tmp/got <&3" % port)
    a.run("head -c 16777216 /dev/urandom >/tmp/f; for i in 1 2 3 4 5; do nc %s %d </tmp/f && break; sleep 1; done" % (address, port), 120)
    b.until("DONE 0\n", 60)
    have, got = a.run("wc -c </tmp/f; md5sum </tmp/f", 60), b.run("wc -c </tmp/got; md5sum </tmp/got", 60)
    assert have == got, "sent %s, received %s" % (have, got)


def check_switch():
    """Two guests on a segment: addresses, both families, TCP both ways, jumbo frames, a false address, drivers that go."""
    if "cloud" not in kernel:
        return "the driver is the same in both kernels"
    with tempfile.TemporaryDirectory() as tmp:
        lan = tmp + "/lan"
        switch = subprocess.Popen([os.path.join(os.path.dirname(monitor), "hvx-switch"), lan], stderr=subprocess.DEVNULL)
        try:
            within(20, lambda: os.path.exists(lan))
            a = Guest("--net=switch=" + lan + ",mac=52:54:00:00:00:0a,mtu=9000", vm="a")
            b = Guest("--net=switch=" + lan + ",mac=52:54:00:00:00:0b,mtu=9000", vm="b")
            switch_story(a, b)
            assert a.end() == 0 and b.end() == 0
        finally:
            for vm in "ab":
                control("kill", name + vm)
            switch.terminate()
            switch.wait(20)


def check_net_queues():
    """A card with a pair of queues for each CPU: what a CPU sends is answered on that CPU; drivers that go; fewer pairs."""
    if "cloud" not in kernel:
        return "the driver is the same in both kernels"
    with tempfile.TemporaryDirectory() as tmp:
        lan = tmp + "/lan"
        switch = subprocess.Popen([os.path.join(os.path.dirname(monitor), "hvx-switch"), lan], stderr=subprocess.DEVNULL)
        try:
            within(20, lambda: os.path.exists(lan))
            a = Guest("--net=switch=" + lan + ",mac=52:54:00:00:00:0a,queues=2", "--cpus=2", vm="a")
            b = Guest("--net=switch=" + lan + ",mac=52:54:00:00:00:0b", vm="b")
            net_queues_story(a, b)
            assert a.end() == 0 and b.end() == 0
        finally:
            for vm in "ab":
                control("kill", name + vm)
            switch.terminate()
            switch.wait(20)


def net_queues_story(a, b):
    up(a, "10.9.0.1")
    up(b, "10.9.0.2")
    assert a.run("ls /sys/class/net/eth0/queues").split() == ["rx-0", "rx-1", "tx-0", "tx-1"]
    assert b.run("ls /sys/class/net/eth0/queues").split() == ["rx-0", "tx-0"]
    a.run("ping -c 2 -W 5 10.9.0.2")
    counts = "sed -n 's/ *PCI.*-input.*//; s/^ *[0-9]*: *\\([0-9]* *[0-9]*\\)$/\\1/p' /proc/interrupts"
    for cpu in (0, 1, 0):
        before = [int(n) for n in a.run(counts).split()]
        a.run("taskset -c %d ping -q -i 0.01 -c 200 -W 5 10.9.0.2" % cpu)
        grown = [int(n) - b for n, b in zip(a.run(counts).split(), before)]
        # by queue, each of its counts by CPU
        assert len(grown) == 4 and grown[3 * cpu] >= 100 and sum(grown) - grown[3 * cpu] < 100, (cpu, grown)
    copy(a, b, "10.9.0.2", 5000)
    copy(b, a, "10.9.0.1", 5001)
    b.run("ping -q -i 0.01 -c 1000 10.9.0.1 >/dev/null 2>&1 &")
    a.run("echo 0 >/sys/devices/system/cpu/cpu1/online; ping -c 2 -W 5 10.9.0.2; echo 1 >/sys/devices/system/cpu/cpu1/online")
    a.run("cd /sys/bus/virtio/drivers/virtio_net; echo virtio0 >unbind; echo virtio0 >bind")
    up(a, "10.9.0.1")
    a.run("ping -c 2 -W 5 10.9.0.2")
    copy(b, a, "10.9.0.1", 5002)
    for g in a, b:  # see switch_story(): nobody sends while Linux powers off
        g.run("killall -q ping; while pidof ping; do sleep 0.1; done >/dev/null; ip link set eth0 down")
    assert a.stats()["net0.broken"] == 0


def switch_story(a, b):
    ping = "ping -c 3 -W 5 10.9.0.2"
    for g, last in (a, "a"), (b, "b"):
        up(g, "10.9.0.%d" % (1 + (last == "b")))
        assert g.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu") == "52:54:00:00:00:0%s\n9000" % last
    a.run(ping)
    a.run("ping -c 2 -s 8900 -W 5 10.9.0.2")
    a.run("for i in 1 2 3 4 5; do ping6 -c 1 -W 2 fe80::5054:ff:fe00:b%eth0 && break; sleep 1; done", 60)
    copy(a, b, "10.9.0.2", 5000)
    copy(b, a, "10.9.0.1", 5001)
    sent = a.stats()
    assert sent["net0.tx_frames"] * 4000 < sent["net0.tx_bytes"], sent  # large frames go as they are
    # with another's address nothing comes through, with its own all is well
    a.run("ip link set eth0 address 52:54:00:00:00:0b; ! ping -c 2 -W 1 10.9.0.2")
    a.run("ip link set eth0 address 52:54:00:00:00:0a; " + ping)
    # the cable
    assert not control("link", a.name, "net0", "down").returncode
    within(20, lambda: a.run("cat /sys/class/net/eth0/carrier") == "0")
    a.run("! ping -c 1 -W 1 10.9.0.2")
    control("link", a.name, "net0", "up")
    within(20, lambda: a.run("cat /sys/class/net/eth0/carrier") == "1")
    a.run(ping)
    # the driver lets go in the middle of traffic, of the device and of the whole card
    pci = a.run("cd /sys/bus/virtio/devices/virtio0; basename $(readlink -f ..)")
    for where, what in [("virtio/drivers/virtio_net", "virtio0"), ("pci/drivers/virtio-pci", pci)] * 2:
        b.run("ping -q -i 0.01 -c 500 10.9.0.1 >/dev/null 2>&1 &")
        a.run("ping -q -i 0.01 -c 500 10.9.0.2 >/dev/null 2>&1 & sleep 0.3; cd /sys/bus/%s; echo %s >unbind" % (where, what))
        a.run("cd /sys/bus/%s; echo %s >bind; for i in 1 2 3 4 5; do [ -d /sys/class/net/eth0 ] || sleep 1; done" % (where, what))
        up(a, "10.9.0.1")
        a.run(ping)
    # Linux breaks its queues when it powers off; a driver that is sending then looks for room for ever (virtio_net, 6.1)
    for g in a, b:
        g.run("killall -q ping; while pidof ping; do sleep 0.1; done >/dev/null")
    s = a.stats()
    assert s["net0.resets"] >= 4 and s["net0.broken"] == 0 and b.stats()["net0.broken"] == 0, s


def check_merge():
    """Equal pages are kept once, while they are read, written, sent and received as ever."""
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/disk.raw", "wb") as f:
            f.write(os.urandom(8 * MIB) + bytes(8 * MIB))
        g = Guest("--merge=self", "--merge-rate=60", "--balloon", "--disk=path=" + tmp + "/disk.raw")
        g.run("dd if=/dev/vda of=/tmp/a bs=1M count=8; for f in b c d; do cp /tmp/a /tmp/$f; done; md5sum /tmp/? >/tmp/sums; "
              "dd if=/dev/zero of=/tmp/z bs=1M count=16")
        copies, zeros = 8 * MIB // 4096 * 3, 16 * MIB // 4096  # the disk's page cache is the fifth copy
        # pages of zeros are found at once, and there are others than the file's
        within(60, lambda: g.stats()["merge.pages_sharing"] > copies + zeros and g.stats()["merge.group_shared"] >= copies // 3 and
               g.stats()["merge.group_saved_bytes"] > (copies - copies // 3 + zeros) * 4096)
        s = g.stats()
        assert s["merge.group_members"] == 1, s
        g.run("md5sum -c /tmp/sums >/dev/null")
        # written by the CPU, in the middle of pages and page by page; by the device; all while passes go on
        g.run("for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/tmp/b bs=1000 count=1 seek=$((i * 777)) conv=notrunc; done; "
              "! cmp -s /tmp/a /tmp/b; cp /tmp/a /tmp/b; md5sum -c /tmp/sums >/dev/null")
        g.run("echo 3 >/proc/sys/vm/drop_caches; for i in 1 2 3; do dd if=/dev/vda bs=64k count=128 | cmp - /tmp/a; "
              "dd if=/tmp/a of=/dev/vda bs=1M seek=8 conv=fsync; echo 3 >/proc/sys/vm/drop_caches; "
              "dd if=/dev/vda bs=1M skip=8 | cmp - /tmp/c; done; md5sum -c /tmp/sums >/dev/null")
        g.run("rm /tmp/z; cat /tmp/a /tmp/b >/tmp/e; head -c 8388608 /tmp/e | cmp - /tmp/d")
        assert g.stats()["merge.unmerges"] > 100, g.stats()
        assert control("balloon", name, "128M").returncode == 0
        time.sleep(1)
        assert control("balloon", name, "256M").returncode == 0
        g.run("md5sum -c /tmp/sums >/dev/null")
        assert g.end() == 0


def check_merge_group():
    """VMs of a group share pages, come and go; when their memsvc dies they all end, and say why."""
    group = "t%d" % os.getpid()

    def groups():
        return [g for g in json.loads(control("groups", "--json").stdout) if g["name"] == group]

    def vcpu(g):
        processes = json.loads(control("status", "--json", g.name).stdout)["processes"]
        return [x["pid"] for x in processes if x["name"] == "vcpu"][0]

    def score(g):
        with open("/proc/%d/oom_score_adj" % vcpu(g)) as f:
            return int(f.read())

    def member(vm, *options):
        g = Guest("--merge=" + group, "--merge-rate=60", "--balloon=auto", *options, vm=vm)
        g.run("seq 1 1500000 >/tmp/s; md5sum /tmp/s >/tmp/sum")
        return g
    a, b = member("a", "--memory-guarantee=1M"), member("b")
    assert score(b) == 250
    within(10, lambda: score(a) == 500)  # it has more than its guarantee
    pages = 10 * MIB // 4096
    within(40, lambda: min(x.stats()["merge.pages_sharing"] for x in (a, b)) > pages)
    now = groups()[0]
    assert sorted(now["members"]) == [a.name, b.name] and now["saved_bytes"] > 10 * MIB, now
    assert "VMs" in control("groups").stdout
    within(10, lambda: json.loads(control("status", "--json", a.name).stdout)["shared_bytes"] > 10 * MIB)
    assert json.loads(control("status", "--json", a.name).stdout)["merge"] == group
    a.run("dd if=/dev/zero of=/tmp/s bs=4k count=500 seek=100 conv=notrunc; ! md5sum -c /tmp/sum")
    b.run("md5sum -c /tmp/sum >/dev/null")
    assert control("limit", a.name, "merge-rate=80").returncode == 0
    assert a.end() == 0
    within(20, lambda: groups()[0]["members"] == [b.name])
    c = member("c")
    within(40, lambda: c.stats()["merge.pages_sharing"] > pages)
    b.run("md5sum -c /tmp/sum >/dev/null")
    # one that is killed leaves the others alone
    os.kill(vcpu(c), signal.SIGKILL)
    assert c.p.wait(timeout=60) == 6
    b.run("md5sum -c /tmp/sum >/dev/null")
    d = member("d")
    within(40, lambda: d.stats()["merge.pages_sharing"] > pages)
    os.kill(groups()[0]["pid"], signal.SIGKILL)
    for x in (b, d):
        out = x.p.communicate(timeout=PATIENCE * 20)[0].decode(errors="replace")
        assert x.p.returncode == 6 and "merge group %s: its hvx-memsvc died: killed by SIGKILL" % group in out, out
    within(10, lambda: not groups())


# ---- ----

def main():
    global kernel, initrd, flavour
    flavour = sys.argv[1] if len(sys.argv) > 1 else ""
    if flavour not in ("cloud", "generic"):
        sys.exit("usage: devices.py cloud|generic [CHECK...]")
    env = dict(os.environ, HVX_CACHE=os.environ["HVX_CACHE"])
    kernel, initrd = (subprocess.check_output(["flock", env["HVX_CACHE"] + "/.lock", "sh", os.path.join(here, script), flavour],
                                              env=env, text=True).strip()
                      for script in ("fetch-kernel.sh", "mkdevimage.sh"))
    # drivers are alike in both, but only the generic kernel has those for the watchdog and AHCI
    checks = [c for c in globals() if c.startswith("check_") and (c in ("check_watchdog", "check_ahci")) == (flavour == "generic")]
    wanted = ["check_" + c.replace("-", "_") for c in sys.argv[2:]] or checks
    failed = 0
    for number, check in enumerate(wanted, 1):
        begin = time.time()
        try:
            why = globals()[check]()
        except AssertionError:
            failed += 1
            print("not ok %d - %s: %s" % (number, flavour, check[6:]))
            print("".join("# %s\n" % line for line in traceback.format_exc().splitlines()[-40:]), end="")
        else:
            print("ok %d - %s: %s (%.1f s)%s" % (number, flavour, check[6:], time.time() - begin,
                                                  " # SKIP " + why if why else ""))
        sys.stdout.flush()
        control("kill", name)
    print("1..%d" % len(wanted))
    return failed != 0


sys.exit(main())
