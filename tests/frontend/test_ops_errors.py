"""What operations say when they refuse: the reason, the shapes, and the user's file and line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import ops
from onnxtape.errors import DtypeError, InvalidArgumentError, ShapeError

X = np.ones((2, 3), np.float32)
FLAT = np.ones((3,), np.float32)

#: what is called on a (2, 3) float32 tensor, the error, and what its text has to say.
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    # Shapes
    "add": (lambda x: x + np.ones(4, "f"), ShapeError, r"Add: 3 and 4 do not broadcast"),
    "maximum": (lambda x: ops.maximum(x, np.ones((3, 1), "f")), ShapeError, r"2 and 3 do not"),
    "matmul": (lambda x: x @ np.ones((2, 3), "f"), ShapeError, r"MatMul.*\(2, 3\)"),
    "reshape": (
        lambda x: ops.reshape(x, (4, 2)),
        ShapeError,
        r"reshape: \(2, 3\) has no shape \(4, 2\)",
    ),
    "reshape with -1": (
        lambda x: ops.reshape(x, (4, -1)),
        ShapeError,
        r"reshape: \(2, 3\) has no shape \(4, -1\)",
    ),
    "reshape with -1 twice": (lambda x: ops.reshape(x, (-1, -1)), ShapeError, r"has no shape"),
    "broadcast_to": (
        lambda x: ops.broadcast_to(x, (3, 3)),
        ShapeError,
        r"broadcast_to: \(2, 3\) does not broadcast to \(3, 3\)",
    ),
    "broadcast_to fewer axes": (
        lambda x: ops.broadcast_to(x, (3,)),
        ShapeError,
        r"broadcast_to: \(2, 3\) does not broadcast to \(3,\)",
    ),
    "squeeze": (
        lambda x: ops.squeeze(x, 0),
        ShapeError,
        r"squeeze: axis 0 of \(2, 3\) is not of size 1",
    ),
    "concatenate": (
        lambda x: ops.concatenate([x, np.ones((2, 2), "f")]),
        ShapeError,
        r"concatenate: \(2, 3\), \(2, 2\) differ in more than axis 0",
    ),
    "concatenate nothing": (lambda x: ops.concatenate([]), ShapeError, r"at least one tensor"),
    "stack nothing": (lambda x: ops.stack([]), ShapeError, r"stack needs at least one tensor"),
    "stack": (lambda x: ops.stack([x, np.ones((2, 2), "f")]), ShapeError, r"\(1, 2, 2\) differ in"),
    "concatenate ranks": (lambda x: ops.concatenate([x, FLAT]), ShapeError, r"\(3,\) differ in"),
    "split": (
        lambda x: ops.split(x, 2, axis=1),
        ShapeError,
        r"split: axis 1 of size 3 has no 2 equal parts",
    ),
    "split in none": (lambda x: ops.split(x, 0), ShapeError, r"has no 0 equal parts"),
    "split backwards": (
        lambda x: ops.split(x, [2, 1], axis=1),
        ShapeError,
        r"split: the indices \(2, 1\) do not ascend",
    ),
    "unstack": (
        lambda x: ops.unstack(x, num=3),
        ShapeError,
        r"unstack: axis 0 has size 2, not 3",
    ),
    "tensordot": (
        lambda x: ops.tensordot(x, x, 1),
        ShapeError,
        r"tensordot: axes \(1,\) of \(2, 3\) and \(0,\) of \(2, 3\) do not pair up",
    ),
    "tensordot too many": (lambda x: ops.tensordot(x, FLAT, 2), ShapeError, r"have no 2 pairs"),
    "repeat": (
        lambda x: ops.repeat(x, [1, 2], axis=1),
        ShapeError,
        r"repeat: 2 repeats do not fit axis 1 of \(2, 3\)",
    ),
    "flatten": (
        lambda x: ops.flatten(ops.sum(x)),
        ShapeError,
        r"flatten needs a batch dimension",
    ),
    "take_along_axis": (
        lambda x: ops.take_along_axis(x, [0], 1),
        ShapeError,
        r"take_along_axis: indices \(1,\) and the tensor \(2, 3\) have different ranks",
    ),
    "top_k": (
        lambda x: ops.top_k(x, 4),
        ShapeError,
        r"top_k: the last axis has size 3, so there are no 4 largest",
    ),
    "pad": (
        lambda x: ops.pad(x, ((1, 1), (1, 1), (1, 1))),
        ShapeError,
        r"pad: pad_width of shape \(3, 2\) does not give a pair for each of 2 axes",
    ),
    "average": (
        lambda x: ops.average(x, weights=FLAT),
        ShapeError,
        r"weights of rank 1 need the one axis",
    ),
    "moveaxis": (
        lambda x: ops.moveaxis(x, (0, 1), 0),
        ShapeError,
        r"moveaxis: 2 axes cannot move to 1 places",
    ),
    "sparse_categorical_crossentropy": (
        lambda x: ops.sparse_categorical_crossentropy([0, 1, 2], x),
        ShapeError,
        r"takes integer targets of shape \(2,\) for outputs of shape \(2, 3\), not \(3,\)",
    ),
    "categorical_crossentropy": (
        lambda x: ops.categorical_crossentropy(FLAT, x),
        ShapeError,
        r"targets and outputs of one shape, not \(3,\) and \(2, 3\)",
    ),
    "binary_crossentropy": (
        lambda x: ops.binary_crossentropy(np.ones((2, 1), "f"), x),
        ShapeError,
        r"binary_crossentropy takes targets and outputs of one shape",
    ),
    "argmax of nothing": (
        lambda x: ops.argmax(x[:0]),
        ShapeError,
        r"argmax: a tensor of shape \(0, 3\) has no elements",
    ),
    # Axes
    **{
        f"{name}, axis 2": (
            lambda x, name=name: getattr(ops, name)(x, axis=2),
            ShapeError,
            r": axis 2 is out of range for a tensor of rank 2",
        )
        for name in (
            "all", "any", "argmax", "argmin", "average", "count_nonzero", "cumsum", "flip",
            "log_softmax", "logsumexp", "max", "mean", "min", "norm", "prod", "softmax", "squeeze",
            "std", "sum", "unstack", "var",
        )
    },
    "axis -3": (lambda x: ops.sum(x, axis=(0, -3)), ShapeError, r"sum: axis -3 is out of range"),
    "axis twice": (lambda x: ops.sum(x, axis=(0, -2)), ShapeError, r"an axis occurs twice"),
    "concatenate axis": (lambda x: ops.concatenate([x, x], 2), ShapeError, r"axis 2 is out of"),
    "stack axis": (lambda x: ops.stack([x, x], 3), ShapeError, r"axis 3 is out of range.*rank 3"),
    "expand_dims axis": (lambda x: ops.expand_dims(x, 3), ShapeError, r"axis 3 is out of range"),
    "swapaxes axis": (lambda x: ops.swapaxes(x, 0, 2), ShapeError, r"swapaxes: axis 2 is out of"),
    "split axis": (lambda x: ops.split(x, 1, 2), ShapeError, r"split: axis 2 is out of range"),
    "take axis": (lambda x: ops.take(x, 0, 2), ShapeError, r"take: axis 2 is out of range"),
    "repeat axis": (lambda x: ops.repeat(x, 2, 2), ShapeError, r"repeat: axis 2 is out of range"),
    "one_hot axis": (lambda x: ops.one_hot([0], 2, 2), ShapeError, r"one_hot: axis 2 is out of"),
    "transpose": (lambda x: ops.transpose(x, (0,)), ShapeError, r"\(0,\) does not name all 2"),
    "transpose twice": (lambda x: ops.transpose(x, (0, 0)), ShapeError, r"occurs twice"),
    # Dtypes
    "bitwise": (lambda x: x & x, DtypeError, r"BitwiseAnd does not take float32"),
    "negative": (lambda x: -ops.cast(x, "uint8"), DtypeError, r"Neg does not take uint8"),
    "einsum": (
        lambda x: ops.einsum("ij->", ops.cast(x, "bool")),
        DtypeError,
        r"einsum takes numbers, not booleans",
    ),
}  # fmt: skip

HERE = re.escape("test_ops_errors.py")


def line_of(call: Any) -> range:
    """The lines of this file where the lambda is written."""
    lines, first = inspect.getsourcelines(call)
    return range(first, first + len(lines))


def check(refusal: pytest.ExceptionInfo[Exception], call: Any, text: str) -> None:
    message = str(refusal.value)
    assert re.search(text, message, re.DOTALL), message
    place = re.search(rf"\n  at .*{HERE}:(\d+)", message)
    assert place, message
    assert int(place[1]) in line_of(call)


@pytest.mark.parametrize("name", REFUSED)
def test_eager_refusals(name: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error) as refusal:
        call(ot.Tensor(X))
    check(refusal, call, text)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_while_tracing(name: str) -> None:
    call, error, text = REFUSED[name]
    with pytest.raises(error) as refusal:
        ot.function(call, fallback="error")(X)
    check(refusal, call, text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.norm(x, 1), r"norm: no norm over 2 axes with ord=1; over one axis"),
        (lambda x: ops.norm(x, 3, axis=0), r"norm: no norm over 1 axes with ord=3"),
        (lambda x: ops.norm(x, 2, axis=(0, 1)), r"norm: no norm over 2 axes with ord=2"),
        (lambda x: ops.pad(x, 1, "mean"), r"pad: mode is one of 'constant', .*, not 'mean'"),
        (lambda x: ops.pad(x, 1, "edge", 2.0), r"constant_values goes with mode='constant'"),
        (lambda x: ops.cast(x, "int32") ** -1, r"power: integers have no negative powers"),
        (lambda x: ops.pad(x, -1), r"pad: no width may be negative, as in -1"),
    ],
)
def test_options_that_do_not_exist(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(X)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.take(x, 5, axis=0),
        lambda x: ops.take_along_axis(x, [[7]], axis=1),
        lambda x: ops.sparse_categorical_crossentropy([0, 3], x),
        lambda x: ops.cast(x, "int32") // np.zeros((2, 3), np.int32),
        lambda x: ops.cast(x, "int32") % 0,
    ],
)
def test_values_that_do_not_fit(call: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=HERE):
        call(ot.Tensor(X))


@pytest.mark.parametrize("value", ["text", object(), [[1, 2], [3]], None])
def test_what_holds_no_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot make a tensor of"):
        ops.exp(value)


def test_sizes_known_at_run_time_only() -> None:
    def refuse(call: Any, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            ot.function(call).get_concrete_function(ot.TensorSpec((None, 3)))

    refuse(lambda x: ops.unstack(x), r"unstack needs `num`")
    refuse(lambda x: ops.split(x, [1]), r"split at indices needs an axis whose size is known")
