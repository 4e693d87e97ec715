"""Calls of `ops` over dtypes and shapes, run by Keras (on TensorFlow) and by onnxtape.

`k` is `keras` or `onnxtape`. A call is named after its operation, a variant, and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "uint32", "int32", "int64", "bfloat16",
          "float16", "float32", "float64"]  # fmt: skip
#: Python's numbers as arguments.
NUMBERS: dict[str, Any] = {"True": True, "2": 2, "1.5": 1.5}

Call = Callable[..., Any]

_ELEMENTWISE = [
    "absolute", "arctan", "arcsinh", "cbrt", "ceil", "cos", "cosh", "deg2rad", "erf", "exp", "exp2",
    "expm1", "floor", "isfinite", "isinf", "isnan", "isneginf", "log", "log10", "log1p", "log2",
    "logical_not", "nan_to_num", "negative", "ones_like", "rad2deg", "reciprocal", "round", "rsqrt",
    "sigmoid", "sign", "signbit", "sin", "sinc", "sinh", "sqrt", "square", "tan", "tanh", "trunc",
    "zeros_like", "relu", "softplus", "silu", "gelu", "elu", "hard_sigmoid", "leaky_relu", "selu",
    "softsign", "conjugate", "real", "copy", "stop_gradient", "arctanh", "angle", "relu6",
]  # fmt: skip
_REDUCED = ["all", "amax", "amin", "any", "max", "mean", "min", "prod", "std", "sum", "var",
            "logsumexp", "nansum", "nanmean", "nanmax"]  # fmt: skip
_BINARY = [
    "add", "arctan2", "divide", "divide_no_nan", "equal", "floor_divide", "greater",
    "greater_equal", "heaviside", "hypot", "less", "less_equal", "logaddexp", "logical_and",
    "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply", "not_equal", "power",
    "subtract", "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "gcd",
    "fmod", "isclose",
]  # fmt: skip
_PRODUCTS = ["matmul", "dot", "inner", "outer", "vdot", "tensordot", "kron", "cross"]

#: Of one tensor of shape (2, 3).
_MATRIX: dict[str, Call] = {
    "append": lambda o, x: o.append(x, x, axis=-1),
    "argmax": lambda o, x: o.argmax(x, axis=-1),
    "argmax/keepdims": lambda o, x: o.argmax(x, axis=-1, keepdims=True),
    "argmin": lambda o, x: o.argmin(x),
    "argsort": lambda o, x: o.argsort(x, axis=-1),
    "average": lambda o, x: o.average(x, axis=-1),
    "average/weights": lambda o, x: o.average(x, axis=-1, weights=x + x),
    "broadcast_to": lambda o, x: o.broadcast_to(x, (2, 2, 3)),
    "cast": lambda o, x: o.cast(x, "int32"),
    "clip": lambda o, x: o.clip(x, 1, 2),
    "clip/floats": lambda o, x: o.clip(x, 0.5, 1.5),
    "concatenate": lambda o, x: o.concatenate([x, x], axis=-1),
    "count_nonzero": lambda o, x: o.count_nonzero(x, axis=-1),
    "cumprod": lambda o, x: o.cumprod(x, axis=-1),
    "cumsum": lambda o, x: o.cumsum(x, axis=-1),
    "cumsum/flat": lambda o, x: o.cumsum(x),
    "diag": lambda o, x: o.diag(x),
    "diagonal": lambda o, x: o.diagonal(x, axis1=-2, axis2=-1),
    "diff": lambda o, x: o.diff(x, axis=-1),
    "expand_dims": lambda o, x: o.expand_dims(x, -1),
    "flip": lambda o, x: o.flip(x, -1),
    "full_like": lambda o, x: o.full_like(x, 2),
    "log_softmax": lambda o, x: o.log_softmax(x),
    "max/initial": lambda o, x: o.max(x, axis=-1, initial=1),
    "median": lambda o, x: o.median(x, axis=-1),
    "moveaxis": lambda o, x: o.moveaxis(x, -1, 0),
    "norm": lambda o, x: o.norm(x, axis=-1, keepdims=True),
    "normalize": lambda o, x: o.normalize(x, axis=-1),
    "one_hot": lambda o, x: o.one_hot(x, 3),
    "pad": lambda o, x: o.pad(x, ((1, 0), (0, 1))),
    "pad/value": lambda o, x: o.pad(x, 1, constant_values=1),
    "percentile": lambda o, x: o.quantile(x, 0.25, axis=-1),
    "ptp": lambda o, x: o.ptp(x, axis=-1),
    "repeat": lambda o, x: o.repeat(x, 2, axis=-1),
    "reshape": lambda o, x: o.reshape(x, (-1,)),
    "roll": lambda o, x: o.roll(x, 1, axis=-1),
    "softmax": lambda o, x: o.softmax(x),
    "sort": lambda o, x: o.sort(x, axis=-1),
    "split": lambda o, x: o.split(x, 3, axis=-1)[1],
    "squeeze": lambda o, x: o.squeeze(x[:1], axis=-2),
    "stack": lambda o, x: o.stack([x, x], axis=-1),
    "swapaxes": lambda o, x: o.swapaxes(x, -1, -2),
    "take": lambda o, x: o.take(x, [2, 0], axis=-1),
    "take_along_axis": lambda o, x: o.take_along_axis(x, o.argsort(x, axis=-1), axis=-1),
    "tile": lambda o, x: o.tile(x, (2, 1)),
    "top_k": lambda o, x: o.top_k(x, 2)[0],
    "top_k/indices": lambda o, x: o.top_k(x, 2)[1],
    "trace": lambda o, x: o.trace(x),
    "transpose": lambda o, x: o.transpose(x),
    "tril": lambda o, x: o.tril(x),
    "triu": lambda o, x: o.triu(x, 1),
    "vstack": lambda o, x: o.vstack([x, x]),
    "where/condition": lambda o, x: o.where(x, 1.0, 2),
    "slice": lambda o, x: o.slice(x, (0, 1), (2, 2)),
    "einsum": lambda o, x: o.einsum("ij,kj->ik", x, x),
    "segment_sum": lambda o, x: o.segment_sum(x, o.convert_to_tensor([0, 0]), 2),
    "bincount": lambda o, x: o.bincount(o.reshape(x, (-1,)), minlength=5),
    "searchsorted": lambda o, x: o.searchsorted(o.sort(x[0]), x[1]),
    "digitize": lambda o, x: o.digitize(x, [1.0, 2.0]),
    "nonzero": lambda o, x: o.nonzero(x)[1],
    "unique": lambda o, x: o.unique(x),
    "correlate": lambda o, x: o.correlate(x[0], x[1]),
    "isin": lambda o, x: o.isin(x, [1, 3]),
    "tri": lambda o, x: o.tri(3, 2, dtype=x.dtype),
    "eye": lambda o, x: o.eye(2, dtype=x.dtype),
    "arange": lambda o, x: o.arange(1, 5, dtype=x.dtype),
    "linspace": lambda o, x: o.linspace(x[0], x[1], 3),
    "scatter": lambda o, x: o.scatter(o.convert_to_tensor([[0], [1], [0]]), x[0], (3,)),
    "slice_update": lambda o, x: o.slice_update(x, (0, 0), x[:1, :2]),
}

#: The same of floats: of integers Keras rounds the statistics.
_FLOATS: dict[str, Call] = {
    "layer_normalization": lambda o, x: o.layer_normalization(x),
    "moments": lambda o, x: o.moments(x, axes=[-1])[1],
}

#: Of two, of shapes (2, 3) and (3,).
_PAIRS: dict[str, Call] = {
    "where": lambda o, x, y: o.where(o.convert_to_tensor([True, False, True]), x, y),
    "concatenate/mixed": lambda o, x, y: o.concatenate([x, y[None]], axis=0),
    "stack/mixed": lambda o, x, y: o.stack([x[0], y]),
    "append/mixed": lambda o, x, y: o.append(x, y),
    "einsum/mixed": lambda o, x, y: o.einsum("ij,j->i", x, y),
}


def _value(dtype: str, shape: str) -> Any:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    values = {
        "matrix": [[2, 1, 3], [0, 1, 4]],
        "row": [1, 3, 2],
        "square": [[2, 1, 3], [1, 3, 2], [0, 1, 1]],
        "scalar": 2,
        "empty": np.zeros((0, 3)),
    }
    return np.asarray(values[shape]).astype(kind)


def _reduction(name: str, **options: Any) -> Call:
    return lambda o, x: getattr(o, name)(x, **options)


def _pair(name: str, **options: Any) -> Call:
    return lambda o, x, y: getattr(o, name)(x, y, **options)


def calls() -> Iterator[tuple[str, str, Call, tuple[Any, ...]]]:
    """Operation, name of the call, what calls it, and the arguments as arrays and numbers."""
    for name in _ELEMENTWISE:
        for dtype in DTYPES:
            for shape in ("matrix", "scalar", "empty"):
                arguments = (_value(dtype, shape),)
                yield name, f"{name} {dtype} {shape}", _reduction(name), arguments
        for number, value in NUMBERS.items():
            yield name, f"{name} {number}", _reduction(name), (value,)
    for name in _REDUCED:
        for dtype in DTYPES:
            x = (_value(dtype, "matrix"),)
            for axis in (None, 0, -1, (0, -1)):
                options = {"axis": axis, "keepdims": axis == -1}
                yield name, f"{name} {dtype} axis={axis}", _reduction(name, **options), x
            yield name, f"{name} {dtype} scalar", _reduction(name), (_value(dtype, "scalar"),)
            empty = (_value(dtype, "empty"),)
            yield name, f"{name} {dtype} empty", _reduction(name, axis=-1), empty
        yield name, f"{name} list", _reduction(name), ([1, 2, 4],)
    for name, call in _MATRIX.items():
        for dtype in DTYPES:
            yield name.partition("/")[0], f"{name} {dtype}", call, (_value(dtype, "matrix"),)
    for name, call in _FLOATS.items():
        for dtype in DTYPES[-4:]:
            yield name, f"{name} {dtype}", call, (_value(dtype, "matrix"),)
    for name in _BINARY:
        pair = _pair(name)
        for a in DTYPES:
            x = _value(a, "matrix")
            for b in DTYPES:
                yield name, f"{name} {a} {b}", pair, (x, _value(b, "row"))
            for number, value in NUMBERS.items():
                yield name, f"{name} {a} {number}", pair, (x, value)
                yield name, f"{name} {number} {a}", pair, (value, _value(a, "row"))
            yield name, f"{name} {a} empty", pair, (_value(a, "empty"), _value(a, "row"))
            yield name, f"{name} {a} scalar", pair, (x, _value("int32", "scalar"))
        for one, value in NUMBERS.items():
            for other, second in NUMBERS.items():
                yield name, f"{name} {one} {other}", pair, (value, second)
    for name in _PRODUCTS:
        axes = {"axes": 1} if name == "tensordot" else {}
        pair = _pair(name, **axes)
        for a in DTYPES:
            for b in DTYPES:
                arguments = (_value(a, "square"), _value(b, "square"))
                yield name, f"{name} {a} {b}", pair, arguments
    for name, call in _PAIRS.items():
        for a in DTYPES:
            for b in DTYPES:
                arguments = (_value(a, "matrix"), _value(b, "row"))
                yield name.partition("/")[0], f"{name} {a} {b}", call, arguments


def run(k: Any, call: Call, arguments: tuple[Any, ...]) -> Any:
    """The result as an array."""
    given = [k.ops.convert_to_tensor(x) if hasattr(x, "dtype") else x for x in arguments]
    return np.asarray(call(k.ops, *given))


def table(k: Any) -> dict[str, Any]:
    """What every call gives: `names`, `dtypes`, `shapes` and, one after the other, `values`.

    Calls that are refused are left out.
    """
    names, dtypes, shapes, values = [], [], [], []
    for _, name, call, arguments in calls():
        try:
            result = run(k, call, arguments)
        except Exception:
            # Keras has no error of its own for what a backend has no kernel for.
            continue
        names.append(name)
        dtypes.append(result.dtype.name)
        shapes.append(str(result.shape))
        values.append(result.astype(np.float64).ravel())
    return {
        "names": np.array(names),
        "dtypes": np.array(dtypes),
        "shapes": np.array(shapes),
        "values": np.concatenate(values),
    }
