"""The activation functions of ONNX's recurrent operators, and their slopes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxtape.compiler import registry
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record

B = Builder[Any]

#: Attributes of the functions that are operators of that name, with ONNX Runtime's defaults.
_OPERATORS: dict[str, dict[str, float]] = {
    "Relu": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softsign": {},
    "Softplus": {},
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": 1.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
#: Those that are made of others.
_COMPOSED: dict[str, dict[str, float]] = {
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
}
_BY_NAME = {name.lower(): name for name in (*_OPERATORS, *_COMPOSED)}


@dataclass(frozen=True)
class Activation:
    """One function; its argument is bounded to [-clip, clip] first where there is a bound."""

    name: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None

    def __call__(self, b: B, z: Any) -> Any:
        """f(z)."""
        return b.refine_shape(self._of(b, self._clipped(b, z)), b.shape(z))

    def _of(self, b: B, z: Any) -> Any:
        if self.name == "Affine":
            return b.op("Add", b.op("Mul", z, self.numbers["alpha"]), self.numbers["beta"])
        if self.name == "ScaledTanh":
            tanh = b.op("Tanh", b.op("Mul", z, self.numbers["beta"]))
            return b.op("Mul", tanh, self.numbers["alpha"])
        return b.op(self.name, z, **self.numbers)

    def times_slope(self, b: B, p: Any, z: Any, y: Any, py: Any = None) -> Any:
        """p f'(z), given y = f(z), and the product p y where that is known already."""
        slope = self._times_slope(b, p, z, y, py)
        if self.clip is None:
            return slope
        return _through(b, "Clip", z, self._clipped(b, z), {}, slope, self._bounds(b, z))

    def _times_slope(self, b: B, p: Any, z: Any, y: Any, py: Any) -> Any:
        if self.name == "Sigmoid":
            py = b.op("Mul", p, y) if py is None else py
            return b.op("Sub", py, b.op("Mul", py, y))
        if self.name == "Tanh":
            py = b.op("Mul", p, y) if py is None else py
            return b.op("Sub", p, b.op("Mul", py, y))
        z = self._clipped(b, z)
        if self.name == "Affine":
            return b.op("Mul", p, self.numbers["alpha"])
        if self.name == "ScaledTanh":
            alpha, beta = self.numbers["alpha"], self.numbers["beta"]
            tanh = b.op("Tanh", b.op("Mul", z, beta))
            return b.op(
                "Mul", p, b.op("Mul", b.op("Sub", 1.0, b.op("Mul", tanh, tanh)), alpha * beta)
            )
        return _through(b, self.name, z, y, self.numbers, p)

    def _bounds(self, b: B, z: Any) -> list[Any]:
        assert self.clip is not None
        return [b.scalar(-self.clip, b.dtype(z)), b.scalar(self.clip, b.dtype(z))]

    def _clipped(self, b: B, z: Any) -> Any:
        return z if self.clip is None else b.op("Clip", z, *self._bounds(b, z))


def _through(
    b: B,
    op_type: str,
    x: Any,
    y: Any,
    attributes: Mapping[str, Any],
    grad: Any,
    others: Sequence[Any] = (),
) -> Any:
    """The gradient by x of an operator y = op(x, *others), by its own rule."""
    entry = registry.lookup(op_type)
    assert entry is not None
    found = entry.rule(b, Record(op_type, (x, *others), (y,), attributes), grad)[0]
    return found() if callable(found) else found


def activations(
    names: Sequence[str],
    alphas: Sequence[float],
    betas: Sequence[float],
    clip: float | None,
) -> list[Activation]:
    """The functions of a node's attributes.

    As in ONNX Runtime, upper and lower case are one, and each function that has an alpha (a beta)
    takes the next of the list.

    Raises:
        Refusal: a function that ONNX does not name.
    """
    numbers: dict[str, Iterator[float]] = {"alpha": iter(alphas), "beta": iter(betas)}
    found = []
    for given in names:
        name = _BY_NAME.get(given.lower())
        if name is None:
            raise registry.Refusal(f"'{given}' is no activation function of ONNX's operators")
        defaults = {**_OPERATORS, **_COMPOSED}[name]
        taken = {key: next(numbers[key], default) for key, default in defaults.items()}
        found.append(Activation(name, taken, clip))
    return found
