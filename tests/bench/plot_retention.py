#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""plot_retention.py TABLE SVG: the plot of doc/retention.md from the table of retention_simulator:
what is in the bucket at the end of each day."""
import sys

WIDTH, HEIGHT, LEFT, TOP = 640, 150, 70, 34
# Title, columns of the table with their names and colours.
PLOTS = [
    ("objects", [(1, "all", "#2f6fa7"), (3, "blobs", "#d08a2e"), (4, "records", "#5b9a55")]),
    ("bytes, in units of the simulation", [(2, "all", "#2f6fa7")]),
    ("generations", [(6, "retained", "#9a5b94"), (7, "expired, in their grace", "#7d7d7d")]),
]


def read(path):
    with open(path, encoding="utf-8") as f:
        return [[int(word) for word in line.split()] for line in f if not line.startswith("#")]


def nice(value):
    step = 1
    while step * 10 <= value:
        step *= 10
    return next(step * i for i in (1, 2, 3, 4, 5, 6, 8, 10) if step * i >= value)


def plot(rows, title, lines, top):
    most = nice(max(row[column] for row in rows for column, _, _ in lines))
    days = rows[-1][0]
    out = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for i in range(3):
        y = top + HEIGHT - i * HEIGHT / 2
        out.append(f'<path d="M{LEFT} {y:.0f}h{WIDTH}" stroke="#ccc"/><text x="{LEFT - 6}" '
                   f'y="{y + 4:.0f}" text-anchor="end">{most * i // 2:,}</text>')
    for day in range(0, days + 1, 28):
        x = LEFT + day * WIDTH / days
        out.append(f'<text x="{x:.0f}" y="{top + HEIGHT + 14}" text-anchor="middle">{day}</text>')
    for i, (column, name, colour) in enumerate(lines):
        points = " ".join(f"{LEFT + row[0] * WIDTH / days:.1f},"
                          f"{top + HEIGHT - row[column] * HEIGHT / most:.1f}" for row in rows)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<rect x="{LEFT + 300 + 110 * i}" y="{top - 17}" width="10" height="10" '
                   f'fill="{colour}"/><text x="{LEFT + 314 + 110 * i}" y="{top - 8}">{name}</text>')
    return "".join(out)


def main():
    rows = read(sys.argv[1])
    step = HEIGHT + 54
    body = "".join(plot(rows, title, lines, TOP + i * step)
                   for i, (title, lines) in enumerate(PLOTS))
    height = TOP + step * len(PLOTS)
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" '
                f'height="{height}" font-family="sans-serif" font-size="11"><rect width="100%" '
                f'height="100%" fill="#fff"/>{body}<text x="{LEFT + WIDTH / 2:.0f}" '
                f'y="{height - 12}" text-anchor="middle">day</text></svg>\n')


main()
