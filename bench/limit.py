#!/usr/bin/env python3
"""How well CPU limits hold: all processes of a VM whose guest never rests, measured by their CPU clocks.

Run from the build tree: bench/limit.py [--seconds=10] [--limits=25,50] [--cpus=1] [--none] [--linux=KERNEL,INITRD].
--linux: instead of the guest of tests/e2e, which keeps one CPU busy, a Linux with a shell on its console, with a loop for each
CPU (tests/guest/fetch-kernel.sh, mkinitramfs.sh).
--none: without cgroups, in a mount namespace that shows none (as root), so that the vcpu's threads keep the limit.
"""
import argparse
import os
import subprocess
import sys
import time

MONITOR = os.environ.get("HVX_MONITOR", os.path.join(os.getcwd(), "hvx-monitor"))
GUEST = os.environ.get("HVX_GUEST", os.path.join(os.getcwd(), "tests/e2e/guest.bin"))
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def status(name):
    out = subprocess.run([MONITOR, "status", name], check=True, capture_output=True, text=True).stdout
    pids = [line.split(" pid ")[1].split(":")[0] for line in out.splitlines() if line.startswith("process:")]
    keeper = [line.split("kept by ")[1] for line in out.splitlines() if line.startswith("limit:    cpu-limit")]
    return pids, keeper[0] if keeper else "nobody"


def measure(name, seconds):
    pids, keeper = status(name)
    begin, cpu = time.monotonic(), cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - cpu) / (time.monotonic() - begin) * 100, keeper


def keep_busy(name, cpus):
    """Types a loop for each CPU at the guest's shell."""
    out = subprocess.run([MONITOR, "status", name], check=True, capture_output=True, text=True).stdout
    path = [line.split("pty ")[1] for line in out.splitlines() if line.startswith("console:")][0]
    with open(path, "r+b", buffering=0) as pty:
        seen = b""
        while b":/root# " not in seen:
            seen += pty.read(1024)
        for _ in range(cpus):
            pty.write(b"while :; do :; done &\n")
            time.sleep(1)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--seconds", type=float, default=10)
    a.add_argument("--limits", default="25,50")
    a.add_argument("--cpus", type=int, default=1)
    a.add_argument("--none", action="store_true")
    a.add_argument("--linux")
    a = a.parse_args()
    if a.none and "HVX_LIMIT_INSIDE" not in os.environ:
        os.environ["HVX_LIMIT_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", 'umount -lR /sys/fs/cgroup; exec "$@"', "sh"] + sys.argv)
    name = f"limit{os.getpid()}"
    guest = [f"--kernel={GUEST}", "--memory=16M"]
    if a.linux:
        kernel, initrd = a.linux.split(",")
        guest = [f"--kernel={kernel}", f"--initrd={initrd}", "--append=console=ttyS0 quiet", "--memory=256M"]
    subprocess.run([MONITOR, "start", f"--name={name}", f"--cpus={a.cpus}", "--cpu-limit=none", *guest], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if a.linux:
            keep_busy(name, a.cpus)
        print(f"{'limit %':>8} {'used %':>8} {'off by':>8}  kept by")
        for limit in a.limits.split(","):
            subprocess.run([MONITOR, "limit", name, f"cpu-limit={limit}"], check=True)
            time.sleep(0.5)
            used, keeper = measure(name, a.seconds)
            print(f"{limit:>8} {used:8.2f} {(used / float(limit) - 1) * 100:7.1f}%  {keeper}", flush=True)
    finally:
        subprocess.run([MONITOR, "kill", name], check=False, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
