"""Further stages, which look into elements, or put pipelines one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import context
from onnxtape.compiler.dims import may_be_equal
from onnxtape.data.stages import (
    INFINITE_CARDINALITY,
    UNKNOWN_CARDINALITY,
    Batch,
    Following,
    OneToOne,
    Run,
    Stage,
)
from onnxtape.data.structure import (
    Structure,
    leaves_with_paths,
    map_structure,
    stack,
    to_numpy,
    to_tensors,
)


@dataclass(frozen=True, eq=False)
class Filter(Following):
    """The elements for which `function` is true; a tuple is spread over its parameters."""

    function: Callable[..., Any]

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        return count if count == INFINITE_CARDINALITY else UNKNOWN_CARDINALITY

    def runs(self) -> Iterator[Run]:
        for element in itertools.chain.from_iterable(self.upstream.runs()):
            given = to_tensors(element)
            with context.eagerly():
                kept = self.function(*given) if type(given) is tuple else self.function(given)
            if bool(kept):
                yield [element]


@dataclass(frozen=True, eq=False)
class PaddedBatch(Batch):
    """Groups of elements, whose arrays are filled up to one shape.

    Attributes:
        shapes: nested as the elements; None, in it or for it, is the largest size in the group.
        values: what is filled up with, nested as the elements or one for all; by default 0.
    """

    shapes: Structure = None
    values: Structure = None

    def runs(self) -> Iterator[Run]:
        for group in self._groups():
            yield [stack(self._filled([to_numpy(element) for element in group]))]

    def _filled(self, group: Sequence[Structure]) -> list[Structure]:
        columns: dict[str, list[npt.NDArray[Any]]] = {}
        for element in group:
            for path, array in leaves_with_paths(element):
                columns.setdefault(path, []).append(array)
        wanted = {
            path: _common_shape(path, arrays, _at(self.shapes, path))
            for path, arrays in columns.items()
        }
        filled = {
            path: iter(
                [_fill(array, wanted[path], _at(self.values, path) or 0) for array in arrays]
            )
            for path, arrays in columns.items()
        }

        def take(element: Structure) -> Structure:
            paths = iter([path for path, _ in leaves_with_paths(element)])
            return map_structure(lambda _: next(filled[next(paths)]), element)

        return [take(element) for element in group]


def _at(tree: Structure, path: str) -> Any:
    """The part of a nested argument for a leaf; one that is not nested is for all leaves."""
    if not isinstance(tree, (tuple, dict)) or _is_shape(tree):
        return tree
    found = dict(_parts(tree, ""))
    if path not in found:
        raise ValueError(f"padded_batch: nothing is given for the elements' {path}")
    return found[path]


def _is_shape(tree: Any) -> bool:
    return isinstance(tree, tuple) and all(d is None or isinstance(d, int) for d in tree)


def _parts(tree: Structure, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, (tuple, dict)) or _is_shape(tree):
        yield path, tree
        return
    named = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, part in named:
        yield from _parts(part, f"{path}[{key!r}]")


def _common_shape(path: str, arrays: Sequence[npt.NDArray[Any]], shape: Any) -> tuple[int, ...]:
    ranks = {array.ndim for array in arrays}
    sizes = shape if isinstance(shape, (list, tuple)) else [shape] * max(ranks)
    if ranks != {len(sizes)}:
        raise ValueError(
            f"padded_batch: the arrays{f' at {path}' if path else ''} have "
            f"{' and '.join(map(str, sorted(ranks)))} dimensions, not {len(sizes)}"
        )
    largest = np.max([array.shape for array in arrays], axis=0, initial=0) if sizes else []
    found = [int(most) if d in (None, -1) else d for most, d in zip(largest, sizes, strict=True)]
    if any(most > size for most, size in zip(largest, found, strict=True)):
        raise ValueError(
            f"padded_batch: an array of {tuple(map(int, largest))} does not fit into {tuple(found)}"
        )
    return tuple(found)


def _fill(array: npt.NDArray[Any], shape: tuple[int, ...], value: Any) -> npt.NDArray[Any]:
    widths = [(0, size - own) for size, own in zip(shape, array.shape, strict=True)]
    filler = 0 if value is None else value
    return np.pad(array, widths, constant_values=filler) if widths else array


@dataclass(frozen=True, eq=False)
class Concatenate(Stage):
    """The items of each upstream, one after the other."""

    upstreams: tuple[Stage, ...]

    def cardinality(self) -> int:
        counts = [stage.cardinality() for stage in self.upstreams]
        for special in (INFINITE_CARDINALITY, UNKNOWN_CARDINALITY):
            if special in counts:
                return special
        return sum(counts)

    def sources(self) -> tuple[Stage, ...]:
        return self.upstreams

    def runs(self) -> Iterator[Run]:
        for stage in self.upstreams:
            yield from stage.runs()


@dataclass(frozen=True, eq=False)
class Enumerate(Following):
    """Pairs of a number, counted from `start`, and an element."""

    start: int

    def skipped(self, count: int) -> Stage:
        return replace(self, upstream=self.upstream.skipped(count), start=self.start + count)

    def runs(self) -> Iterator[Run]:
        elements = itertools.chain.from_iterable(self.upstream.runs())
        for number, element in enumerate(elements, self.start):
            yield [(np.asarray(number, np.int64), element)]


@dataclass(frozen=True, eq=False)
class Every(Following):
    """Each `step`-th item, from the one at `first`."""

    step: int
    first: int

    def cardinality(self) -> int:
        count = self.upstream.cardinality()
        return count if count < 0 else max(-(-(count - self.first) // self.step), 0)

    def runs(self) -> Iterator[Run]:
        wait = self.first
        for run in self.upstream.runs():
            if wait < len(run):
                yield run[wait :: self.step]
            wait = (wait - len(run)) if wait >= len(run) else -(len(run) - wait) % self.step


@dataclass(frozen=True, eq=False)
class Convert(OneToOne):
    """What `function` makes of each element, as it is."""

    function: Callable[[Structure], Structure]

    def runs(self) -> Iterator[Run]:
        for run in self.upstream.runs():
            yield [self.function(element) for element in run]


def conforming(upstream: Stage, signature: Structure) -> Convert:
    """The elements of a generator with a signature's dtypes.

    Raises:
        ValueError: (by an element) other parts, or shapes, than the signature's.
    """
    specs = dict(leaves_with_paths(signature))

    def conform(element: Structure) -> Structure:
        given = dict(leaves_with_paths(element))
        if given.keys() != specs.keys():
            raise ValueError(
                f"from_generator: an element has {sorted(given)}, and output_signature has "
                f"{sorted(specs)}"
            )
        for path, spec in specs.items():
            given[path] = np.asarray(given[path]).astype(spec.dtype, copy=False)
            shape = given[path].shape
            if not may_be_equal(spec.shape, shape):
                raise ValueError(
                    f"from_generator: an array of shape {shape} where output_signature has {spec}"
                )
        leaves = iter(given.values())
        return map_structure(lambda _: next(leaves), element)

    return Convert(upstream, conform)


@dataclass(frozen=True, eq=False)
class FlatMap(Following):
    """The elements of the stages that `function` makes of each element."""

    function: Callable[[Structure], Stage]

    def cardinality(self) -> int:
        return UNKNOWN_CARDINALITY

    def runs(self) -> Iterator[Run]:
        for element in itertools.chain.from_iterable(self.upstream.runs()):
            yield from self.function(element).runs()
