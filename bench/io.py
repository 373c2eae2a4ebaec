#!/usr/bin/env python3
"""Compare a guest's disk, network and boot natively, in QEMU TCG and in HVX, on this machine, in turn.

Boots the complete Debian system (tests/guest/debian) in each emulator, runs fio
on one raw file, iperf3 and round trips through passt, and prints one table:
rates and times as medians over turns, ratios, geometric means, and the bars.

Invariant: both emulators get the same data file with the same cache mode, the
same network back end, the same kernel and memory; "native" is fio on that file
and iperf3 over the loopback, by the host itself.
"""

import argparse
import collections
import fnmatch
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import report

BENCH = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(BENCH)
sys.path.insert(0, os.path.join(TOP, "tests", "guest", "debian"))
import vm  # noqa: E402

# unit "s": less is better, shown as a time; any other: more is better, shown in that unit.
Row = collections.namedtuple("Row", "name unit measure")
IPERF_PORT, RTT_PORT = 5201, 5202
BAR_ROW, BAR_MEAN = 1, 3


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=3, help="how often each environment runs (default 3)")
    p.add_argument("--only", default="native,tcg,hvx", help="environments, by commas (default native,tcg,hvx)")
    p.add_argument("--rows", default="*", help="rows to run: globs, by commas")
    p.add_argument("--seconds", type=float, default=4, help="how long one measurement takes (default 4)")
    p.add_argument("--size", type=int, help="the data file in MiB (default 1024, or what the host keeps unwritten without slowing writers, if that is less)")
    p.add_argument("--memory", type=int, default=1024, help="the guest's memory in MiB (default 1024)")
    p.add_argument("--dir", help="where the disks are put (default: the cache; its file system is what is measured)")
    p.add_argument("--monitor", help="hvx-monitor to run (default: HVX_MONITOR, then the build tree's)")
    p.add_argument("--monitor-args", default="", help="further options for hvx-monitor run, by spaces")
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--save", metavar="FILE", help="also write the table to FILE")
    return p.parse_args()


# ---- where a row runs ----


class Native:
    """The host itself."""

    def __init__(self, args):
        self.args, self.data = args, args.data
        self.ports = {IPERF_PORT: IPERF_PORT, RTT_PORT: RTT_PORT}
        self.gateway = "127.0.0.1"
        self.direct = 0  # the emulators' disks are in the host's page cache as well
        self.started = []

    def run(self, command, seconds):
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
        return done.returncode, done.stdout

    def begin(self):
        for port in (IPERF_PORT, RTT_PORT):
            self.ports[port] = vm.free_port()
        commands = ["iperf3", "-s", "-p", str(self.ports[IPERF_PORT])], [self.args.rtt, "serve", str(self.ports[RTT_PORT])]
        self.started = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in commands]
        time.sleep(0.5)
        return None

    def finish(self):
        for p in self.started:
            p.kill()
            p.wait()


class InGuest:
    """A booted guest: the data file is its second disk; iperf3 and rtt serve inside."""

    def __init__(self, args, env):
        self.args = args
        self.data = "/dev/vdb"
        self.direct = 1
        self.guest = vm.Guest(env, args.image, [args.root, args.data], monitor=args.monitor, qemu=args.qemu, memory=args.memory,
                              ports=(22, IPERF_PORT, RTT_PORT), extra=args.monitor_args.split() if env == "hvx" else ())
        self.ports = self.guest.ports

    def run(self, command, seconds):
        return self.guest.ssh(command, seconds, check=False)

    def begin(self):
        """Boot; returns seconds to multi-user."""
        g = self.guest.start()
        boot = g.wait_multi_user(300)
        g.scp(self.args.rtt, "guest:/root/rtt")
        g.ssh(f"chmod 755 /root/rtt; iperf3 -s -D -p {IPERF_PORT}; (/root/rtt serve {RTT_PORT} >/dev/null 2>&1 </dev/null &)")
        self.gateway = g.ssh("ip -4 route show default | awk '{print $3; exit}'").strip()
        return boot

    def finish(self):
        try:
            if self.guest.process.poll() is None:
                self.guest.ssh("poweroff", 30, check=False)
                self.guest.end(60)
        finally:
            self.guest.close()


# ---- measurements: each returns a number in the row's unit, or raises Failed ----


def parsed(where, command, seconds):
    status, text = where.run(command, seconds)
    start = text.find("{")
    if status or start < 0:
        raise vm.Failed(f"status {status}: {text.strip()[-200:]}")
    return json.loads(text[start:])


def fio(rw, block, depth):
    def measure(where):
        seconds = where.args.seconds
        command = (f"timeout -k 5 {int(30 + 4 * seconds)} fio --name=x --filename={where.data} --rw={rw} --bs={block} --iodepth={depth} --ioengine=libaio "
                   f"--direct={where.direct} --invalidate=0 --size={where.args.size}M --time_based --runtime={seconds} --ramp_time=1 "
                   "--randrepeat=0 --norandommap --output-format=json")
        job = parsed(where, command, 60 + 5 * seconds)["jobs"][0]["write" if "write" in rw else "read"]
        return job["iops"] if block == "4k" else job["bw_bytes"] / (1 << 20)
    return measure


def iperf(*options):
    """The host is the client; -R turns the direction round."""
    def measure(where):
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(where.ports[IPERF_PORT]), "-t", str(where.args.seconds), "-O", "1", "-J", *options]
        for _ in range(3):
            time.sleep(1)  # the server listens anew after each client, and is deaf meanwhile
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60 + 10 * where.args.seconds)
            found = json.loads(done.stdout or "{}")
            if "sum_received" in found.get("end", {}):
                return found["end"]["sum_received"]["bits_per_second"] / 1e6
        raise vm.Failed(found.get("error", "iperf3 gave no result"))
    return measure


def ping(where):
    """By the guest to its gateway, which passt answers through the host's ping sockets.

    The median of 200: one pause of the host would decide a mean."""
    status, text = where.run(f"ping -c 200 -i 0.01 -W 1 {where.gateway}", 60)
    found = re.findall(r"time=([0-9.]+) ms", text)
    if status or not found:
        raise vm.Failed("no answer (the host allows passt no ping sockets: sysctl net.ipv4.ping_group_range)")
    return statistics.median(map(float, found)) / 1e3


def round_trip(where):
    done = subprocess.run([where.args.rtt, str(where.ports[RTT_PORT]), "2000"], stdout=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise vm.Failed("rtt failed")
    return int(done.stdout) / 1e9


BOOT = "boot/multi-user"
ROWS = [
    Row("disk/read-4k-depth-1", "IOPS", fio("randread", "4k", 1)),
    Row("disk/read-4k-depth-32", "IOPS", fio("randread", "4k", 32)),
    Row("disk/write-4k-depth-1", "IOPS", fio("randwrite", "4k", 1)),
    Row("disk/write-4k-depth-32", "IOPS", fio("randwrite", "4k", 32)),
    Row("disk/read-1M", "MiB/s", fio("read", "1M", 4)),
    Row("disk/write-1M", "MiB/s", fio("write", "1M", 4)),
    Row("net/tcp-to-guest", "Mbit/s", iperf()),
    Row("net/tcp-from-guest", "Mbit/s", iperf("-R")),
    Row("net/tcp-round-trip", "s", round_trip),
    Row("net/ping", "s", ping),
    Row(BOOT, "s", None),
]


# ---- running ----


def wanted(args, name):
    return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(name.split("/")[0], p) for p in args.rows.split(","))


def run_environment(args, env, found, trouble):
    where = Native(args) if env == "native" else InGuest(args, env)
    try:
        boot = where.begin()
        if boot and wanted(args, BOOT):
            found[env].setdefault(BOOT, []).append(boot)
        for row in ROWS:
            if row.measure and wanted(args, row.name):
                print(f"  {env}: {row.name}", file=sys.stderr, flush=True)
                measure_row(row, where, env, found, trouble)
    except vm.Failed as e:
        trouble.append(f"{env}: {e}")
    finally:
        try:
            where.finish()
        except vm.Failed as e:
            trouble.append(f"{env}: {e}")


def measure_row(row, where, env, found, trouble):
    try:
        found[env].setdefault(row.name, []).append(row.measure(where))
    except (vm.Failed, subprocess.TimeoutExpired, ValueError, KeyError) as e:
        trouble.append(f"{row.name}: {env}: {e}")


def dirty_room():
    """MiB of written pages that the host keeps before it has writers wait for its disk; None: it does not tell."""
    with open("/proc/vmstat") as f:
        found = re.search(r"^nr_dirty_background_threshold (\d+)$", f.read(), re.M)
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") >> 20 if found else None


def choose_size(args):
    """The rows are of emulators, not of the host's disk: what fits in half the room is never waited for."""
    room = dirty_room()
    if args.size is None:
        args.size = 1024 if room is None else max(64, min(1024, room // 2))
    return f"\ndata file: {args.size} MiB" + (f"; the host keeps {room} MiB unwritten" if room is not None else "") + \
        (": above that the disk rows of writes are its disk's speed" if room is not None and args.size > room else "") + "\n"


def fill(path, mib):
    """A data file without holes: what is measured is not the allocation."""
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(1 << 20))
        f.flush()
        os.fsync(f.fileno())


def prepare(args, work):
    args.envs = [e for e in args.only.split(",") if e]
    needed = ["fio", "iperf3", "ping"] + [args.qemu, "passt"] * ("tcg" in args.envs)
    missing = [p for p in needed if not shutil.which(p)]
    if missing:
        sys.exit(f"bench: no {', '.join(missing)}: run tests/guest/prepare-host.sh bench")
    args.monitor = vm.find_monitor(args.monitor) if "hvx" in args.envs else None
    args.data, args.root, args.rtt = (os.path.join(work, n) for n in ("data.raw", "root.raw", "rtt"))
    subprocess.run([os.environ.get("CC", "gcc"), "-O2", "-static", "-o", args.rtt, os.path.join(BENCH, "rtt.c")], check=True)
    vm.copy_disk(args.image, args.root)
    fill(args.data, args.size)


# ---- the table ----


def better(row, a, b):
    """How many times better a is than b, None when either is unknown."""
    if not a or not b:
        return None
    return b / a if row.unit == "s" else a / b


def shown(row, value):
    if value is None:
        return "-"
    if row.unit == "s":
        return report.human(value * 1e9)
    return f"{value:,.0f} {row.unit}"


def table(args, found, trouble):
    medians = {row: {e: statistics.median(found[e][row.name]) for e in args.envs if found[e].get(row.name)} for row in ROWS}
    rows = [row for row in ROWS if medians[row]]
    if not rows:
        return "nothing was measured\n" + troubles(trouble)
    ratios = {row: [better(row, medians[row].get("native"), medians[row].get("tcg")),
                    better(row, medians[row].get("native"), medians[row].get("hvx")),
                    better(row, medians[row].get("hvx"), medians[row].get("tcg"))] for row in rows}
    lines = [["row", "native", "TCG", "HVX", "TCG/native", "HVX/native", "TCG/HVX"]]
    for group in dict.fromkeys(row.name.split("/")[0] for row in rows):
        members = [row for row in rows if row.name.startswith(group + "/")]
        lines += [[row.name, *(shown(row, medians[row].get(e)) for e in ("native", "tcg", "hvx")),
                   *map(report.ratio, ratios[row])] for row in members]
        lines += [mean_line(f"{group}: geometric mean", [ratios[r] for r in members]), [""] * 7]
    lines.append(mean_line("all: geometric mean", list(ratios.values())))
    return report.layout(lines) + verdict(ratios) + troubles(trouble)


def mean_line(label, ratios):
    return [label, "", "", "", *(report.ratio(report.geomean(v for v in column if v)) for column in zip(*ratios))]


def verdict(ratios):
    gains = {row.name: r[2] for row, r in ratios.items() if r[2]}
    if not gains:
        return ""
    mean = report.geomean(gains.values())
    below = [f"{name} ({report.ratio(g)})" for name, g in gains.items() if g < BAR_ROW]
    return (f"\nbars:\n  geometric mean {report.ratio(mean)} times TCG (bar: {BAR_MEAN}): {'reached' if mean >= BAR_MEAN else 'MISSED'}\n"
            f"  every row at least TCG's: {'MISSED: ' + ', '.join(below) if below else 'reached'}\n")


def troubles(trouble):
    return "\nleft out:\n" + "".join(f"  {t}\n" for t in dict.fromkeys(trouble)) if trouble else ""


def main():
    args = parse_args()
    size_note = choose_size(args)
    args.image = vm.build_image()
    work = tempfile.mkdtemp(prefix="io-bench.", dir=args.dir or os.path.dirname(os.path.dirname(args.image)))
    found, trouble = {e: {} for e in args.only.split(",") if e}, []
    try:
        prepare(args, work)
        for turn in range(1, args.turns + 1):
            for env in args.envs:
                load = os.getloadavg()[0]
                print(f"turn {turn}/{args.turns}: {env} (load {load:.1f})", file=sys.stderr, flush=True)
                run_environment(args, env, found, trouble)
    except vm.Failed as e:
        sys.exit(f"bench: {e}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = table(args, found, trouble) + size_note
    print(text)
    if args.save:
        with open(args.save, "w") as f:
            f.write(text)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
