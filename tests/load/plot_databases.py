#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot_databases.py TABLE... SVG: throughput and hit rate over time, from the tables of
database_load.sh."""
import os
import sys

WIDTH, HEIGHT, LEFT, TOP = 640, 140, 70, 34


def read(path):
    with open(path, encoding="utf-8") as f:
        return [[int(word) for word in line.split()] for line in f if not line.startswith("#")]


def axes(title, most, end, top):
    out = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for part in range(3):
        y = top + HEIGHT - part * HEIGHT / 2
        out.append(f'<path d="M{LEFT} {y:.0f}h{WIDTH}" stroke="#ccc"/><text x="{LEFT - 6}" '
                   f'y="{y + 4:.0f}" text-anchor="end">{most * part // 2:,}</text>')
    for part in range(5):
        x = LEFT + part * WIDTH / 4
        out.append(f'<text x="{x:.0f}" y="{top + HEIGHT + 14}" text-anchor="middle">'
                   f'{end * part // 4} s</text>')
    return "".join(out)


def plot(rows, title, columns, most, top):
    end = rows[-1][0]
    out = [axes(title, most, end, top)]
    for i, (column, name, colour) in enumerate(columns):
        points = " ".join(f"{LEFT + row[0] * WIDTH / end:.1f},"
                          f"{top + HEIGHT - min(row[column], most) * HEIGHT / most:.1f}"
                          for row in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                   f'stroke-width="1.5"/><text x="{LEFT + 330 + 130 * i}" y="{top - 8}" '
                   f'fill="{colour}">{name}</text>')
    return "".join(out)


def main():
    parts = []
    for path in sys.argv[1:-1]:
        rows = read(path)
        name = os.path.basename(path).split(".")[0]
        most = max(max(row[1], row[2]) for row in rows) * 11 // 10 + 1
        for title, columns, top_value in (
                (f"{name}: operations a second",
                 [(1, "all local", "#2f6fa7"), (2, "with the quota", "#d08a2e")], most),
                (f"{name}: reads without the store, per mille",
                 [(3, "with the quota", "#d08a2e")], 1000)):
            parts.append(plot(rows, title, columns, top_value, TOP + len(parts) * (HEIGHT + 54)))
    height = TOP + len(parts) * (HEIGHT + 54)
    with open(sys.argv[-1], "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" '
                f'height="{height}" font-family="sans-serif" font-size="11"><rect width="100%" '
                f'height="100%" fill="#fff"/>{"".join(parts)}</svg>\n')


main()
