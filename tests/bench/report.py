# SPDX-License-Identifier: Apache-2.0
"""Results as tables, and as an SVG picture."""

import html
import statistics

BEGIN = "<!-- %s: written by tests/bench/bench, do not edit -->"
END = "<!-- end of %s -->"


def number(x):
    if x is None:
        return "-"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) < 10 else f"{x:.1f}"


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def ratios(ours, floor):
    """Run by run: what lay side by side is compared."""
    return [a / b for a, b in zip(ours or [], floor or []) if a is not None and b]


def spread(values):
    """The median of ratios, and between what they lay."""
    if not values:
        return "-"
    text = f"{statistics.median(values):.2f}"
    return text if len(values) < 2 else f"{text} ({min(values):.2f}-{max(values):.2f})"


def table(rows):
    """Markdown that is readable as it stands."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(r, widths)) + " |" for r in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def workload_table(results, targets):
    base = results["baseline"]
    others = [t for t in targets if t != base]
    rows = [["workload", f"{base}, median", "unit", *[f"{t} / {base}" for t in others], "aim"]]
    for w in results["workloads"].values():
        cells = []
        for t in others:
            error = w["errors"].get(t)
            cells.append("failed" if error else spread(ratios(w["runs"].get(t), w["runs"].get(base))))
        aim = f"{w['target']:.2f}" if w["target"] else ""
        rows.append([w["title"], number(median(w["runs"].get(base, []))), w["unit"], *cells, aim])
    return table(rows)


def latency_table(results, targets):
    rows = [["99th percentile, us", *targets]]
    for w in results["workloads"].values():
        if w["p99_us"]:
            rows.append([w["title"], *[number(median(w["p99_us"].get(t, []))) for t in targets]])
    return table(rows) if len(rows) > 1 else ""


def figure_table(results):
    rows = [["figure", "ckptfs, median", "unit", "floor", "the floor is", "ratio", "aim"]]
    for f in results["figures"].values():
        rows.append([f["title"], number(median(f["ours"])), f["unit"], number(median(f["floor"])),
                     f["floor_is"] or "", spread(ratios(f["ours"], f["floor"])),
                     f["limit"] or ""])
    return table(rows) if len(rows) > 1 else ""


def machine_text(results):
    m, s = results["machine"], results["settings"]
    loaded = ("The machine was busy with other work meanwhile: only the ratios mean something, and "
              "they less than on an idle one.") if m["load_before"] > 0.5 * m["processors"] else ""
    return (f"{m['date']}, Linux {m['kernel']}, {m['processors']} processors ({m['model']}), "
            f"{m['memory_gib']:.0f} GiB, {m['file_system']}; load average before the run "
            f"{m['load_before']:.1f}. {s['runs']} runs of {s['seconds']} s, files of "
            f"{s['megabytes']} MiB, store: {s['store']}, checkpoint every {s['interval']}. "
            f"{loaded}").strip()


def markdown(results, picture=None):
    targets = results["targets"]
    parts = [machine_text(results)]
    if results["workloads"]:
        parts += [workload_table(results, targets)]
        if picture:
            parts.append(f"![ratios]({picture})")
        parts += [latency_table(results, targets)]
    parts.append(figure_table(results))
    failures = {}
    for w in results["workloads"].values():
        for t, e in w["errors"].items():
            failures.setdefault((t, e), []).append(w["title"])
    if failures:
        parts.append("Failed:\n\n" + "\n".join(
            f"- {t}: {e} ({'; '.join(titles)})" for (t, e), titles in failures.items()))
    return "\n\n".join(p for p in parts if p)


def update_document(path, section, text):
    begin, end = BEGIN % section, END % section
    with open(path, encoding="utf-8") as f:
        document = f.read()
    before, _, rest = document.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no lines '{begin}' and '{end}'")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"{before}{begin}\n\n{text}\n\n{end}{after}")


# ---- the picture ----------------------------------------------------------------------------------

COLOURS = ["#2f6fa7", "#d08a2e", "#5b9a55", "#9a5b94", "#7d7d7d", "#b8524d"]
LEFT, WIDTH, BAR, TOP = 300, 460, 9, 46


def svg(results, limit=2.0):
    """Bars: ratio to the baseline for each workload and target; a line where the aim is."""
    base = results["baseline"]
    others = [t for t in results["targets"] if t != base]
    scale = WIDTH / limit
    body = []
    y = TOP
    for w in results["workloads"].values():
        height = BAR * len(others)
        body.append(f'<text x="{LEFT - 8}" y="{y + height / 2 + 4:.0f}" text-anchor="end">'
                    f'{html.escape(w["title"])}</text>')
        for i, t in enumerate(others):
            r = ratios(w["runs"].get(t), w["runs"].get(base))
            if not r:
                continue
            r = statistics.median(r)
            body.append(f'<rect x="{LEFT}" y="{y + i * BAR}" width="{min(r, limit) * scale:.1f}" '
                        f'height="{BAR - 1}" fill="{COLOURS[i % len(COLOURS)]}">'
                        f'<title>{html.escape(t)}: {r:.2f}</title></rect>')
        if w["target"]:
            x = LEFT + w["target"] * scale
            body.append(f'<path d="M{x:.1f} {y - 2}v{height + 3}" stroke="#000" '
                        f'stroke-width="2"/>')
        y += height + 9
    for i in range(int(limit * 2) + 1):
        x = LEFT + i * scale / 2
        body.insert(0, f'<path d="M{x:.1f} {TOP - 6}V{y}" stroke="#ccc"/>'
                       f'<text x="{x:.1f}" y="{TOP - 10}" text-anchor="middle">{i / 2:g}</text>')
    legend = "".join(
        f'<rect x="{LEFT + 150 * i}" y="8" width="10" height="10" '
        f'fill="{COLOURS[i % len(COLOURS)]}"/><text x="{LEFT + 14 + 150 * i}" y="17">'
        f'{html.escape(t)}</text>' for i, t in enumerate(others))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{y + 8}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" '
            f'fill="#fff"/><text x="4" y="17">ratio to {html.escape(base)} (line: aim)</text>'
            f'{legend}{"".join(body)}</svg>\n')
