"""Central differences along random directions, where the function is smooth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tests.compiler.graphs import Array
from tests.conformance.evaluators import Function

#: How many for each input.
DIRECTIONS = 2
#: How far the data is moved, relative to its size (plus a tenth), until the function is smooth;
#: to one side only for functions that are defined there only.
MOVES = [(0.0, 0.0), *[(-1e-2, 1e-2)] * 3, (0, 1e-2), (-1e-2, 0), (-0.2, 0.2), (0, 0.2), (-0.2, 0)]


class NotSmooth(Exception):
    """The function has no derivative at this point, as far as differences show; where, by what."""


@dataclass(frozen=True)
class Precision:
    """What differences in a floating-point type are worth.

    Attributes:
        step: of the differences.
        rounding: relative, of one evaluation.
        tolerance: relative, when a derivative is compared.
        kink: by how much the derivatives to the right and to the left may differ, relatively.
    """

    name: str
    elem_type: int
    step: float
    rounding: float
    tolerance: float
    kink: float

    def floor(self, size: Array | float) -> Array | float:
        """What rounding makes of the derivative of a function whose values are of this size."""
        return self.rounding * size / self.step


FLOAT64 = Precision("float64", onnx.TensorProto.DOUBLE, 1e-6, 1e-15, 1e-6, 1e-2)
FLOAT32 = Precision("float32", onnx.TensorProto.FLOAT, 1e-2, 2e-7, 2e-2, 0.2)


@dataclass(frozen=True)
class Derivatives:
    """Of a random projection of the outputs.

    Attributes:
        precision: that they were taken in.
        feeds: where; `moved` if that is not where the data was.
        cotangents: the projection; zero where an output is not finite.
        directions, along: for each source the directions, and the derivatives along them.
        floor: below which a derivative is rounding error.
    """

    precision: Precision
    feeds: dict[str, Array]
    moved: bool
    cotangents: dict[str, Array]
    directions: dict[str, list[Array]]
    along: dict[str, list[float]]
    floor: float


def derivatives(
    run: Function,
    feeds: Mapping[str, Array],
    sources: Sequence[str],
    outputs: Sequence[str],
    precision: Precision,
    seed: int,
) -> Derivatives:
    """Differentiate `outputs` by each source, at the data or as near to it as they are smooth.

    Raises:
        NotSmooth: they are not, anywhere near.
    """
    here = {name: run(feeds)[name] for name in outputs}
    shapes = {name: y.shape for name, y in here.items()}
    defined = np.isfinite(np.concatenate([y.ravel().astype(np.float64) for y in here.values()]))
    found: NotSmooth | None = None
    rng = np.random.default_rng(seed)
    for low, high in MOVES:
        point = dict(feeds)
        if low or high:
            point |= {name: _moved(feeds[name], low, high, rng) for name in sources}
        try:
            return _at(
                run, point, sources, shapes, defined, precision, rng, moved=bool(low or high)
            )
        except NotSmooth as error:
            found = found or error
        except ValueError:
            # Beyond the domain, as a probability above 1 is, which a random operator refuses.
            if found is None:
                raise
    assert found is not None
    raise found


def _moved(x: Array, low: float, high: float, rng: np.random.Generator) -> Array:
    room = np.abs(np.where(np.isfinite(x), x, 0)) + 0.1
    return np.asarray(x + rng.uniform(low, high, x.shape) * room, x.dtype)


def _at(
    run: Function,
    feeds: dict[str, Array],
    sources: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    defined: Array,
    precision: Precision,
    rng: np.random.Generator,
    moved: bool,
) -> Derivatives:
    def values(point: Mapping[str, Array]) -> Array:
        """The outputs, all in a row."""
        found = run(point)
        if changed := [name for name, shape in shapes.items() if found[name].shape != shape]:
            raise NotSmooth(f"the shape of '{changed[0]}' depends on the values of the inputs")
        return np.concatenate([found[name].ravel().astype(np.float64) for name in shapes])

    h = precision.step
    here = values(feeds)
    finite = np.isfinite(here)
    if not np.array_equal(finite, defined):
        raise NotSmooth("not defined near the data")
    weights = np.where(finite, rng.uniform(-1, 1, here.shape), 0)
    size = np.abs(here[finite]).max(initial=0)
    directions: dict[str, list[Array]] = {name: [] for name in sources}
    along: dict[str, list[float]] = {name: [] for name in sources}
    for name in sources:
        x = feeds[name]
        for _ in range(min(DIRECTIONS, x.size)):
            direction = rng.uniform(0.5, 1, x.shape) * rng.choice([-1, 1], x.shape)
            direction = np.asarray(direction, x.dtype)
            after, before = (
                values({**feeds, name: np.asarray(x + step * direction, x.dtype)})
                for step in (h, -h)
            )
            with np.errstate(invalid="ignore"):
                right, left = ((after - here) / h)[finite], ((here - before) / h)[finite]
            if not (np.isfinite(right).all() and np.isfinite(left).all()):
                raise NotSmooth(f"not defined around the data, by '{name}'")
            steepest = np.maximum(np.abs(right), np.abs(left))
            typical = steepest.mean() if steepest.size else 0.0
            allowed = precision.kink * (steepest + typical) + 100 * precision.floor(size)
            bent = np.abs(right - left) > allowed
            jumps = steepest * h > 1e-2 * (size + 1) if precision is FLOAT64 else steepest < 0
            if bent.any() or jumps.any():
                raise NotSmooth(f"not smooth at the data, by '{name}'")
            directions[name].append(direction)
            along[name].append(float(weights[finite] @ (right + left)) / 2)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    rows = zip(shapes.items(), np.split(weights, ends), strict=True)
    cotangents = {name: row.reshape(shape) for (name, shape), row in rows}
    floor = float(precision.floor(np.sqrt(here.size) * size))
    return Derivatives(precision, feeds, moved, cotangents, directions, along, floor)
