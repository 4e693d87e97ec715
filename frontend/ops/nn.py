"""Activations, losses and other operations of neural networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtape.compiler.dims import format_shape, same_shape
from onnxtape.dtypes import FLOAT64, is_float
from onnxtape.engine import B, convert_to_tensor
from onnxtape.ops.arithmetic import maximum, minimum
from onnxtape.ops.axes import may_equal, normalized, refused
from onnxtape.ops.creation import stop_gradient
from onnxtape.ops.promotion import INT64, in_float32, operands
from onnxtape.ops.shapes import split
from onnxtape.tensor import Tensor

__all__ = [
    "binary_crossentropy",
    "categorical_crossentropy",
    "celu",
    "elu",
    "gelu",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_categorical_crossentropy",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh_shrink",
    "threshold",
]


def _float(x: Any) -> Tensor:
    return operands(x, floating=True)[0]


def relu(x: Any) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    t = convert_to_tensor(x)
    # ONNX Runtime has few kernels of Relu for integers.
    return B.op("Relu", t) if is_float(t.dtype) else maximum(t, np.asarray(0, t.dtype))


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6); the derivative is 0 at both ends."""
    t = convert_to_tensor(x)
    if not is_float(t.dtype):
        return minimum(relu(t), np.asarray(6, t.dtype))
    above = B.op("GreaterOrEqual", t, 6.0)
    return B.op("Where", above, np.asarray(6.0, t.dtype), B.op("Relu", t))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """x where positive, negative_slope * x elsewhere."""
    return B.op("LeakyRelu", _float(x), alpha=float(negative_slope))


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    return B.op("Elu", _float(x), alpha=float(alpha))


def selu(x: Any) -> Tensor:
    """The scaled exponential linear unit."""
    return B.op("Selu", _float(x))


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
    return B.op("Celu", _float(x), alpha=float(alpha))


def gelu(x: Any, approximate: bool = True) -> Tensor:
    """x * Phi(x), by default with the tanh approximation of Phi, as Keras."""
    return B.op("Gelu", _float(x), approximate="tanh" if approximate else "none")


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return B.op("Sigmoid", _float(x))


def log_sigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)) = -softplus(-x)."""
    return B.op("Neg", softplus(B.op("Neg", _float(x))))


def hard_sigmoid(x: Any) -> Tensor:
    """min(max(x / 6 + 1/2, 0), 1)."""
    return B.op("HardSigmoid", _float(x), alpha=1.0 / 6.0, beta=0.5)


def silu(x: Any) -> Tensor:
    """x * sigmoid(x)."""
    t = _float(x)
    return B.op("Mul", t, B.op("Sigmoid", t))


swish = silu


def hard_silu(x: Any) -> Tensor:
    """x * hard_sigmoid(x)."""
    return B.op("HardSwish", _float(x))


hard_swish = hard_silu


def softplus(x: Any) -> Tensor:
    """log(1 + exp(x))."""
    return B.op("Softplus", _float(x))


def softsign(x: Any) -> Tensor:
    """x / (1 + |x|)."""
    t = _float(x)
    if t.dtype == FLOAT64:
        # ONNX Runtime has no kernel of Softsign for it.
        return B.op("Div", t, B.op("Add", B.op("Abs", t), 1.0))
    return B.op("Softsign", t)


def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x))."""
    return B.op("Mish", _float(x))


def glu(x: Any, axis: int = -1) -> Tensor:
    """The first half along an axis times the sigmoid of the second (a gated linear unit).

    Raises:
        ShapeError: the axis has no two halves.
    """
    values, gates = split(_float(x), 2, axis)
    return B.op("Mul", values, B.op("Sigmoid", gates))


def hard_tanh(x: Any) -> Tensor:
    """min(max(x, -1), 1); the derivative is 0 at both ends."""
    t = _float(x)
    inside = B.op("Less", B.op("Abs", t), 1.0)
    return B.op("Where", inside, t, B.op("Sign", t))


def hard_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x where |x| > threshold, 0 elsewhere."""
    return B.op("Shrink", _float(x), lambd=float(threshold), bias=0.0)


def soft_shrink(x: Any, threshold: float = 0.5) -> Tensor:
    """x, nearer to 0 by threshold, and 0 where it is as near as that."""
    return B.op("Shrink", _float(x), lambd=float(threshold), bias=float(threshold))


def tanh_shrink(x: Any) -> Tensor:
    """x - tanh(x)."""
    t = _float(x)
    return B.op("Sub", t, B.op("Tanh", t))


def threshold(x: Any, threshold: float, default_value: float) -> Tensor:
    """x where x > threshold, default_value elsewhere."""
    t = convert_to_tensor(x)
    above = B.op("Greater", t, B.scalar(threshold, t.dtype))
    return B.op("Where", above, t, B.scalar(default_value, t.dtype))


def squareplus(x: Any, b: float = 4) -> Tensor:
    """(x + sqrt(x^2 + b)) / 2, an algebraic softplus (J. Barron, arXiv:2112.11687)."""
    t = _float(x)
    root = B.op("Sqrt", B.op("Add", B.op("Mul", t, t), float(b)))
    return B.op("Mul", B.op("Add", t, root), 0.5)


def sparse_plus(x: Any) -> Tensor:
    """0 up to -1, (x + 1)^2 / 4 up to 1, x beyond."""
    t = _float(x)
    bend = B.op("Add", B.op("Clip", t, -1.0, 1.0), 1.0)
    return B.op("Add", B.op("Mul", B.op("Mul", bend, bend), 0.25), relu(B.op("Sub", t, 1.0)))


def sparse_sigmoid(x: Any) -> Tensor:
    """0 up to -1, (x + 1) / 2 up to 1, 1 beyond."""
    return B.op("HardSigmoid", _float(x), alpha=0.5, beta=0.5)


def sparsemax(x: Any, axis: int = -1) -> Tensor:
    """The point of the probability simplex nearest to x (A. Martins and R. Astudillo,
    arXiv:1602.02068): max(x - tau, 0), with the tau that makes the sum 1."""
    t = _float(x)
    axis = normalized(axis, B.known_rank(t, "sparsemax"), "sparsemax")
    # Which elements stay above tau depends on x by steps; tau itself is smooth in those.
    fixed, size = stop_gradient(t), B.dim_tensor(t, axis)
    ordered, _ = B.op_multi("TopK", fixed, size, outputs=2, axis=axis)
    sums = B.op("CumSum", ordered, B.scalar(axis, INT64))
    ranks = B.op("CumSum", B.full_like(ordered, 1.0), B.scalar(axis, INT64))
    inside = B.op("Greater", B.op("Add", B.op("Mul", ranks, ordered), 1.0), sums)
    least = B.op("ReduceMin", B.op("Where", inside, ordered, np.inf), [axis], keepdims=1)
    support = B.cast(B.op("GreaterOrEqual", fixed, least), t.dtype)
    count = B.op("ReduceSum", support, [axis], keepdims=1)
    total = B.op("ReduceSum", B.op("Mul", t, support), [axis], keepdims=1)
    tau = B.op("Div", B.op("Sub", total, 1.0), count)
    return B.op("Relu", B.op("Sub", t, tau))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis; of 16-bit floats computed in float32."""
    t = _float(x)
    axis = normalized(axis, B.known_rank(t, "softmax"), "softmax")
    return B.cast(B.op("Softmax", in_float32(t), axis=axis), t.dtype)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis; of 16-bit floats computed in float32."""
    t = _float(x)
    axis = normalized(axis, B.known_rank(t, "log_softmax"), "log_softmax")
    return B.cast(B.op("LogSoftmax", in_float32(t), axis=axis), t.dtype)


# Keras clips probabilities to this distance from 0 and 1 before it takes their logarithm.
_EPSILON = 1e-7


def sparse_categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """-log of the probability of the target class.

    Args:
        target: integer classes of shape (...), or (..., 1).
        output: logits or probabilities of shape (..., classes).

    Returns:
        Losses of shape (...).

    Raises:
        ShapeError: there is not one target per output.
    """
    what = "sparse_categorical_crossentropy"
    out, labels = _float(output), convert_to_tensor(target, INT64)
    rank = B.known_rank(out, what)
    axis = normalized(axis, rank, what)
    shape = B.shape(labels)
    has_axis = B.known_rank(labels, what) == rank
    if has_axis and (B.dim(labels, axis) == 1 or not isinstance(B.dim(labels, axis), int)):
        labels = B.op("Squeeze", labels, [axis])
    samples = [d for a, d in enumerate(B.shape(out) or ()) if a != axis]
    if not may_equal(B.shape(labels), tuple(samples)):
        raise refused(
            f"{what} takes integer targets of shape {format_shape(samples)} for outputs of shape "
            f"{format_shape(B.shape(out))}, not {format_shape(shape)}; for one-hot "
            "targets there is categorical_crossentropy"
        )
    if not same_shape(B.shape(labels), tuple(samples)):
        # GatherElements takes fewer indices than rows. Where sizes are known only at run time, a
        # reshape that cannot fit is what refuses.
        before, after = B.op("Shape", out, end=axis), B.op("Shape", out, start=axis + 1)
        labels = B.op("Reshape", labels, B.op("Concat", before, after, axis=0), allowzero=1)
    # ONNX counts negative indices from the end; here they are out of range, like too large ones.
    classes = B.cast(B.op("Squeeze", B.dim_tensor(out, axis)), INT64)
    labels = B.op("Where", B.op("Less", labels, 0), classes, labels)
    places = B.op("Unsqueeze", labels, [axis])
    picked = B.op("GatherElements", _log_probabilities(out, from_logits, axis), places, axis=axis)
    return B.op("Neg", B.op("Squeeze", picked, [axis]))


def categorical_crossentropy(
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Tensor:
    """-sum(target * log(probability)) along an axis.

    Args:
        target: probabilities of shape (..., classes).
        output: logits or probabilities of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    what = "categorical_crossentropy"
    wanted, out = operands(target, output, floating=True)
    _require_same_shape(wanted, out, what)
    axis = normalized(axis, B.known_rank(out, what), what)
    product = B.op("Mul", wanted, _log_probabilities(out, from_logits, axis))
    return B.op("Neg", B.op("ReduceSum", product, [axis], keepdims=0))


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """-(t * log(p) + (1 - t) * log(1 - p)), elementwise.

    From logits: max(z, 0) - z * t + log(1 + exp(-|z|)), which never overflows.

    Raises:
        ShapeError: the shapes differ.
    """
    t, out = operands(target, output, floating=True)
    _require_same_shape(t, out, "binary_crossentropy")
    if from_logits:
        tail = B.op("Softplus", B.op("Neg", B.op("Abs", out)))
        return B.op("Add", B.op("Sub", B.op("Relu", out), B.op("Mul", out, t)), tail)
    p = B.op("Clip", out, _EPSILON, 1.0 - _EPSILON)
    hit = B.op("Mul", t, B.op("Log", p))
    miss = B.op("Mul", B.op("Sub", 1.0, t), B.op("Log", B.op("Sub", 1.0, p)))
    return B.op("Neg", B.op("Add", hit, miss))


def _log_probabilities(out: Tensor, from_logits: bool, axis: int) -> Tensor:
    if from_logits:
        return B.op("LogSoftmax", out, axis=axis)
    total = B.op("ReduceSum", out, [axis], keepdims=1)
    return B.op("Log", B.op("Clip", B.op("Div", out, total), _EPSILON, 1.0 - _EPSILON))


def _require_same_shape(target: Tensor, output: Tensor, what: str) -> None:
    if not may_equal(B.shape(target), B.shape(output)):
        raise refused(
            f"{what} takes targets and outputs of one shape, not "
            f"{format_shape(B.shape(target))} and {format_shape(B.shape(output))}"
        )
