#!/usr/bin/env python3
"""The complete Debian system: boots, is reached, keeps its data, ends in order.  TAP on standard output.

Invariant: a check that cannot be made here is skipped with its reason; every
other one passes or fails.  Each end of the guest is followed by e2fsck.
"""

import argparse
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import network
import vm

# What a sound kernel never prints.
KERNEL_TROUBLE = r"(BUG:|Oops|WARNING: CPU|Call Trace|rcu.*stall|soft lockup|I/O error|virtio.*(fail|error)|blocked for more than|unhandled|general protection|segfault)"
MIRROR_TROUBLE = r"Mirror sync in progress|Hash Sum mismatch|unexpected size|is not valid yet|has expired| 50[234] "


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--vmm", choices=("hvx", "tcg"), default="hvx")
    p.add_argument("--kernel", choices=("cloud", "generic"), default="cloud")
    p.add_argument("--short", action="store_true", help="one boot, 64 MiB by scp, power-off")
    p.add_argument("--only", default=".*", help="pattern of stories: basics, copies, network, restarts, button, crash")
    p.add_argument("--monitor", help="hvx-monitor to run (default: HVX_MONITOR, then the build tree's)")
    p.add_argument("--monitor-args", default="", help="further options for hvx-monitor run, by spaces")
    p.add_argument("--limit", type=int, default=180, help="seconds a boot may take")
    p.add_argument("--keep", help="directory for the guest's console")
    return p.parse_args()


class Tap:
    """Counts and prints results."""

    def __init__(self):
        self.number = self.failed = 0

    def result(self, passed, name, text=""):
        self.number += 1
        self.failed += not passed
        print(f"{'ok' if passed else 'not ok'} {self.number} - {name}")
        for line in str(text).strip().split("\n") if text else []:
            print(f"  # {line}")
        sys.stdout.flush()

    def skip(self, name, why):
        self.number += 1
        print(f"ok {self.number} - {name} # SKIP {why}", flush=True)

    def check(self, name, function, *args):
        """function returns a remark, or raises Failed.  Returns whether it passed."""
        try:
            self.result(True, name, function(*args) or "")
            return True
        except vm.Failed as e:
            self.result(False, name, e)
            return False


class Story:
    """What the stories share: the arguments, the disk, the results."""

    def __init__(self, args, tap, work):
        self.args, self.tap, self.work = args, tap, work
        self.image = vm.build_image(f"--kernel={args.kernel}")
        self.disk = os.path.join(work, "disk.raw")
        vm.copy_disk(self.image, self.disk)
        self.monitor = vm.find_monitor(args.monitor) if args.vmm == "hvx" else None

    def guest(self, ports=(22,)):
        return vm.Guest(self.args.vmm, self.image, [self.disk], monitor=self.monitor, keep=self.args.keep, ports=ports,
                        extra=self.args.monitor_args.split() if self.args.vmm == "hvx" else ())

    def boot(self, g, times=1):
        seconds = g.wait_multi_user(self.args.limit, times)
        return f"multi-user after {seconds:.1f} s" if times == 1 else ""

    def file_system(self, repair):
        """e2fsck on the ended guest's disk: nothing to do (repair=False), or the journal only."""
        env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
        state = subprocess.run(["dumpe2fs", "-h", self.disk], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env).stdout
        if not repair and ("needs_recovery" in state or not re.search(r"Filesystem state: +clean\n", state)):
            raise vm.Failed("the file system was not unmounted")
        if repair:
            subprocess.run(["e2fsck", "-E", "journal_only", "-p", self.disk], stdout=subprocess.DEVNULL, env=env)
        done = subprocess.run(["e2fsck", "-f", "-n", self.disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        if done.returncode:
            raise vm.Failed(done.stdout)
        return done.stdout.strip().split("\n")[-1]

    def ended(self, g):
        status = g.end()
        if status:
            raise vm.Failed(f"exit status {status}")


# ---- checks ----


def units(g):
    state = g.ssh("systemctl is-system-running --wait", 120, check=False)[1].strip()
    failed = g.ssh("systemctl --failed --no-legend --plain")
    if state != "running" or failed.strip():
        raise vm.Failed(f"system is {state}; failed: {failed}")
    return g.ssh("uname -srv; systemd-analyze | head -n 1")


def kernel_log(g):
    bad = [line for line in g.ssh("dmesg").split("\n") if re.search(KERNEL_TROUBLE, line)]
    if bad:
        raise vm.Failed("\n".join(bad[:20]))


def programs32(g):
    """Freestanding, and with the 32-bit C library; the host's answer comes from Python's integers."""
    if g.vmm != "tcg":  # QEMU 7.2's TCG oopses the guest's kernel there
        g.ssh("compat32", 120)
    digits = 1200
    got = g.ssh(f"pi32 {digits}", 300).strip()
    if got != pi_digits(digits):
        raise vm.Failed("pi32 gives other digits: " + got)


def pi_digits(count):
    """Machin's formula in integers; the digits without the point."""
    one = 10 ** (count + 10)

    def arctan_inverse(x):
        power = total = one // x
        n, sign = 3, -1
        while power:
            power //= x * x
            total += sign * (power // n)
            n, sign = n + 2, -sign
        return total

    return str(4 * (4 * arctan_inverse(5) - arctan_inverse(239)))[:count]


def apt(tap, g):
    """apt-get update, then a package installed, run and removed; skipped where the host itself has no way."""
    name = "apt-get update and install"
    status, text = g.ssh("apt-get -q update && apt-get -q -y install hello && hello && apt-get -q -y purge hello", 400, check=False)
    if status == 0 and "Hello, world!" in text and not re.search(r"^(E|Err):?", text, re.M):
        tap.result(True, name)
        return
    sources = g.ssh("cat /etc/apt/sources.list; cat /etc/apt/apt.conf.d/*")
    unreachable = [u for u in sorted(set(re.findall(r"https?://[^ \"']+", sources))) if not reachable(u)]
    if unreachable:
        tap.skip(name, "not reachable from the host either: " + ", ".join(unreachable))
    elif re.search(MIRROR_TROUBLE, text):
        tap.skip(name, "the mirror is inconsistent: " + re.search(f".*({MIRROR_TROUBLE}).*", text)[0].strip())
    else:
        tap.result(False, name, text[-1500:])


def reachable(url):
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 10).close()
        return True
    except OSError:
        return False


def random_file(path, mib):
    """A file of random bytes; returns its digest."""
    digest = hashlib.sha256()
    with open(path, "wb") as f:
        for _ in range(mib):
            block = os.urandom(1 << 20)
            digest.update(block)
            f.write(block)
    return digest.hexdigest()


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copy_both_ways(story, g, mib):
    """scp there, digest in the guest read back from the disk, scp back, digest here."""
    here, back = (os.path.join(story.work, n) for n in ("out.bin", "back.bin"))
    want = random_file(here, mib)
    start = time.monotonic()
    g.scp(here, "guest:/var/tmp/copy.bin", 900)
    there = time.monotonic()
    got = g.ssh("sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </var/tmp/copy.bin", 600).split()[0]
    if got != want:
        raise vm.Failed(f"the guest's copy has digest {got}, not {want}")
    middle = time.monotonic()
    g.scp("guest:/var/tmp/copy.bin", back, 900)
    end = time.monotonic()
    if file_digest(back) != want:
        raise vm.Failed("what came back is not what was sent")
    g.ssh("rm /var/tmp/copy.bin")
    return f"{mib} MiB: {mib / (there - start):.1f} MiB/s into the guest, {mib / (end - middle):.1f} MiB/s out of it"


def boot_id(g):
    return g.ssh("cat /proc/sys/kernel/random/boot_id").strip()


def restart(story, g, command, times):
    """command starts the guest's kernel anew; a file written before is there afterwards."""
    before = boot_id(g)
    g.ssh(f"echo {before} >/root/marker")
    g.ssh(command, check=False)
    story.boot(g, times)
    if boot_id(g) == before:
        raise vm.Failed("the kernel did not start anew")
    if g.ssh("cat /root/marker").strip() != before:
        raise vm.Failed("the file written before is gone")


KEXEC = "kexec -l /vmlinuz --initrd=/initrd.img --reuse-cmdline && systemctl kexec"


# ---- stories ----


def begin(story, g):
    """Whether the guest came up; nothing else makes sense without that."""
    return story.tap.check("boots to multi-user, answers by ssh", story.boot, g)


def finish(story, g, how):
    g.ssh("poweroff", check=False) if how == "poweroff" else story.tap.check("the power button is pressed", g.press_button)
    story.tap.check(f"{how} ends with status 0", story.ended, g)
    story.tap.check(f"{how} leaves a clean file system", story.file_system, False)


def story_basics(story):
    tap = story.tap
    with story.guest() as g:
        if not begin(story, g):
            return
        tap.check("no failed unit", units, g)
        tap.check("32-bit programs", programs32, g)
        if story.args.short:
            tap.check("scp both ways", copy_both_ways, story, g, 64)
        else:
            apt(tap, g)
        tap.check("nothing bad in the kernel's log", kernel_log, g)
        finish(story, g, "poweroff")


def story_copies(story):
    with story.guest() as g:
        if begin(story, g):
            story.tap.check("scp of 1 GiB both ways", copy_both_ways, story, g, 1024)
            story.tap.check("nothing bad in the kernel's log", kernel_log, g)
            finish(story, g, "poweroff")


def story_network(story):
    network.story_network(story, begin, finish, copy_both_ways, kernel_log)


def story_restarts(story):
    with story.guest() as g:
        if begin(story, g):
            story.tap.check("reboot", restart, story, g, "reboot", 2)
            story.tap.check("kexec", restart, story, g, KEXEC, 3)
            story.tap.check("no failed unit", units, g)
            story.tap.check("nothing bad in the kernel's log", kernel_log, g)
            finish(story, g, "poweroff")


def story_button(story):
    with story.guest() as g:
        if begin(story, g):
            finish(story, g, "stop")


def story_crash(story):
    """SIGKILL of everything: what was synced is there, and the journal is all that e2fsck needs."""
    tap = story.tap
    with story.guest() as g:
        if not begin(story, g):
            return
        want = g.ssh("head -c 50000000 /dev/urandom >/root/synced; sync /root/synced; sha256sum </root/synced", 120)
        g.ssh("nohup sh -c 'while :; do cp -r /etc /root/copy; rm -r /root/copy; done' >/dev/null 2>&1 & sleep 3")
        g.crash()
    tap.check("after SIGKILL only the journal is to be replayed", story.file_system, True)
    with story.guest() as g:
        if not begin(story, g):
            return
        got = g.ssh("sha256sum </root/synced")
        tap.result(got == want, "what was synced is there", "" if got == want else f"digest {got}, not {want}")
        finish(story, g, "stop")


STORIES = {"basics": story_basics, "copies": story_copies, "network": story_network, "restarts": story_restarts,
           "button": story_button, "crash": story_crash}


def missing_programs(args):
    wanted = ["ssh", "scp", "passt", "mmdebstrap"] + (["qemu-system-x86_64"] if args.vmm == "tcg" else [])
    return [p for p in wanted if not shutil.which(p)]


def main():
    args = parse_args()
    missing = missing_programs(args)
    if missing:
        print(f"1..0 # SKIP no {', '.join(missing)}: tests/guest/prepare-host.sh check installs what is needed")
        return 77
    tap = Tap()
    work = tempfile.mkdtemp(prefix="hvx-system.")
    try:
        story = Story(args, tap, work)
        for name, function in STORIES.items():
            if re.fullmatch(args.only, name) and (name == "basics" or not args.short):
                print(f"# {name}, {args.vmm}", flush=True)
                function(story)
    except vm.Failed as e:
        tap.result(False, "the story goes on", e)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"1..{tap.number}")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
