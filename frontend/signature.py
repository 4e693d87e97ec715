"""What a compiled step's arguments look like, and when one trace serves several calls."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape.compiler.dims import Dim, Shape, format_shape

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction

Shapes = tuple[tuple[int, ...], ...]


class TensorSpec:
    """The dtype and shape of an argument of a compiled step.

    Args:
        shape: one entry per dimension: a size; None for any size; or a name for any size that is
            the same wherever the name stands. Leading None dimensions share the name "batch".
        dtype: the element type.
        name: overrides the argument's name in the graph.
    """

    __slots__ = ("dtype", "name", "shape")

    def __init__(
        self,
        shape: Sequence[int | str | None],
        dtype: npt.DTypeLike = "float32",
        name: str | None = None,
    ) -> None:
        self.shape: Shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.name = name

    def __repr__(self) -> str:
        return (
            f"TensorSpec(shape={format_shape(self.shape)}, dtype={self.dtype}, name={self.name!r})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorSpec) and (self.shape, self.dtype, self.name) == (
            other.shape,
            other.dtype,
            other.name,
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.name))


@dataclass(slots=True)
class Family:
    """Calls that differ in sizes only, and the traces made for them.

    Attributes:
        observed: the argument shapes seen so far.
        concrete: the traces, newest last.
        static_only: tracing with symbolic dimensions has failed; every shape gets its own trace.
    """

    observed: list[Shapes] = field(default_factory=list)
    concrete: list[ConcreteFunction] = field(default_factory=list)
    static_only: bool = False

    @property
    def current(self) -> list[ConcreteFunction]:
        """The traces that train what is to be trained now; the others wait for their flags."""
        return [concrete for concrete in self.concrete if concrete.traced.flags.hold()]


def generalize(names: Sequence[str], observed: Sequence[Shapes]) -> list[Shape]:
    """Symbolic shapes that cover all observed ones.

    A dimension that was always the same stays a number. Dimensions whose sizes changed together
    (64, 64 and then 32, 32) share a symbol: "batch" for the first leading one, else named after the
    argument and the axis.
    """
    symbols: dict[tuple[int, ...], str] = {}
    shapes: list[Shape] = []
    for leaf, name in enumerate(names):
        dims: list[Dim] = []
        for axis in range(len(observed[0][leaf])):
            sizes = tuple(shapes_seen[leaf][axis] for shapes_seen in observed)
            if len(set(sizes)) == 1:
                dims.append(sizes[0])
                continue
            if sizes not in symbols:
                fresh = "batch" if axis == 0 else f"{name}_{axis}"
                while fresh in symbols.values():
                    fresh = f"{name}_{fresh}"
                symbols[sizes] = fresh
            dims.append(symbols[sizes])
        shapes.append(tuple(dims))
    return shapes


def parts_sizes(observed: Sequence[Shapes], given: Shapes) -> bool:
    """Whether sizes of one axis of several arguments, equal in all calls before, are not now."""
    sizes: dict[tuple[int, tuple[int, ...]], int] = {}
    return bool(observed) and any(
        sizes.setdefault((axis, tuple(shapes[leaf][axis] for shapes in observed)), size) != size
        for leaf, shape in enumerate(given)
        for axis, size in enumerate(shape)
    )


def free_sizes(
    names: Sequence[str], shapes: Shapes, observed: Sequence[Shapes]
) -> Iterator[list[Shape]]:
    """What an artifact is to be traced for, best first.

    Leading dimensions are symbolic, even where only one batch size was ever seen, and so are those
    that have varied; then leading ones alone.
    """
    bigger = tuple(tuple(d + (axis == 0) for axis, d in enumerate(shape)) for shape in shapes)
    widest = generalize(names, [*observed, shapes, bigger])
    yield widest
    if (leading := generalize(names, [shapes, bigger])) != widest:
        yield leading


def resolve_spec(names: Sequence[str], specs: Sequence[TensorSpec]) -> list[Shape]:
    """The specs' shapes with every None named."""
    taken = {d for spec in specs for d in spec.shape if isinstance(d, str)}
    shapes: list[Shape] = []
    for name, spec in zip(names, specs, strict=True):
        dims: list[Dim] = []
        for axis, dim in enumerate(spec.shape):
            if dim is None:
                dim = "batch" if axis == 0 else f"{name}_{axis}"
                while axis and dim in taken:
                    dim += "_"
                taken.add(dim)
            dims.append(dim)
        shapes.append(tuple(dims))
    return shapes


def unnamed(shape: Shape) -> Shape:
    """`shape` with None for every symbol."""
    return tuple(d if isinstance(d, int) else None for d in shape)


def mismatch(
    names: Sequence[str], expected: Sequence[Shape], given: Sequence[Sequence[int]]
) -> str | None:
    """Why arguments of these shapes do not fit, or None when they do."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, shape, actual in zip(names, expected, given, strict=True):
        if len(shape) != len(actual):
            return (
                f"'{name}' has shape {format_shape(tuple(actual))}, "
                f"but {format_shape(shape)} was declared"
            )
        for dim, size in zip(shape, actual, strict=True):
            if isinstance(dim, int):
                if dim != size:
                    return (
                        f"'{name}' has shape {format_shape(tuple(actual))}, "
                        f"but {format_shape(shape)} was declared"
                    )
            elif dim is not None:
                first, where = sizes.setdefault(dim, (size, name))
                if first != size:
                    return (
                        f"dimension '{dim}' is {first} in '{where}' and {size} in '{name}'; "
                        "it must be the same in both"
                    )
    return None


def misfit(name: str, signature: inspect.Signature, kwargs: Iterable[str], why: object) -> str:
    """Why a call of the function `name` does not bind, and what it takes.

    Args:
        kwargs: the names of the keyword arguments.
        why: what `inspect` says, which names what is missing before what is too much.
    """
    parameters = signature.parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [key for key in kwargs if key not in named]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        why = f"got an unexpected keyword argument '{unknown[0]}'"
    plain = [p.replace(annotation=p.empty) for p in parameters]
    return f"{name}() {why}; it is {name}{inspect.Signature(plain)}"


class Identity:
    """A hashable stand-in for an argument that is compared by identity, and kept alive."""

    __slots__ = ("target",)

    def __init__(self, target: Any) -> None:
        self.target = target

    def __hash__(self) -> int:
        return id(self.target)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.target is other.target
