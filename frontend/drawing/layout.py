"""Where to put the nodes of a directed graph: the layered drawing of Sugiyama et al. (1981).

Nodes get ranks by the longest way to them; each rank is ordered by the mean place of its neighbours
to have few crossings; places on a rank are those nearest to the neighbours' that keep the order
(isotonic regression). Edges over several ranks pass through places of their own.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Size = tuple[float, float]
Point = tuple[float, float]

_SWEEPS = 12
_PLACES = 10


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing's places.

    Attributes:
        centres: of the nodes.
        routes: for each edge, the points between its ends.
        width, height: of the whole.
    """

    centres: dict[int, Point]
    routes: list[list[Point]]
    width: float
    height: float


def place(
    sizes: Mapping[int, Size],
    edges: Sequence[tuple[int, int]],
    gap: float = 24.0,
    rank_gap: float = 38.0,
) -> Layout:
    """Lay out an acyclic graph from top to bottom.

    Args:
        sizes: width and height of each node, in a topological order.
        edges: from node to node.
        gap: between neighbours on a rank.
        rank_gap: between ranks.
    """
    ranks = _ranks(list(sizes), edges)
    # Edges over several ranks as chains of edges over one, through nodes without size.
    widths = {node: size[0] for node, size in sizes.items()}
    rows: list[list[int]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for node in sizes:
        rows[ranks[node]].append(node)
    short: list[tuple[int, int]] = []
    chains: list[list[int]] = []
    fresh = max(sizes, default=0) + 1
    for source, target in edges:
        chain = [source]
        for rank in range(ranks[source] + 1, ranks[target]):
            ranks[fresh], widths[fresh] = rank, 4.0
            rows[rank].append(fresh)
            chain.append(fresh)
            fresh += 1
        chain.append(target)
        short.extend(itertools.pairwise(chain))
        chains.append(chain)
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for source, target in short:
        below[source].append(target)
        above[target].append(source)
    rows = _ordered(rows, above, below)
    xs = _coordinates(rows, widths, above, below, gap, real=set(sizes))

    left = min((xs[n] - widths[n] / 2 for n in widths), default=0.0)
    right = max((xs[n] + widths[n] / 2 for n in widths), default=0.0)
    top, ys, spans = 0.0, {}, []
    for row in rows:
        height = max((sizes[n][1] for n in row if n in sizes), default=0.0)
        ys.update(dict.fromkeys(row, top + height / 2))
        spans.append((top, top + height))
        top += height + rank_gap
    routes = []
    for chain in chains:
        # Straight through each rank, so that it does not cut the boxes there.
        first, last = chain[0], chain[-1]
        points: list[Point] = [(xs[first] - left, spans[ranks[first]][1])]
        for node in chain[1:-1]:
            start, end = spans[ranks[node]]
            points += [(xs[node] - left, start), (xs[node] - left, end)]
        routes.append([*points, (xs[last] - left, spans[ranks[last]][0])])
    centres = {node: (xs[node] - left, ys[node]) for node in sizes}
    return Layout(centres, routes, right - left, max(top - rank_gap, 0.0))


def _ranks(nodes: list[int], edges: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The longest way from a source; sources move down to where they are first used."""
    ahead: dict[int, list[int]] = defaultdict(list)
    behind: dict[int, list[int]] = defaultdict(list)
    for source, target in edges:
        ahead[source].append(target)
        behind[target].append(source)
    ranks: dict[int, int] = {}
    for node in nodes:
        ranks[node] = max((ranks[b] + 1 for b in behind[node]), default=0)
    for node in nodes:
        if not behind[node] and ahead[node]:
            ranks[node] = min(ranks[a] for a in ahead[node]) - 1
    return ranks


def _ordered(
    rows: list[list[int]], above: Mapping[int, list[int]], below: Mapping[int, list[int]]
) -> list[list[int]]:
    """The rows in the order with the fewest crossings among those that sweeps up and down find."""
    best, fewest = [list(row) for row in rows], _crossings(rows, below)
    current = [list(row) for row in rows]
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        order = range(1, len(current)) if down else range(len(current) - 2, -1, -1)
        for i in order:
            fixed = current[i - 1] if down else current[i + 1]
            position = {node: p for p, node in enumerate(fixed)}
            neighbours = above if down else below

            def barycentre(
                entry: tuple[int, int],
                position: dict[int, int] = position,
                neighbours: Mapping[int, list[int]] = neighbours,
            ) -> float:
                at, node = entry
                places = [position[n] for n in neighbours[node]]
                return sum(places) / len(places) if places else float(at)

            current[i] = [node for _, node in sorted(enumerate(current[i]), key=barycentre)]
        crossings = _crossings(current, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in current], crossings
    return best


def _crossings(rows: list[list[int]], below: Mapping[int, list[int]]) -> int:
    total = 0
    for row, following in itertools.pairwise(rows):
        position = {node: p for p, node in enumerate(following)}
        seen: list[int] = []
        for node in row:
            places = sorted(position[n] for n in below[node])
            for p in places:
                # Earlier edges that end further to the right.
                total += len(seen) - bisect_left(seen, p + 1)
            for p in places:
                insort(seen, p)
    return total


def _coordinates(
    rows: list[list[int]],
    widths: Mapping[int, float],
    above: Mapping[int, list[int]],
    below: Mapping[int, list[int]],
    gap: float,
    real: set[int],
) -> dict[int, float]:
    """The horizontal places: each near its neighbours', without overlaps."""
    xs: dict[int, float] = {}
    for row in rows:
        x = 0.0
        for node in row:
            xs[node] = x + widths[node] / 2
            x += widths[node] + gap
        for node in row:
            xs[node] -= (x - gap) / 2
    for sweep in range(_PLACES):
        order = rows if sweep % 2 == 0 else rows[::-1]
        for row in order:
            wanted, weights = [], []
            for node in row:
                near = [*above[node], *below[node]]
                wanted.append(sum(xs[n] for n in near) / len(near) if near else xs[node])
                # Long edges are kept straight.
                weights.append(1.0 if node in real else 4.0)
            offsets, total = [], 0.0
            for i, node in enumerate(row):
                if i:
                    total += (widths[row[i - 1]] + widths[node]) / 2 + gap
                offsets.append(total)
            free = [w - o for w, o in zip(wanted, offsets, strict=True)]
            found = isotonic(free, weights)
            for node, value, offset in zip(row, found, offsets, strict=True):
                xs[node] = value + offset
    return xs


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values`, by weighted squares: adjacent violators are
    pooled (Barlow et al., 1972)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (v1, w1, n1), (v2, w2, n2) = pools[-2:]
            pools[-2:] = [((v1 * w1 + v2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    return [value for value, _, count in pools for _ in range(count)]
