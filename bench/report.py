"""Medians, ratios, geometric means: the bench's table as text and as an SVG.

Invariant: a mean is taken over rows that every shown environment finished with
the same result; the others are listed below the table.
"""

import collections
import math
import statistics

Row = collections.namedtuple("Row", "name ns")

# The bars of the first performance milestone: times faster than TCG in geometric mean.
BARS = {"cpu": 2, "fp": 20, "memory": 3, "kernel": 2, "jit": 3, "real": 3}
COLOURS = {"tcg": "#d1793f", "hvx": "#3f78b5"}


def median_ns(samples):
    good = [s.ns for s in samples if s.ns is not None]
    return statistics.median(good) if len(good) == len(samples) and good else None


def problems(envs, rows):
    """Rows that failed somewhere, whose results differ, or whose clock disagrees with the host's."""
    out = []
    for name in row_names(envs, rows):
        samples = {e: rows[e].get(name, []) for e in envs}
        for env in envs:
            if not samples[env]:
                out.append(f"{name}: not run in {env}")
            out += [f"{name}: {env}: {s.why}" for s in samples[env] if s.ns is None]
            skews = [s.skew for s in samples[env] if s.ns is not None]
            if skews and not 0.8 < statistics.median(skews) < 1.2:
                out.append(f"{name}: {env}: guest time is {statistics.median(skews):.2f} of host time")
        results = {s.result for e in envs for s in samples[e] if s.ns is not None}
        if len(results) > 1:
            out.append(f"{name}: results differ: " + ", ".join(sorted(results)))
    return out


def row_names(envs, rows):
    names = []
    for env in envs:
        names += [n for n in rows[env] if n not in names]
    return names


def geomean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def human(ns):
    if ns is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.2f} {unit}"
    return f"{ns:.0f} ns"


def ratio(value):
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def divide(a, b):
    return a / b if a is not None and b else None


def ratios(ns):
    """[TCG/native, HVX/native, TCG/HVX] of one row, None where unknown."""
    return [divide(ns.get("tcg"), ns.get("native")), divide(ns.get("hvx"), ns.get("native")),
            divide(ns.get("tcg"), ns.get("hvx"))]


def group_means(group_rows):
    """Geometric means over the rows that have the ratio at all."""
    columns = zip(*(ratios(r.ns) for r in group_rows))
    return [geomean(v for v in column if v) for column in columns]


HEAD = ["row", "native", "TCG", "HVX", "TCG/native", "HVX/native", "TCG/HVX"]


def cells(row):
    return [row.name] + [human(row.ns.get(e)) for e in ("native", "tcg", "hvx")] + [ratio(v) for v in ratios(row.ns)]


def mean_cells(label, group_rows):
    return [label, "", "", ""] + [ratio(v) for v in group_means(group_rows)]


def bad_names(envs, rows):
    return {p.split(":")[0] for p in problems(envs, rows) if "guest time" not in p}


def table(envs, rows, system):
    """Returns (text, {group: [Row]})."""
    bad = bad_names(envs, rows)
    groups = {}
    for name in row_names(envs, rows):
        ns = {e: median_ns(rows[e][name]) for e in envs if name in rows[e]}
        if name not in bad:
            groups.setdefault(name.split("/")[0], []).append(Row(name, ns))
    lines = [HEAD]
    for group, members in groups.items():
        lines += [cells(r) for r in members]
        lines += [mean_cells(f"{group}: geometric mean of {len(members)}", members), [""] * 7]
    everything = [r for members in groups.values() for r in members]
    if everything:
        lines.append(mean_cells(f"all: geometric mean of {len(everything)}", everything))
    text = layout(lines) if everything else ""
    text += verdicts(groups) + system_text(system)
    trouble = problems(envs, rows)
    if trouble:
        text += "\nleft out or doubtful:\n" + "".join(f"  {p}\n" for p in trouble)
    return text, groups


def layout(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    out = []
    for line in lines:
        first = line[0].ljust(widths[0])
        out.append("  ".join([first] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip())
    return "\n".join(out) + "\n"


def verdicts(groups):
    """Each group against its bar, where TCG and HVX both ran."""
    out = []
    for group, members in groups.items():
        mean = group_means(members)[2]
        if mean is None or group not in BARS:
            continue
        verdict = "reached" if mean >= BARS[group] else "MISSED"
        out.append(f"  {group}: {ratio(mean)} times faster than TCG (bar: {BARS[group]}): {verdict}")
        slower = [r.name for r in members if (ratios(r.ns)[2] or 1) < 1]
        if slower:
            out.append("    slower than TCG: " + ", ".join(slower))
    return "\nbars:\n" + "\n".join(out) + "\n" if out else ""


def system_text(system):
    """Boot, memory and idle CPU as medians."""
    out = []
    for key, label, unit in (("boot", "boot to init", "s"), ("idle", "idle guest, CPU", "%"),
                             ("overhead", "memory beyond guest RAM", "MiB"), ("ram", "guest RAM touched", "MiB"),
                             ("processes", "processes", "")):
        medians = {e: [s[key] for s in runs if key in s] for e, runs in system.items()}
        medians = {e: statistics.median(v) for e, v in medians.items() if v}
        if medians:
            values = ", ".join(f"{e.upper()} {v:.2f} {unit}".rstrip() for e, v in medians.items())
            both = f" (HVX/TCG {medians['hvx'] / medians['tcg']:.2f})" if len(medians) == 2 and medians["tcg"] else ""
            out.append(f"  {label}: {values}{both}")
    return "\nsystem (512 MiB guest, shell initramfs, medians):\n" + "\n".join(out) + "\n" if out else ""


def svg(envs, groups):
    """Horizontal bars on a logarithmic scale: how many times slower than native, per row."""
    shown = [e for e in ("tcg", "hvx") if e in envs]
    items = [(g, r) for g, members in groups.items() for r in members]
    values = [divide(r.ns.get(e), r.ns.get("native")) or 1 for _, r in items for e in shown]
    top = 10 ** math.ceil(math.log10(max(values + [10])))
    left, width, step = 190, 620, 12 * max(len(shown), 1) + 4
    height = 70 + step * len(items) + 24 * len(groups)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{height}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="{left + width + 80}" height="{height}" fill="white"/>',
             f'<text x="{left}" y="18" font-size="14">times slower than native (logarithmic; 1 = native)</text>']

    def x_of(value):
        return left + width * math.log10(max(value, 0.5) / 0.5) / math.log10(top / 0.5)

    for i, env in enumerate(shown):
        parts.append(f'<rect x="{left + 400 + 80 * i}" y="8" width="12" height="12" fill="{COLOURS[env]}"/>'
                     f'<text x="{left + 416 + 80 * i}" y="18">{env.upper()}</text>')
    tick = 1
    while tick <= top:
        parts.append(f'<line x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="38" y2="{height - 10}" stroke="#ccc"/>'
                     f'<text x="{x_of(tick):.1f}" y="34" text-anchor="middle">{tick}</text>')
        tick *= 10
    y = 46
    for group, members in groups.items():
        means = group_means(members)
        label = ", ".join(f"{e.upper()} {ratio(m)}" for e, m in zip(("tcg", "hvx"), means) if m)
        parts.append(f'<text x="8" y="{y + 14}" font-weight="bold">{group}: {label}</text>')
        y += 22
        for row in members:
            parts.append(f'<text x="{left - 6}" y="{y + step / 2 + 2:.0f}" text-anchor="end">{row.name}</text>')
            for i, env in enumerate(shown):
                value = divide(row.ns.get(env), row.ns.get("native"))
                if value is None:
                    continue
                bar = x_of(value) - left
                parts.append(f'<rect x="{left}" y="{y + 12 * i + 1}" width="{bar:.1f}" height="10" '
                             f'fill="{COLOURS[env]}"/><text x="{left + bar + 4:.1f}" y="{y + 12 * i + 10}" '
                             f'font-size="9">{ratio(value)}</text>')
            y += step
    return "\n".join(parts + ["</svg>"]) + "\n"
