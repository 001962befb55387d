#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The least that any planner can upload under uniform churn: the bound of doc/merging.md.

Every checkpoint changes 1 % of the pages of a chunk, at random, and uploads them as a delta or as a
part of a merge of the newest deltas; a chunk never has more than 8 deltas. The best order of merges
is known for each number of checkpoints, by dynamic programming: the oldest delta is written again at
some checkpoints, each time with all that is newer, and in between the others have one place less.
All figures are in bytes uploaded per changed byte.
"""

import math

PLACES = 8
CHECKPOINTS = 320
KEPT = math.exp(-0.01)  # of a chunk's pages a checkpoint leaves so many alone
BASE = 1 / (1 - KEPT)


def merged(count):
    """Bytes of so many deltas in one: pages that several of them have count once."""
    return (1 - KEPT ** count) * BASE


def least():
    """[checkpoints]: bytes uploaded, without a new base."""
    below = [0.0] + [math.inf] * CHECKPOINTS
    for _ in range(PLACES):
        one = [math.inf, 1.0]  # when all deltas have become one
        for k in range(2, CHECKPOINTS + 1):
            one.append(min(one[j] + below[k - 1 - j] for j in range(1, k)) + merged(k))
        below = [0.0] + [min(one[j] + below[n - j] for j in range(1, n + 1))
                         for n in range(1, CHECKPOINTS + 1)]
    return below


def main():
    cost = least()
    for n in (50, 100, 200):
        print(f"{n} checkpoints without a base: {cost[n] / n:.2f}")
    for n in (50, 70, 100, 130, 165, 200):
        waste = sum(1 - KEPT ** i for i in range(n)) / n
        print(f"a base every {n} checkpoints: {(cost[n - 1] + BASE) / n:.2f}, "
              f"at least {1 + waste:.2f} times the live bytes")
    best, n = min(((cost[n - 1] + BASE) / n, n) for n in range(2, CHECKPOINTS))
    print(f"for ever: {best:.2f}, with a base every {n} checkpoints")


if __name__ == "__main__":
    main()
