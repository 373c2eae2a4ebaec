#!/usr/bin/env python3
"""Compare a guest's speed natively, in QEMU TCG and in HVX, on this machine, in turn.

Builds the bench guest, runs every row in each environment (--turns times, the
environments taking turns), and prints one table: nanoseconds per iteration as
medians, how many times slower than native each is, how many times faster than
TCG HVX is, and geometric means; then boot time, memory and idle CPU.

Invariant: all three run the same bytes (the guest's tree by chroot for native),
and rows whose results differ between environments are named, not averaged.
Standard library only.
"""

import argparse
import os
import shutil
import subprocess
import sys

import guest
import report

BENCH = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(BENCH)


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=3, help="how often each environment runs (default 3)")
    p.add_argument("--only", default="native,tcg,hvx", help="environments, by commas (default native,tcg,hvx)")
    p.add_argument("--rows", default="", help="rows to run: globs of group/name or groups, by commas")
    p.add_argument("--target-ms", type=int, default=60, help="how long one measurement should take (default 60)")
    p.add_argument("--limit-ms", type=int, default=10000, help="how long one row may take (default 10000)")
    p.add_argument("--memory", type=int, default=1024, help="the guest's memory in MiB (default 1024)")
    p.add_argument("--parts", default="rows,system", help="rows, system (boot, memory, idle CPU), or rows,system (default)")
    p.add_argument("--kernel", help="guest kernel (default: Debian's cloud kernel)")
    p.add_argument("--monitor", default=os.environ.get("HVX_MONITOR"), help="hvx-monitor to run")
    p.add_argument("--monitor-args", default="", help="further options for hvx-monitor run, by spaces")
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--svg", metavar="FILE", help="draw the table as an SVG into FILE")
    p.add_argument("--save", metavar="FILE", help="also write the table to FILE")
    p.add_argument("--verbose", action="store_true", help="show the guests' consoles")
    return p.parse_args()


def script(*words):
    """Run one of our scripts and return the path it prints."""
    done = subprocess.run(["sh", *words], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.strip()


def find_monitor(args):
    for path in (args.monitor, os.path.join(TOP, "build", "hvx-monitor"), os.path.join(TOP, "hvx-monitor")):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit("bench: no hvx-monitor: build it (./quickstart build), or name it with --monitor, or use --only=native,tcg")


def prepare(args):
    """Fill in what to run: kernel, images, programs."""
    envs = [e for e in args.only.split(",") if e]
    unknown = set(envs) - {"native", "tcg", "hvx"}
    if unknown:
        sys.exit("bench: no such environment: " + ", ".join(sorted(unknown)))
    args.envs = envs
    args.root = script(os.path.join(BENCH, "mkimage.sh"))
    args.initrd = os.path.join(os.path.dirname(args.root), "initramfs-bench.cpio")
    fetch = os.path.join(TOP, "tests", "guest")
    args.shell_initrd = script(os.path.join(fetch, "mkinitramfs.sh"))
    if not args.kernel:
        args.kernel = script(os.path.join(fetch, "fetch-kernel.sh"), "cloud")
    if "tcg" in envs and not shutil.which(args.qemu):
        sys.exit("bench: no " + args.qemu + ": apt-get install qemu-system-x86")
    if "hvx" in envs:
        args.monitor = find_monitor(args)


def announce(args, turn, what):
    """Say what runs now; a busy host makes every ratio worth less, so say that too."""
    load = os.getloadavg()[0]
    busy = f" (the host is busy: load {load:.1f})" if turn == 1 and what == args.envs[0] and load > 0.7 else ""
    print(f"turn {turn}/{args.turns}: {what}{busy}", file=sys.stderr, flush=True)


def take_turns(args):
    """Run everything; returns ({env: {row: [Sample]}}, {env: [system dict]})."""
    rows = {e: {} for e in args.envs}
    system = {e: [] for e in args.envs if e != "native"}
    for turn in range(1, args.turns + 1):
        for env in args.envs:
            if "rows" in args.parts:
                announce(args, turn, env)
                for name, sample in guest.run_rows(args, env).items():
                    rows[env].setdefault(name, []).append(sample)
            if "system" in args.parts and env != "native":
                announce(args, turn, env + ", boot and idle")
                system[env].append(guest.run_system(args, env))
    return rows, system


def main():
    args = parse_args()
    prepare(args)
    rows, system = take_turns(args)
    text, table = report.table(args.envs, rows, system)
    print(text)
    if args.save:
        with open(args.save, "w") as f:
            f.write(text + "\n")
    if args.svg:
        with open(args.svg, "w") as f:
            f.write(report.svg(args.envs, table))
    return 1 if report.problems(args.envs, rows) else 0


if __name__ == "__main__":
    sys.exit(main())
