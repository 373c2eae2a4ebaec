#!/usr/bin/env python3
# Linux on several CPUs; one line a check, in TAP.
#
# usage: smp.py [--vmm=hvx|tcg] [--boots=N] [--times=N] [--cpus=N,N...] [CHECK...]
# Without --boots: what make check runs. With it: so many boots for each of --cpus, and the long checks --times as long.
# HVX_MONITOR names the hvx-monitor to use (default: that of the build tree it is called from).
#
# Invariant: no verdict depends on time but for what hangs; nothing is left behind.
import argparse
import os
import select
import subprocess
import sys
import time
import traceback

here = os.path.dirname(os.path.abspath(__file__))
monitor = os.environ.get("HVX_MONITOR", os.path.join(os.getcwd(), "hvx-monitor"))
COMPLAINTS = "Call Trace|Oops|BUG:|WARNING:|bad page|nobody cared|Spurious|soft lockup|rcu.*stall|clocksource.*unstable|" \
    "smpboot: do_boot_cpu|not responding|TSC.*warp|general protection|unchecked MSR"
HANGS = 600  # seconds without an answer


class Guest:
    """A VM in the foreground; its console is a pipe to init-smp."""

    def __init__(self, cpus, append="", reboot=False, initrd=None):
        append = "console=ttyS0 panic=-1 quiet " + append
        if args.vmm == "tcg":
            command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", str(cpus), "-cpu", "max", "-m", "768",
                       "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-kernel", args.kernel,
                       "-initrd", initrd or args.initrd, "-append", append + " emulator=tcg"] + ([] if reboot else ["-no-reboot"])
        else:
            command = [monitor, "run", "--name=smp%d" % os.getpid(), "--kernel=" + args.kernel, "--initrd=" + (initrd or args.initrd),
                       "--memory=768M", "--cpus=%d" % cpus, "--append=" + append] + ([] if reboot else ["--no-reboot"])
        self.cpus = cpus
        self.second = False  # a kernel that kexec started: the first one's timer may still have been pending
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        guests.append(self)
        self.text = ""
        self.begun = time.time()
        self.until("DONE ready\n")
        self.booted = time.time() - self.begun

    def until(self, what):
        """The text up to and without what; what comes after it stays for the next call."""
        while what not in self.text:
            if not select.select([self.p.stdout], [], [], HANGS)[0]:
                raise AssertionError("no %r in %r" % (what, self.text[-3000:]))
            data = os.read(self.p.stdout.fileno(), 65536)
            if not data:
                raise AssertionError("ended without %r: %r" % (what, self.text[-3000:]))
            self.text += data.decode(errors="replace").replace("\r", "")
        got, self.text = self.text.split(what, 1)
        return got

    def send(self, line):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()

    def run(self, line):
        """Runs a line in the guest; its output. It must succeed."""
        self.send(line)
        out = self.until("DONE ")
        status = self.until("\n")
        assert status == "0", "%s: status %s: %s" % (line, status, out)
        return out.strip()

    def quiet(self):
        log = self.run("dmesg | grep -E '%s' || true" % COMPLAINTS)
        lines = [x for x in log.splitlines() if not (self.second and "Spurious LAPIC timer" in x)]
        assert not lines, log

    def end(self, cpu=0, how="poweroff -f"):
        """Powers it off from the CPU: the exit status is that of a guest that left well."""
        self.quiet()
        self.send("taskset -c %d %s" % (cpu, how))
        try:
            self.p.communicate(timeout=HANGS)
        except subprocess.TimeoutExpired:
            raise AssertionError("does not leave by " + how)
        guests.remove(self)
        assert self.p.returncode == 0, "exit status %d" % self.p.returncode

    def kill(self):
        self.p.kill()
        self.p.wait()


# ---- checks ----

def basics(g):
    g.run("smp cpus_are %d" % g.cpus)
    g.run("smp affinity")
    return g.run("smp interrupts") if g.cpus > 1 else ""


def check_two():
    g = Guest(2)
    said = basics(g)
    g.run("smp parallel_build")
    g.run("smp stress_verify 1")
    g.run("smp tracing 2")
    g.end(cpu=1)
    return said


def check_four():
    g = Guest(4)
    basics(g)
    g.run("smp hotplug 6")
    g.run("smp hotplug_all")
    g.run("smp parallel_xz")
    g.run("smp modules_under_load 4")
    kexec(g, 3)
    g.end(cpu=2)


def check_32():
    g = Guest(32)
    g.run("smp cpus_are 32")
    g.run("smp affinity")
    g.end(cpu=31)
    return "to init in %.1f s" % g.booted


def kexec(g, cpu):
    """Another kernel, from that CPU; it finds all of them."""
    g.quiet()
    g.send("taskset -c %d kexec /kexec/vmlinuz /kexec/initrd 'console=ttyS0 panic=-1 quiet%s'" %
           (cpu, " emulator=tcg" if args.vmm == "tcg" else ""))
    g.until("DONE ready\n")
    g.second = True
    g.run("smp cpus_are %d" % g.cpus)
    g.run("smp affinity")


def check_reboot():
    """Restarts from every CPU, one after the other."""
    g = Guest(4, reboot=True)
    for cpu in range(4):
        g.run("smp cpus_are 4")
        g.quiet()
        g.send("taskset -c %d reboot -f" % cpu)
        g.until("DONE ready\n")
    g.end(cpu=3)


def dispatches(name, cpus):
    said = subprocess.check_output([monitor, "stats", name], text=True)
    return [x for x in said.splitlines() if x.split(".")[0] in cpus and ".dispatches " in x]


def check_control():
    """Paused and resumed while all CPUs work and are called; a paused one does nothing."""
    if args.vmm == "tcg":
        return "hvx-monitor's commands"
    g = Guest(4)
    name = "smp%d" % os.getpid()
    cpus = ["cpu%d" % i for i in range(4)]
    g.send("smp parallel_xz && smp parallel_build && smp hotplug 3 && smp parallel_xz")
    for turn in range(12):
        subprocess.run([monitor, "pause", name], check=True)
        before, end = dispatches(name, cpus), time.time() + HANGS
        time.sleep(0.2)
        while before != dispatches(name, cpus):  # each stops at its next boundary
            assert time.time() < end, "still running: %r" % before
            before = dispatches(name, cpus)
            time.sleep(0.2)
        assert len(before) == 4, before
        subprocess.run([monitor, "resume", name], check=True)
        time.sleep(0.1)
    g.until("DONE ")
    assert g.until("\n") == "0"
    g.run("smp cpus_are 4")
    g.end(cpu=1)


def check_crash():
    """A kernel that panics on one CPU, and one that ends by a triple fault on another, start again with all CPUs."""
    g = Guest(4, reboot=True, append="reboot=t,s2 ")
    for cpu in (1, 3):
        g.quiet()
        g.send("taskset -c %d sh -c 'echo c >/proc/sysrq-trigger'" % cpu)
        g.until("DONE ready\n")
        g.run("smp cpus_are 4")
    g.quiet()
    g.send("taskset -c 1 reboot -f")
    g.until("DONE ready\n")
    g.run("smp cpus_are 4")
    g.end(cpu=3)


def check_boots():
    """The long target's: --boots for each number of CPUs, each ending on another CPU."""
    said = []
    for cpus in [int(c) for c in args.cpus.split(",")]:
        slowest = 0
        for turn in range(args.boots or 1):
            g = Guest(cpus)
            g.run("smp cpus_are %d" % cpus)
            g.run("smp affinity")
            g.end(cpu=turn % cpus)
            slowest = max(slowest, g.booted)
        said.append("%d CPUs: %d boots, slowest %.1f s" % (cpus, args.boots or 1, slowest))
        print("# " + said[-1], flush=True)
    return "; ".join(said)


def check_long():
    g = Guest(4)
    for line in ["stress_verify %d" % (20 * args.times), "hotplug %d" % (200 * args.times), "tracing %d" % (20 * args.times),
                 "modules_under_load %d" % (50 * args.times), "parallel_build", "parallel_xz", "hotplug_all"]:
        begun = time.time()
        said = g.run("smp " + line)
        print("# %s: %.0f s %s" % (line, time.time() - begun, said), flush=True)
    kexec(g, 1)
    g.end(cpu=2)


def check_perf():
    """perf bench: futex, sched, mem."""
    g = Guest(4, initrd=script("mksmpimage.sh", "perf"))
    begun = time.time()
    g.run("smp perf_bench")
    g.end(cpu=1)
    return "%.0f s" % (time.time() - begun)


def tap(number, name, check):
    try:
        said = check()
        print("ok %d - smp: %s%s" % (number, name, " # " + said if said else ""), flush=True)
        return True
    except AssertionError:
        print("not ok %d - smp: %s" % (number, name))
        print("".join("  # " + line + "\n" for line in traceback.format_exc().replace("\\n", "\n").splitlines()), flush=True)
        return False
    finally:
        while guests:
            guests.pop().kill()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--vmm", default="hvx", choices=["hvx", "tcg"])
    p.add_argument("--boots", type=int, default=0)
    p.add_argument("--times", type=int, default=1)
    p.add_argument("--cpus", default="1,2,4,8,32")
    p.add_argument("checks", nargs="*")
    global args
    args = p.parse_args()
    args.kernel = script("fetch-kernel.sh", "cloud")
    args.initrd = script("mksmpimage.sh")
    names = args.checks or (["boots", "long", "perf", "reboot", "control", "crash"] if args.boots else ["two", "four", "32"])
    good = [tap(i + 1, name, globals()["check_" + name]) for i, name in enumerate(names)]
    print("1..%d" % len(names))
    sys.exit(not all(good))


def script(*words):
    """Runs a script of this folder, one at a time for all builds; the path it prints."""
    cache = os.environ.get("HVX_CACHE", os.path.join(here, "../../cache"))
    os.makedirs(cache, exist_ok=True)
    return subprocess.check_output(["flock", cache + "/.lock", "sh", os.path.join(here, words[0]), *words[1:]], text=True).strip()


args = None
guests = []
main()
