#!/usr/bin/env python3
# What merging saves, how fast, and what it costs; one line a row.
#
# usage: merge.py [--rows=idle,random,write,ksm] [--guests=N] [--memory=MIB] [--random=MIB] [--rate=PERCENT]
# Run it from the build tree; HVX_CACHE is the tests' cache of kernels.
#
#   idle    N like guests with nothing to do: the proportional set size of all HVX processes when it has settled, against one guest's
#   random  two guests with the same random data: how much of it is merged, and when
#   write   the first write to a merged page, in this process (bench/unmerge)
#   ksm     the kernel's samepage merging under QEMU TCG with the same image, where the host has it
#
# Invariant: what is counted is what the kernel counts: smaps_rollup of each process, and the guests' memory by their memfds.
import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
top = os.path.dirname(here)
monitor = os.path.join(os.getcwd(), "hvx-monitor")
MIB = 1 << 20


def prepared(script):
    env = dict(os.environ, HVX_CACHE=os.environ.get("HVX_CACHE", os.path.join(top, "cache")))
    return subprocess.check_output(["sh", os.path.join(top, "tests/guest", script), "cloud"], env=env, text=True).strip()


class Guest:
    def __init__(self, name, memory, *options):
        self.name = name
        self.p = subprocess.Popen([monitor, "run", "--name=" + name, "--kernel=" + kernel, "--initrd=" + initrd,
                                   "--memory=%dM" % memory, "--append=console=ttyS0 panic=-1 quiet"] + list(options),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = ""
        self.until("DONE ready\n")

    def until(self, what, seconds=600):
        end = time.time() + seconds
        while what not in self.text:
            if not select.select([self.p.stdout], [], [], max(0, end - time.time()))[0]:
                sys.exit("%s: no %r in %r" % (self.name, what, self.text[-500:]))
            data = os.read(self.p.stdout.fileno(), 65536)
            if not data:
                sys.exit("%s: ended: %r" % (self.name, self.text[-500:]))
            self.text += data.decode(errors="replace").replace("\r", "")
        got, self.text = self.text.split(what, 1)
        return got

    def run(self, line):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()
        out = self.until("DONE ")
        if self.until("\n") != "0":
            sys.exit("%s: %s: %s" % (self.name, line, out))

    def stats(self):
        return json.loads(subprocess.check_output([monitor, "stats", "--json", self.name]))

    def pids(self):
        status = json.loads(subprocess.check_output([monitor, "status", "--json", self.name]))
        return {p["pid"] for p in status["processes"]}

    def kill(self):
        subprocess.call([monitor, "kill", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.p.wait()


def pss(guests):
    total = 0
    for pid in set().union(*(g.pids() for g in guests)):
        try:
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            pass
    return total / 1024


def settled(value, seconds):
    """Waits until value() changes by less than one part in fifty over some seconds."""
    last = value()
    while True:
        time.sleep(seconds)
        now = value()
        if abs(now - last) < last / 50:
            return now
        last = now


def idle(o):
    g = [Guest("midle0", o.memory)]
    time.sleep(5)
    one = pss(g)
    g[0].kill()
    g = [Guest("midle%d" % i, o.memory, "--merge=bench-idle", "--merge-rate=%d" % o.rate) for i in range(o.guests)]
    begin = time.time()
    all_ = settled(lambda: pss(g), 20)
    n = o.guests
    print("idle: one guest %.0f MiB; %d guests %.0f MiB after %.0f s, %.2f times one (bar: 1.7 * (1 + 0.1 * %d) = %.2f)"
          % (one, n, all_, time.time() - begin, all_ / one, n, 1.7 * (1 + 0.1 * n)))
    print(subprocess.check_output([monitor, "groups"], text=True), end="")
    for x in g:
        x.kill()


def random(o):
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/data", "wb") as f:
            for _ in range(o.random):
                f.write(os.urandom(MIB))
        g = [Guest("mrandom%d" % i, 2 * o.random + 128, "--merge=bench-random", "--merge-rate=%d" % o.rate,
                   "--disk=readonly,format=raw,path=" + tmp + "/data") for i in range(2)]
        for x in g:
            x.run("dd if=/dev/vda of=/tmp/data bs=1M && echo 3 >/proc/sys/vm/drop_caches")
        begin, want = time.time(), o.random * MIB // 4096
        part = 0.0
        while part < 0.95 and time.time() - begin < 1200:
            time.sleep(1)
            part = min(x.stats()["merge.pages_sharing"] for x in g) / want
        took = time.time() - begin
        for x in g:
            x.run("dd if=/dev/vda bs=1M | cmp - /tmp/data")
            x.kill()
    print("random: 2 guests with the same %d MiB: %.1f %% merged in %.0f s at %d %% of a CPU" % (o.random, 100 * part, took, o.rate))


def write(_):
    print("write: " + subprocess.check_output([os.path.join(os.getcwd(), "bench/unmerge")], text=True).replace("\n", "\n       ").rstrip())


def ksm(o):
    if not os.path.isdir("/sys/kernel/mm/ksm"):
        print("ksm: this host's kernel has none (/sys/kernel/mm/ksm)")
        return
    base = "/sys/kernel/mm/ksm/"
    q = [subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(o.memory), "-nodefaults", "-display", "none",
                           "-no-user-config", "-machine", "pc,mem-merge=on", "-kernel", kernel, "-initrd", initrd, "-append",
                           "console=ttyS0 quiet"]) for _ in range(o.guests)]
    with open(base + "run", "w") as f:
        f.write("1")
    begin = time.time()

    def saved():
        with open(base + "pages_sharing") as f:
            return int(f.read()) * 4096 / MIB + 1
    got = settled(saved, 20)
    print("ksm: %d TCG guests: %.0f MiB saved after %.0f s" % (o.guests, got, time.time() - begin))
    for p in q:
        p.kill()
    with open(base + "run", "w") as f:
        f.write("2")


p = argparse.ArgumentParser()
p.add_argument("--rows", default="write,random,idle,ksm")
p.add_argument("--guests", type=int, default=8)
p.add_argument("--memory", type=int, default=512)
p.add_argument("--random", type=int, default=512)
p.add_argument("--rate", type=int, default=5)
options = p.parse_args()
kernel, initrd = prepared("fetch-kernel.sh"), prepared("mkdevimage.sh")
for row in options.rows.split(","):
    {"idle": idle, "random": random, "write": write, "ksm": ksm}[row](options)
    sys.stdout.flush()
