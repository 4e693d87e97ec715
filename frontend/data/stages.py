"""The stages of a pipeline: lazy sequences of items, handed on in runs.

An item is a row number, a batch of row numbers, or an element (a structure of arrays). Over arrays
in memory, `shuffle`, `repeat`, `take`, `skip` and `batch` all work on row numbers, thousands at a
time; only the batches that come out at the end are gathered, each with one `take` per array. The
same stages serve datasets of elements, whose runs are short lists.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxtape import context
from onnxtape.data.structure import Structure, map_structure, stack, to_arrays, to_tensors

INFINITE_CARDINALITY = -1
UNKNOWN_CARDINALITY = -2

RowNumbers: TypeAlias = range | NDArray[np.int64]
Run: TypeAlias = RowNumbers | list[Any]
"""Consecutive items, at least one: row numbers, or a list of anything else."""


def join(runs: Sequence[Run]) -> Run:
    """One run of the items of `runs`, which must not be empty and be all of one kind."""
    if len(runs) == 1:
        return runs[0]
    if isinstance(runs[0], list):
        return list(itertools.chain.from_iterable(runs))
    return np.concatenate([row_numbers(run) for run in runs if not isinstance(run, list)])


def row_numbers(rows: RowNumbers) -> NDArray[np.int64]:
    """`rows` as an array."""
    # np.asarray(range) would walk it number by number.
    return np.arange(rows.start, rows.stop, dtype=np.int64) if isinstance(rows, range) else rows


class Stage(ABC):
    """A lazy sequence of items that can be walked any number of times."""

    @abstractmethod
    def cardinality(self) -> int:
        """The number of items, `INFINITE_CARDINALITY` or `UNKNOWN_CARDINALITY`."""

    @abstractmethod
    def runs(self) -> Iterator[Run]:
        """Start a new walk. No run is empty."""

    def skipped(self, count: int) -> Stage:
        """This without its first `count` items, of which it makes as few as it can."""
        return Skip(self, count)

    def sources(self) -> tuple[Stage, ...]:
        """The stages that this one walks."""
        return ()

    def position(self) -> list[int]:
        """What the order of the next walk depends on, of the shuffles here and upstream."""
        return [number for source in self.sources() for number in source.position()]

    def restore(self, numbers: Iterator[int]) -> None:
        """Take from `numbers` what `position` returned."""
        for source in self.sources():
            source.restore(numbers)


@dataclass(frozen=True, eq=False)
class Following(Stage):
    """A stage over one other; by default as long as that."""

    upstream: Stage

    def cardinality(self) -> int:
        return self.upstream.cardinality()

    def sources(self) -> tuple[Stage, ...]:
        return (self.upstream,)


class OneToOne(Following):
    """A stage that makes each item of one of the upstream."""

    def skipped(self, count: int) -> Stage:
        return replace(self, upstream=self.upstream.skipped(count))


@dataclass(frozen=True, eq=False)
class Rows(Stage):
    """The row numbers 0 to `count` - 1."""

    count: int

    def cardinality(self) -> int:
        return self.count

    def runs(self) -> Iterator[Run]:
        if self.count:
            yield range(self.count)


@dataclass(frozen=True, eq=False)
class Generate(Stage):
    """The elements that `function()` iterates over."""

    function: Callable[[], Iterable[Structure]]

    def cardinality(self) -> int:
        return UNKNOWN_CARDINALITY

    def runs(self) -> Iterator[Run]:
        for element in self.function():
            # Copied, because generators like to fill one array again and again.
            yield [map_structure(_copied, to_arrays(element, "from_generator"))]


@dataclass(frozen=True, eq=False)
class Gather(OneToOne):
    """Turns row numbers, and batches of them, into elements of `arrays`.

    Contiguous rows are views into `arrays`; all others are fresh arrays.
    """

    arrays: Structure

    def runs(self) -> Iterator[Run]:
        for run in self.upstream.runs():
            for item in run:
                yield [self._element(item)]

    def _element(self, item: Any) -> Structure:
        if isinstance(item, range):
            return map_structure(lambda array: array[item.start : item.stop], self.arrays)
        if isinstance(item, np.ndarray):
            return map_structure(lambda array: array.take(item, axis=0), self.arrays)
        return map_structure(lambda array: array[item, ...], self.arrays)


@dataclass(frozen=True, eq=False)
class Map(OneToOne):
    """Applies `function` to each element, as tensors; a tuple is spread over the parameters."""

    function: Callable[..., Any]

    def runs(self) -> Iterator[Run]:
        what = f"the result of map({_describe(self.function)})"
        for run in self.upstream.runs():
            for element in run:
                yield [to_arrays(self._apply(to_tensors(element)), what)]

    def _apply(self, element: Structure) -> Structure:
        # Eagerly: a loop may run inside a tape or a trace, and batch() needs values.
        with context.eagerly():
            # A named tuple stays one argument, as in tf.data: its fields have names to use.
            result = self.function(*element) if type(element) is tuple else self.function(element)
        return tuple(result) if isinstance(result, list) else result


@dataclass(frozen=True, eq=False)
class Batch(Following):
    """Groups of `size` consecutive items: arrays of row numbers, or stacked elements."""

    size: int
    drop_remainder: bool

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        if count < 0:
            return count
        return count // self.size if self.drop_remainder else -(-count // self.size)

    def skipped(self, count: int) -> Stage:
        return replace(self, upstream=self.upstream.skipped(count * self.size))

    def runs(self) -> Iterator[Run]:
        for group in self._groups():
            yield [stack(group) if isinstance(group, list) else group]

    def _groups(self) -> Iterator[Run]:
        held: list[Run] = []
        missing = self.size
        for run in self.upstream.runs():
            start = 0
            while len(run) - start >= missing:
                held.append(run[start : start + missing])
                yield join(held)
                start += missing
                held, missing = [], self.size
            if start < len(run):
                held.append(run[start:])
                missing -= len(run) - start
        if held and not self.drop_remainder:
            yield join(held)


@dataclass(frozen=True, eq=False)
class Repeat(Following):
    """`count` walks of the upstream, one after the other; None for no end."""

    count: int | None

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        if count == 0 or self.count == 0:
            return 0
        if self.count is None:  # of a generator too, as in tf.data, although it may be empty
            return INFINITE_CARDINALITY
        return count * self.count if count > 0 else count

    def runs(self) -> Iterator[Run]:
        for _ in itertools.count() if self.count is None else range(self.count):
            empty = True
            for run in self.upstream.runs():
                empty = False
                yield run
            if empty:  # or an infinite repeat of nothing would never return
                return


@dataclass(frozen=True, eq=False)
class Take(Following):
    """The first `count` items."""

    count: int

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        if count == INFINITE_CARDINALITY or self.count == 0:
            return self.count
        return count if count < 0 else min(count, self.count)

    def skipped(self, count: int) -> Stage:
        count = min(count, self.count)
        return Take(self.upstream.skipped(count), self.count - count)

    def runs(self) -> Iterator[Run]:
        left = self.count
        if not left:
            return
        for run in self.upstream.runs():
            if len(run) >= left:  # and return before the upstream makes one item more
                yield run[:left]
                return
            left -= len(run)
            yield run


@dataclass(frozen=True, eq=False)
class Skip(Following):
    """All but the first `count` items."""

    count: int

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        return count if count < 0 else max(count - self.count, 0)

    def skipped(self, count: int) -> Stage:
        return Skip(self.upstream, self.count + count)

    def runs(self) -> Iterator[Run]:
        left = self.count
        for run in self.upstream.runs():
            if len(run) > left:
                yield run[left:]
            left = max(left - len(run), 0)


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _describe(function: Callable[..., Any]) -> str:
    """The function's name, and the file and line where it begins if it is written in Python."""
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(function, "__code__", None)
    if code is None:
        return str(name)
    return f"{name}, {context.shown_path(code.co_filename)}:{code.co_firstlineno}"


@dataclass(frozen=True, eq=False)
class Zip(Stage):
    """Tuples of one item of each upstream."""

    upstreams: tuple[Stage, ...]

    def cardinality(self) -> int:
        counts = [stage.cardinality() for stage in self.upstreams]
        if UNKNOWN_CARDINALITY in counts:
            return UNKNOWN_CARDINALITY
        return min((count for count in counts if count >= 0), default=INFINITE_CARDINALITY)

    def sources(self) -> tuple[Stage, ...]:
        return self.upstreams

    def skipped(self, count: int) -> Stage:
        return Zip(tuple(stage.skipped(count) for stage in self.upstreams))

    def runs(self) -> Iterator[Run]:
        walks = [itertools.chain.from_iterable(stage.runs()) for stage in self.upstreams]
        for parts in zip(*walks, strict=False):
            yield [parts]


@dataclass(frozen=True, eq=False)
class Cache(Following):
    """The items of the first walk that came to its end, again and again."""

    kept: list[Any] = field(default_factory=list)
    _filled_at: list[int] = field(default_factory=list, init=False, repr=False)

    def cardinality(self) -> int:
        return len(self.kept[0]) if self.kept else self.upstream.cardinality()

    def runs(self) -> Iterator[Run]:
        if not self.kept:
            position = self.upstream.position()
            items: list[Any] = []
            for run in self.upstream.runs():
                items.extend(run)
                yield run
            self.kept[:] = [items]
            self._filled_at[:] = position
        elif self.kept[0]:
            yield self.kept[0]

    def position(self) -> list[int]:
        # What is kept is no part of a checkpoint: the walk that made it is gone through again.
        return list(self._filled_at) if self.kept else self.upstream.position()

    def restore(self, numbers: Iterator[int]) -> None:
        taken = list(itertools.islice(numbers, len(self.upstream.position())))
        if self.kept and taken != self._filled_at:
            self.kept.clear()
        self.upstream.restore(iter(taken))
