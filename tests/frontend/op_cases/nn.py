"""Cases of `ops.nn`; the formulas are those of the papers, written in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.frontend.op_cases.case import Case, booleans, fixed, given, integers, sample

_erf = np.vectorize(math.erf, otypes=[float])


def _elu(x: Any, alpha: float = 1.0) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


def _hard_sigmoid(x: Any) -> Any:
    return np.clip(x / 6 + 0.5, 0, 1)


def _gelu(x: Any, approximate: bool = True) -> Any:
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _selu(x: Any) -> Any:
    return 1.0507009873554805 * _elu(x, 1.6732632423543772)


def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: Any, axis: int = -1) -> Any:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _glu(x: Any, axis: int = -1) -> Any:
    values, gates = np.split(x, 2, axis)
    return values * _sigmoid(gates)


def _sparsemax(x: Any, axis: int = -1) -> Any:
    """By bisection of tau, at which max(x - tau, 0) sums up to 1."""
    low, high = x.max(axis, keepdims=True) - 1, x.max(axis, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        above = np.maximum(x - middle, 0).sum(axis, keepdims=True) > 1
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.maximum(x - low, 0)


def _soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "celu": lambda x: np.maximum(x, 0) + np.minimum(0, np.expm1(x)),
    "elu": _elu,
    "gelu": _gelu,
    "hard_shrink": lambda x, threshold=0.5: np.where(np.abs(x) > threshold, x, 0),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": _selu,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "soft_shrink": _soft_shrink,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sparse_plus": lambda x: np.where(x < 1, np.maximum(x + 1, 0) ** 2 / 4, x),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "squareplus": lambda x, b=4: (x + np.sqrt(x**2 + b)) / 2,
    "swish": lambda x: x * _sigmoid(x),
    "tanh_shrink": lambda x: x - np.tanh(x),
}

#: celu has float32 only; of the others, ONNX Runtime has these in float64.
FLOAT64 = ("gelu", "relu", "relu6", "sigmoid", "silu", "swish")


def activations() -> Iterator[Case]:
    for name, oracle in ACTIVATIONS.items():
        for shape in ((3, 4), (), (0, 2)):
            x = given(sample(shape, -8.0, 8.0), "float32")
            yield Case(name, [x], oracle, gradient=0 not in shape, tolerance=2e-5)
        if name != "celu":
            yield Case(name, [given(sample((5,), -4, 4), "float16")], oracle, tolerance=4e-3)
        if name in FLOAT64:
            # ONNX Runtime's Gelu has its constants in float32.
            tolerance = 1e-7 if name == "gelu" else None
            x = given(sample((5,), -4, 4), "float64")
            yield Case(name, [x], oracle, tolerance=tolerance)
        dtype = "int32" if name in ("relu", "relu6") else "float32"
        yield Case(name, [given([-1, 0, 2], "int32")], oracle, dtype=dtype)
    far = given([-100.0, 100.0, -40.0, 40.0], "float32")
    for name in ("sigmoid", "log_sigmoid", "softplus", "mish", "silu", "gelu", "elu", "softsign"):
        with np.errstate(over="ignore"):
            yield Case(name, [far], ACTIVATIONS[name], note="far out")
    x = given(sample((3, 4)), "float32")
    yield Case("gelu", [x, False], _gelu, gradient=True, note="exact")
    yield Case("elu", [x, 0.5], _elu, gradient=True)
    yield Case("leaky_relu", [x, 0.01], lambda x, s: np.where(x > 0, x, s * x), gradient=True)
    yield Case(
        "celu",
        [x, 2.0],
        lambda x, a: np.maximum(x, 0) + np.minimum(0, a * np.expm1(x / a)),
        gradient=True,
    )


def gated() -> Iterator[Case]:
    x = given(sample((2, 3, 4)), "float32")
    for axis in (-1, 2):
        yield Case("glu", [x], _glu, {"axis": axis}, gradient=axis == -1)
    yield Case("glu", [given(sample((3, 4)), "float64"), 1], _glu, tolerance=1e-7)
    for name in ("hard_shrink", "soft_shrink"):
        yield Case(name, [x, 1.25], ACTIVATIONS[name], gradient=True)
    yield Case("squareplus", [x, 0.5], ACTIVATIONS["squareplus"], gradient=True)
    cut = lambda x, limit, value: np.where(x > limit, x, value)  # noqa: E731
    yield Case("threshold", [x, 0.25, -7.0], cut, gradient=True)
    yield Case("threshold", [given([1, 5, 3], "int32"), 2, 0], cut)
    for axis in (-1, 1):
        wide = given(sample((2, 5, 4), -1.0, 1.5), "float32")
        yield Case("sparsemax", [wide], _sparsemax, {"axis": axis}, gradient=axis == -1)
    ties = given([[1.0, 1.0, 0.0], [5.0, 0.0, 0.0], [0.3, 0.3, 0.3]], "float32")
    yield Case("sparsemax", [ties], _sparsemax, note="ties")


def softmaxes() -> Iterator[Case]:
    for name, oracle in (("softmax", _softmax), ("log_softmax", _log_softmax)):
        for axis in (-1, 0, 1, -2):
            x = given(sample((3, 4, 2)), "float32")
            yield Case(name, [x], oracle, {"axis": axis}, gradient=True)
        yield Case(name, [given([[1000.0, 999.0], [-1000.0, 0.0]], "float32")], oracle)
        yield Case(name, [given(sample((2, 3)), "float16")], oracle)
        yield Case(name, [given(sample((2, 3)), "float64")], oracle)
        yield Case(name, [given([[1, 2]], "int32")], oracle, dtype="float32")


def _log(p: Any) -> Any:
    return np.log(np.clip(p, 1e-7, 1 - 1e-7))


def _categorical(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    if from_logits:
        logs = _log_softmax(output, axis)
    else:
        logs = _log(output / output.sum(axis, keepdims=True))
    return -(target * logs).sum(axis)


def _sparse(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:
    if target.ndim == output.ndim:
        target = target.squeeze(axis)
    hot = np.moveaxis(np.eye(output.shape[axis])[target], -1, axis)
    return _categorical(hot, output, from_logits, axis)


def _binary(target: Any, output: Any, from_logits: bool = False) -> Any:
    p = _sigmoid(output) if from_logits else np.clip(output, 1e-7, 1 - 1e-7)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def losses() -> Iterator[Case]:
    for from_logits in (False, True):
        how = {"from_logits": from_logits}
        scores = sample((3, 5)) if from_logits else sample((3, 5), 0.1, 1.0)
        out = given(scores, "float32")
        labels = given(integers((3,), 0, 5), "int32")
        name = "sparse_categorical_crossentropy"
        yield Case(name, [labels, out], _sparse, how, dtype="float32", gradient=True)
        column = given(labels.array[:, None], "int64")
        yield Case(name, [column, out], _sparse, how, dtype="float32", gradient=True)
        deep = given(sample((2, 3, 4), 0.1, 1.0), "float32")
        yield Case(
            name,
            [given(integers((2, 3), 0, 4), "int64"), deep],
            _sparse,
            how,
            dtype="float32",
            gradient=True,
        )
        yield Case(
            name,
            [given(integers((2, 4), 0, 3), "int64"), deep],
            _sparse,
            {**how, "axis": 1},
            dtype="float32",
            gradient=True,
        )
        target = given(_softmax(sample((3, 5), seed=1)), "float32")
        name = "categorical_crossentropy"
        yield Case(name, [target, out], _categorical, how, gradient=True)
        yield Case(name, [target, out], _categorical, {**how, "axis": 0}, gradient=True)
        name = "binary_crossentropy"
        scores = sample((3, 5)) if from_logits else sample((3, 5), 0.1, 0.9)
        out = given(scores, "float32")
        yield Case(name, [given(booleans((3, 5)), "float32"), out], _binary, how, gradient=True)
        yield Case(name, [given(booleans((3, 5)), "int32"), out], _binary, how, dtype="float32")
    sure = [fixed([0.0, 1.0, 1.0], "float32"), fixed([0.0, 1.0, 0.0], "float32")]
    # -log of 1e-7; and of 1 - 1e-7, which in float32 is 1 - 2^-23.
    certain = np.array([2.0**-23, 2.0**-23, 16.118095])
    yield Case("binary_crossentropy", sure, lambda t, p: certain, note="certain", tolerance=1e-6)


CASES = [*activations(), *gated(), *softmaxes(), *losses()]
