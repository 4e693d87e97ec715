"""Initializers that an exporter has computed from parameters, computed from them again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape.interop.graph import Node
from onnxtape.interop.origins import Origins

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Derived:
    """An initializer that is a function of a weight.

    Attributes:
        of: the weight's name.
        steps: operators, each with its second operand, if it has one; the last gives the shape.
        start: the weight's value, where the file does not hold it.
    """

    of: str
    steps: tuple[tuple[str, Array | None], ...]
    start: Array | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The weights that it is made of."""
        return (self.of,)

    @property
    def starts(self) -> dict[str, Array]:
        """Those of them that the file does not hold, with their values."""
        return {} if self.start is None else {self.of: self.start}

    def nodes(self, name: str) -> tuple[list[Node], dict[str, Array]]:
        """Nodes that compute it from the weight, and the constants that they read."""
        nodes, constants, value = [], {}, self.of
        for i, (op_type, operand) in enumerate(self.steps, 1):
            inputs = [value]
            if operand is not None:
                inputs.append(f"{name}.operand{i}")
                constants[inputs[1]] = operand
            value = name if i == len(self.steps) else f"{name}.step{i}"
            nodes.append(Node(op_type, tuple(inputs), (value,), {}, f"{name} of {self.of}"))
        return nodes, constants

    def applied(self, weights: Mapping[str, Array]) -> Array:
        """What it is for these values of the weights."""
        value = weights[self.of]
        for op_type, operand in self.steps:
            value = _APPLIED[op_type](value, operand)
        return value


@dataclass(frozen=True, slots=True)
class Joined:
    """An initializer that holds several weights side by side.

    Attributes:
        axis: along which.
        parts: their names, in order, and whether each is there transposed.
        starts: those that the file does not hold by themselves, with their values.
    """

    axis: int
    parts: tuple[tuple[str, bool], ...]
    starts: dict[str, Array]

    @property
    def sources(self) -> tuple[str, ...]:
        """The weights that it is made of."""
        return tuple(part for part, _ in self.parts)

    def nodes(self, name: str) -> tuple[list[Node], dict[str, Array]]:
        """Nodes that compute it from the weights, and the constants that they read."""
        nodes, values = [], []
        for i, (part, transposed) in enumerate(self.parts, 1):
            values.append(f"{name}.part{i}" if transposed else part)
            if transposed:
                nodes.append(Node("Transpose", (part,), (values[-1],), {}, f"{name} of {part}"))
        title = f"{name} of {', '.join(self.sources)}"
        nodes.append(Node("Concat", tuple(values), (name,), {"axis": self.axis}, title))
        return nodes, {}

    def applied(self, weights: Mapping[str, Array]) -> Array:
        """What it is for these values of the weights."""
        arrays = [weights[part].T if flipped else weights[part] for part, flipped in self.parts]
        return np.concatenate(arrays, self.axis)


_APPLIED: dict[str, Callable[[Array, Any], Array]] = {
    "Add": np.add,
    "Exp": lambda x, _: np.exp(x),
    "Mul": np.multiply,
    "Neg": lambda x, _: np.negative(x),
    "Reshape": np.reshape,
    "Softplus": lambda x, _: np.logaddexp(x, x.dtype.type(0)),
}
# What is undone, by the name that ATen has for it: the operator, and what takes it back.
_INVERSES: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "exp": ("Exp", np.log),
    "neg": ("Neg", np.negative),
    "softplus": ("Softplus", lambda y: y + np.log(-np.expm1(-y))),
}
# What moves no element, and what is inside of the exporter's own functions.
_MOVES = frozenset(("_to_copy", "alias", "clone", "unsqueeze", "val", "view"))
# How exporters that note nothing name what they have computed element by element.
_ELEMENTWISE = re.compile(r"onnx::(Add|Div|Mul|Sub)_\d+|(add|div|mul|neg|rsub|sub)(_\d+)?")
_INSIDE_SOFTPLUS = re.compile(r"(beta|self_scaled|softplus|threshold|tmp)(_\w+)?")


def find_derived(
    weights: Mapping[str, Array], constants: Mapping[str, Array], origins: Origins
) -> dict[str, Derived | Joined]:
    """The weights that the exporter notes to be made of parameters, as far as that is clear.

    Either the file holds the one parameter too, and they are a multiple of it and an offset; or
    they are made of one by operations that can be undone: exp, neg and softplus, each once, or a
    product or quotient with a number among the file's constants; or they hold several side by
    side, at least one of which the file holds too. Trained by themselves they would be other
    weights than the parameter, and could take values that it cannot stand for.

    torch.onnx.export notes nothing below opset 18, or with dynamo=False. There only multiples and
    offsets of weights are looked for, among what has the name of something computed.
    """
    unnoted = {n for n in weights if n not in origins.folded and _ELEMENTWISE.fullmatch(n)}
    unnoted -= origins.parameters
    found: dict[str, Derived | Joined] = {}
    for name, array in weights.items():
        parts = origins.folded.get(name, ())
        here = [part for part in parts if part in weights and part not in origins.folded]
        gone = [part for part in origins.of_parameters(name) if part not in weights]
        derived: Derived | Joined | None = None
        if name in unnoted:
            lines = (_line(of, w, array) for of, w in weights.items() if of not in unnoted)
            derived = next(filter(None, lines), None)
        elif len(here) == 1 and not gone:
            derived = _line(here[0], weights[here[0]], array)
        elif len(gone) == 1 and not here:
            numbers = [constants[p] for p in parts if p in constants and constants[p].size == 1]
            derived = _undone(name, gone[0], parts, array)
            if derived is None and len(parts) == 2 and len(numbers) == 1:
                derived = _unscaled(name, gone[0], numbers[0], array)
        elif here:
            derived = _joined({part: weights[part] for part in here}, gone, array)
        if derived is not None:
            found[name] = derived
    # A parameter of which several are made would have to be the same for all.
    several = [start for derived in found.values() for start in derived.starts]
    return {n: d for n, d in found.items() if all(several.count(s) == 1 for s in d.starts)}


def _joined(here: Mapping[str, Array], gone: Sequence[str], array: Array) -> Joined | None:
    """The weights, each found once along one axis; what is left is one that the file lacks."""
    for axis in range(array.ndim):
        places = {}
        for name, weight in here.items():
            for flipped in (False, True) if weight.ndim == 2 else (False,):
                block = weight.T if flipped else weight
                starts = _places(block, array, axis)
                if len(starts) == 1:
                    places[starts[0]] = (name, flipped, block.shape[axis])
        if sorted(name for name, _, _ in places.values()) != sorted(here):
            continue
        parts: list[tuple[str, bool]] = []
        missing: dict[str, Array] = {}
        end = 0
        for start in [*sorted(places), array.shape[axis]]:
            if start > end and len(missing) < len(gone):
                lacking = gone[len(missing)]
                missing[lacking] = np.take(array, range(end, start), axis)
                parts.append((lacking, False))
            elif start != end:
                return None
            if start in places:
                name, flipped, length = places[start]
                parts.append((name, flipped))
                end = start + length
        if len(missing) == len(gone) <= 1:
            return Joined(axis, tuple(parts), missing)
    return None


def _places(block: Array, array: Array, axis: int) -> list[int]:
    """Where along the axis the block is found in the array."""
    if block.ndim != array.ndim or block.dtype != array.dtype or block.size < 2:
        return []
    moved, wanted = np.moveaxis(array, axis, 0), np.moveaxis(block, axis, 0)
    if moved.shape[1:] != wanted.shape[1:]:
        return []
    first = (moved == wanted[0]).all(axis=tuple(range(1, array.ndim)))
    starts = np.flatnonzero(first[: len(moved) - len(wanted) + 1])
    return [int(i) for i in starts if np.array_equal(moved[i : i + len(wanted)], wanted)]


def _line(of: str, weight: Array, array: Array) -> Derived | None:
    """array = scale * weight + offset, up to rounding."""
    if weight.size != array.size or weight.dtype != array.dtype or weight.size < 3:
        return None
    if [d for d in weight.shape if d > 1] != [d for d in array.shape if d > 1]:
        return None
    x, y = (a.astype(np.float64).ravel() for a in (weight, array))
    low, high = x.argmin(), x.argmax()
    if len(np.unique(x)) < 3:
        return None
    scale = float(np.float32((y[high] - y[low]) / (x[high] - x[low])))
    rounded = float(np.round(scale, 5))
    for slope in (rounded, scale):
        offset = float(np.mean(y - slope * x))
        near = float(np.round(offset, 5))
        for shift in (near, offset):
            if slope and np.abs(slope * x + shift - y).max() <= 1e-6 * np.abs(y).max():
                dtype = array.dtype.type
                steps: list[tuple[str, Array | None]] = [("Mul", dtype(slope))]
                if shift:
                    steps.append(("Add", dtype(shift)))
                return Derived(of, (*steps, ("Reshape", np.asarray(array.shape, np.int64))))
    return None


def _undone(name: str, of: str, parts: tuple[str, ...], array: Array) -> Derived | None:
    """The parameter, where no more than operations that can be undone lies between."""
    if array.dtype not in (np.float32, np.float64) or array.size == 0:
        return None
    operations = [_base(part) for part in (*parts, name) if part != of]
    if "softplus" in operations:
        operations = [p for p in operations if not _INSIDE_SOFTPLUS.fullmatch(p)] + ["softplus"]
    undoable = [p for p in operations if p in _INVERSES]
    if not undoable or set(operations) - _MOVES - set(undoable) or len(undoable) > 2:
        return None
    if len(undoable) == 2 and set(undoable) != {"exp", "neg"}:
        return None
    signs = np.unique(np.sign(array))
    if len(signs) != 1 or signs[0] == 0:
        return None
    order = ["exp", "neg"] if signs[0] < 0 else ["neg", "exp"]
    chain = [p for p in order if p in undoable] or undoable
    if chain == ["neg"]:
        return None  # A change of signs changes no steps.
    start = array
    with np.errstate(all="ignore"):
        for operation in reversed(chain):
            start = _INVERSES[operation][1](start)
    start = start.reshape([d for d in array.shape if d > 1] or [1]).astype(array.dtype)
    shape = np.asarray(array.shape, np.int64)
    steps = [(_INVERSES[operation][0], None) for operation in chain]
    derived = Derived(of, (*steps, ("Reshape", shape)), start)
    close = np.allclose(derived.applied({of: start}), array, rtol=1e-5, atol=0)
    return derived if np.isfinite(start).all() and close else None


def _unscaled(name: str, of: str, number: Array, array: Array) -> Derived | None:
    """The parameter, where it is multiplied or divided by a number."""
    factor = number.reshape(()).astype(np.float64)
    if _base(name) not in ("div", "mul") or array.dtype != number.dtype or not factor:
        return None
    if _base(name) == "div":
        factor = 1 / factor
    start = (array / factor).astype(array.dtype)
    shape = np.asarray(array.shape, np.int64)
    return Derived(of, (("Mul", factor.astype(array.dtype)), ("Reshape", shape)), start)


def _base(name: str) -> str:
    """The name without its number: "exp_2" is an exp."""
    return re.sub(r"_\d+$", "", name)
