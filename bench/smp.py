#!/usr/bin/env python3
"""Several CPUs: the same work natively, in QEMU TCG and HVX with two CPUs, and in HVX with one, in turn.

Prints a table of medians over --turns, how many times faster two CPUs are than one
and than TCG's two, what a second running thread costs mprotect and munmap, and
boot times with one CPU and four; each beside its bar.

Invariant: all run the same bytes on the same host, one after the other within a turn.
"""

import argparse
import os
import shutil
import statistics
import sys

import bench
import guest
import report

# What a group's rows must reach: HVX with two CPUs against one, and against TCG with two.
BARS = {"scale": 1.8, "share": 1.0}
TCG_ROW, TCG_MEAN, BESIDE, BOOT = 2.0, 4.0, 3.0, 1.5
ENVS = {"native": ("native", 0), "tcg2": ("tcg", 2), "hvx2": ("hvx", 2), "hvx1": ("hvx", 1)}


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=3, help="how often each environment runs (default 3)")
    p.add_argument("--only", default=",".join(ENVS), help="environments, by commas (default all)")
    p.add_argument("--rows", default="", help="rows to run, by commas: parts of their names")
    p.add_argument("--memory", type=int, default=1024, help="the guests' memory in MiB (default 1024)")
    p.add_argument("--parts", default="rows,boot", help="rows, boot, or rows,boot (default)")
    p.add_argument("--limit", type=int, default=300, help="seconds without a line that mean a hang (default 300)")
    p.add_argument("--monitor", default=os.environ.get("HVX_MONITOR"), help="hvx-monitor to run")
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--save", metavar="FILE", help="also write the table to FILE")
    p.add_argument("--verbose", action="store_true", help="show the guests' consoles")
    return p.parse_args()


def prepare(args):
    args.envs = [e for e in args.only.split(",") if e]
    unknown = set(args.envs) - set(ENVS)
    if unknown:
        sys.exit("bench: no such environment: " + ", ".join(sorted(unknown)))
    args.root = bench.script(os.path.join(bench.BENCH, "smp", "mkimage.sh"))
    args.initrd = os.path.join(os.path.dirname(args.root), "initramfs-bench-smp.cpio")
    fetch = os.path.join(bench.TOP, "tests", "guest")
    args.shell_initrd = bench.script(os.path.join(fetch, "mkinitramfs.sh"))
    args.kernel = bench.script(os.path.join(fetch, "fetch-kernel.sh"), "cloud")
    args.monitor_args = ""
    if "tcg2" in args.envs and not shutil.which(args.qemu):
        sys.exit("bench: no " + args.qemu + ": apt-get install qemu-system-x86")
    if any(e.startswith("hvx") for e in args.envs):
        args.monitor = bench.find_monitor(args)


def run_rows(args, env):
    """{row: Sample} of one run."""
    vmm, args.cpus = ENVS[env]
    words = " ".join(w for w in args.rows.split(",") if w)
    if vmm == "native":
        environ = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "rows": words}
        proc = guest.Process(guest.native_command(args), environ, args.verbose)
    else:
        append = f'quiet rows="{words}"' if words else "quiet"
        proc = guest.Process(guest.command(args, vmm, args.initrd, append, args.memory), None, args.verbose)
    samples, tail = guest.read_rows(proc, args.limit)
    status = proc.end()
    if status != 0:
        print(f"bench: {env} ended with status {status}; its last lines:", *tail, sep="\n  ", file=sys.stderr)
    return samples


def boot_seconds(args, cpus):
    """From the start of the process to the first line of init; None when it does not come."""
    args.cpus = cpus
    proc = guest.Process(guest.command(args, "hvx", args.shell_initrd, "", 512), None, args.verbose)
    took, stalls = None, 0
    for now, line in proc.lines(args.limit):
        stalls += "stall" in line or "soft lockup" in line
        if line.startswith("hvx guest:"):
            took = now - proc.start
            break
    if took is not None:
        proc.p.stdin.write(b"exit\n")
        proc.p.stdin.flush()
        for _ in proc.lines(20):
            pass
    proc.end()
    return None if stalls else took


def take_turns(args):
    rows, boots = {e: {} for e in args.envs}, {1: [], 4: []}
    for turn in range(1, args.turns + 1):
        for env in args.envs if "rows" in args.parts else []:
            bench.announce(args, turn, env)
            for name, sample in run_rows(args, env).items():
                rows[env].setdefault(name, []).append(sample)
        for cpus in boots if "boot" in args.parts and "hvx1" in args.envs else []:
            bench.announce(args, turn, f"boot with {cpus} CPUs")
            boots[cpus].append(boot_seconds(args, cpus))
    return rows, boots


def medians(args, rows):
    """{row: {env: ns or None}}"""
    return {name: {e: report.median_ns(rows[e].get(name, [])) for e in args.envs} for name in report.row_names(args.envs, rows)}


def verdict(value, bar, at_least=True):
    if value is None:
        return "not measured"
    return "reached" if (value >= bar if at_least else value <= bar) else "MISSED"


def row_lines(table):
    out = [["row", "native", "TCG x2", "HVX x2", "HVX x1", "x1/x2", "bar", "TCG/HVX", "HVX/native"]]
    for name, ns in table.items():
        scale, tcg = report.divide(ns.get("hvx1"), ns.get("hvx2")), report.divide(ns.get("tcg2"), ns.get("hvx2"))
        bar = BARS.get(name.split("/")[0])
        out.append([name] + [report.human(ns.get(e)) for e in ENVS] + [report.ratio(scale)] +
                   [f"{bar} {verdict(scale, bar)}" if bar else ""] +
                   [report.ratio(tcg) + ("" if tcg is None or tcg >= TCG_ROW else " MISSED"),
                    report.ratio(report.divide(ns.get("hvx2"), ns.get("native")))])
    widths = [max(len(line[i]) for line in out) for i in range(len(out[0]))]
    return ["  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip() for line in out]


def bar_lines(table, boots):
    out = []
    mean = report.geomean(v for v in (report.divide(ns.get("tcg2"), ns.get("hvx2")) for ns in table.values()) if v)
    if mean:
        out.append(f"times faster than TCG with two CPUs, geometric mean: {report.ratio(mean)} (bar {TCG_MEAN}: {verdict(mean, TCG_MEAN)})")
    for what in "mprotect", "munmap":
        for env in ENVS:
            alone, beside = (table.get(f"mm/{what}-{k}", {}).get(env) for k in ("alone", "beside"))
            cost = report.divide(beside, alone)
            if cost:
                bar = f" (bar {BESIDE}: {verdict(cost, BESIDE, False)})" if env == "hvx2" else ""
                out.append(f"{what} beside a thread that runs, against alone, {env}: {report.ratio(cost)}{bar}")
    if boots[1] and boots[4]:
        if None in boots[1] + boots[4]:
            out.append(f"boot: did not come up, or reported a stall: {boots}")
        else:
            one, four = statistics.median(boots[1]), statistics.median(boots[4])
            out.append(f"boot to init: {one:.2f} s with one CPU, {four:.2f} s with four: {four / one:.2f} "
                       f"(bar {BOOT}: {verdict(four / one, BOOT, False)})")
    return out


def main():
    args = parse_args()
    prepare(args)
    rows, boots = take_turns(args)
    table = medians(args, rows)
    text = "\n".join((row_lines(table) if table else []) + [""] + bar_lines(table, boots))
    print(text)
    if args.save:
        with open(args.save, "w") as f:
            f.write(text + "\n")
    bad = sorted({n for n, ns in table.items() if None in ns.values()})
    if bad:
        print("did not finish everywhere: " + ", ".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
