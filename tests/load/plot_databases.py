#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot_databases.py TABLE... SVG: throughput and hit rate over time, from the tables of
database_load.sh. Throughput has a logarithmic scale."""
import math
import os
import sys

WIDTH, HEIGHT, LEFT, TOP, GAP = 640, 140, 70, 34, 54
LOCAL, QUOTA = "#2f6fa7", "#d08a2e"


def read(path):
    with open(path, encoding="utf-8") as f:
        return [[int(word) for word in line.split()] for line in f if not line.startswith("#")]


def linear(most):
    marks = [most * part // 4 for part in range(5)]
    return marks, lambda value: min(value, most) / most


def logarithmic(most):
    decades = max(math.ceil(math.log10(most)), 1)
    marks = [10 ** decade for decade in range(decades + 1)]
    return marks, lambda value: math.log10(max(value, 1)) / decades


def axes(title, scale, end, top):
    marks, place = scale
    out = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for mark in marks:
        y = top + HEIGHT - place(mark) * HEIGHT
        out.append(f'<path d="M{LEFT} {y:.0f}h{WIDTH}" stroke="#ccc"/><text x="{LEFT - 6}" '
                   f'y="{y + 4:.0f}" text-anchor="end">{mark:,}</text>')
    for part in range(5):
        x = LEFT + part * WIDTH / 4
        out.append(f'<text x="{x:.0f}" y="{top + HEIGHT + 14}" text-anchor="middle">'
                   f'{end * part // 4} s</text>')
    return "".join(out)


def plot(rows, title, columns, scale, top):
    end = rows[-1][0]
    out = [axes(title, scale, end, top)]
    for i, (column, name, colour) in enumerate(columns):
        points = " ".join(f"{LEFT + row[0] * WIDTH / end:.1f},"
                          f"{top + HEIGHT - scale[1](row[column]) * HEIGHT:.1f}" for row in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                   f'stroke-width="1.5"/><text x="{LEFT + 400 + 110 * i}" y="{top - 8}" '
                   f'fill="{colour}">{name}</text>')
    return "".join(out)


def main():
    parts = []
    for path in sys.argv[1:-1]:
        rows = read(path)
        name = {"sqlite": "SQLite", "postgres": "PostgreSQL"}.get(
            os.path.basename(path).split(".")[0], path)
        most = max(max(row[1], row[2]) for row in rows)
        for title, columns, scale in (
                (f"{name}: operations a second",
                 [(1, "all local", LOCAL), (2, "with the quota", QUOTA)], logarithmic(most)),
                (f"{name}: reads that did not wait for the store, per mille",
                 [(3, "with the quota", QUOTA)], linear(1000))):
            parts.append(plot(rows, title, columns, scale, TOP + len(parts) * (HEIGHT + GAP)))
    height = TOP + len(parts) * (HEIGHT + GAP)
    with open(sys.argv[-1], "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" '
                f'height="{height}" font-family="sans-serif" font-size="11"><rect width="100%" '
                f'height="100%" fill="#fff"/>{"".join(parts)}</svg>\n')


main()
