"""Shuffling, and where its seeds come from."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxtape.data.stages import Run, Stage, join, row_numbers

# A full buffer hands on this many items at once at most: enough to spread NumPy's overhead, few
# enough that the first batch does not wait for a whole epoch.
_EXCHANGED_AT_ONCE = 1024


class _Seeds:
    """Hands out seeds for the shuffles that are given none."""

    def __init__(self) -> None:
        self._root = np.random.SeedSequence()
        self._lock = threading.Lock()

    def restart(self, seed: int) -> None:
        with self._lock:
            self._root = np.random.SeedSequence(seed)

    def draw(self) -> np.random.SeedSequence:
        with self._lock:
            return self._root.spawn(1)[0]


_seeds = _Seeds()


def set_global_seed(seed: int) -> None:
    """Make the shuffles that are created from now on without a seed reproducible.

    Args:
        seed: at least 0. The same seed gives the same orders again, shuffle by shuffle as they
            are created.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"set_global_seed: the seed must be at least 0, not {seed}")
    _seeds.restart(seed)


@dataclass(frozen=True, eq=False)
class Shuffle(Stage):
    """Draws each item at random from the next `buffer_size` ones.

    A buffer with room for the whole upstream makes this a uniform permutation. Each walk has an
    order of its own, unless `reshuffle_each_iteration` is off.
    """

    upstream: Stage
    buffer_size: int
    seed: int | None
    reshuffle_each_iteration: bool
    _sequence: np.random.SeedSequence = field(init=False, repr=False)
    _walks: Iterator[int] = field(init=False, repr=False, default_factory=itertools.count)

    def __post_init__(self) -> None:
        sequence = _seeds.draw() if self.seed is None else np.random.SeedSequence(self.seed)
        object.__setattr__(self, "_sequence", sequence)

    def cardinality(self) -> int:
        return self.upstream.cardinality()

    def runs(self) -> Iterator[Run]:
        generator = self._next_generator()
        upstream = self.upstream.runs()
        held: list[Run] = []
        room = self.buffer_size
        overflow: Run = range(0)
        for run in upstream:
            held.append(run[:room])
            overflow = run[room:]
            if len(overflow):
                break
            room -= len(run)
        if not held:
            return
        buffer = join(held)
        del held
        if len(overflow):
            items = _items(buffer)
            for run in itertools.chain([overflow], upstream):
                for start in range(0, len(run), _EXCHANGED_AT_ONCE):
                    yield _exchange(items, run[start : start + _EXCHANGED_AT_ONCE], generator)
            buffer = _run(items, like=buffer)
        yield _permute(buffer, generator)

    def _next_generator(self) -> np.random.Generator:
        walk = next(self._walks) if self.reshuffle_each_iteration else 0
        root = self._sequence
        seed = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, walk))
        return np.random.default_rng(seed)


def _exchange(buffer: list[Any], incoming: Run, generator: np.random.Generator) -> Run:
    """Put each incoming item into a random slot of the buffer, and return what was there."""
    outgoing = []
    slots = generator.integers(len(buffer), size=len(incoming)).tolist()
    for slot, item in zip(slots, _items(incoming), strict=True):
        outgoing.append(buffer[slot])
        buffer[slot] = item
    return _run(outgoing, like=incoming)


def _permute(run: Run, generator: np.random.Generator) -> Run:
    if isinstance(run, list):
        return [run[position] for position in generator.permutation(len(run))]
    return generator.permutation(row_numbers(run))


def _items(run: Run) -> list[Any]:
    if isinstance(run, list):
        return run
    items: list[int] = row_numbers(run).tolist()
    return items


def _run(items: list[Any], like: Run) -> Run:
    return items if isinstance(like, list) else np.array(items, dtype=np.int64)
