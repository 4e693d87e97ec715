"""Shuffling, and where its seeds come from."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxtape.data.stages import Following, Run, join, row_numbers

# A full buffer hands on this many items at once at most: enough to spread NumPy's overhead, few
# enough that the first batch does not wait for a whole epoch.
_EXCHANGED_AT_ONCE = 1024

_WORD = 2**64 - 1


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


class _Walks:
    """Counts the walks of a shuffle, which may begin on several threads."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def begin(self) -> int:
        """The number of this walk, from 0."""
        with self._lock:
            self.count += 1
            return self.count - 1


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
class Shuffle(Following):
    """Draws each item at random from the next `buffer_size` ones.

    A buffer with room for the whole upstream makes this a uniform permutation. Each walk has an
    order of its own, unless `reshuffle_each_iteration` is off.
    """

    buffer_size: int
    seed: int | None
    reshuffle_each_iteration: bool
    _sequence: np.random.SeedSequence = field(init=False, repr=False)
    _walks: _Walks = field(init=False, repr=False, default_factory=_Walks)

    def __post_init__(self) -> None:
        sequence = _seeds.draw() if self.seed is None else np.random.SeedSequence(self.seed)
        object.__setattr__(self, "_sequence", sequence)

    def position(self) -> list[int]:
        numbers = [*self.upstream.position(), self._walks.count]
        if self.seed is None:
            # What was drawn for it: 128 bits of chance or a seed, and which draw this was.
            entropy, drawn = self._sequence.entropy, self._sequence.spawn_key[0]
            assert isinstance(entropy, int)
            numbers += [entropy & _WORD, entropy >> 64 & _WORD, drawn]
        return numbers

    def restore(self, numbers: Iterator[int]) -> None:
        self.upstream.restore(numbers)
        self._walks.count = next(numbers)
        if self.seed is None:
            low, high, drawn = itertools.islice(numbers, 3)
            sequence = np.random.SeedSequence(low | high << 64, spawn_key=(drawn,))
            object.__setattr__(self, "_sequence", sequence)

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
        walk = self._walks.begin() if self.reshuffle_each_iteration else 0
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
