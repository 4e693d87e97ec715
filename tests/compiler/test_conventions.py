"""Where a derivative does not exist, its value is PyTorch's.

The expected numbers come from PyTorch 2.13 in double precision: `y.sum().backward()`, y being made
by the function that the comment above them names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import differentiate
from tests.compiler.graphs import Array, Evaluator, new_graph

INF, NAN = np.inf, np.nan

#: name, operator, inputs (floats are differentiated), attributes, gradients
CONVENTIONS: list[tuple[str, str, list[Any], dict[str, Any], list[Any]]] = [
    # relu, abs
    ("relu", "Relu", [[-1.0, 0.0, 1.0]], {}, [[0.0, 0.0, 1.0]]),
    ("abs", "Abs", [[-1.0, 0.0, 1.0]], {}, [[-1.0, 0.0, 1.0]]),
    # leaky_relu(x, 0.1), prelu(x, w)
    ("leaky relu", "LeakyRelu", [[-1.0, 0.0, 1.0]], {"alpha": 0.1}, [[0.1, 0.1, 1.0]]),
    ("prelu", "PRelu", [[-1.0, 0.0, 1.0], [0.25]], {}, [[0.25, 0.25, 1.0], [-1.0]]),
    # elu(x, 0.5), selu(x), celu(x, 2)
    ("elu", "Elu", [[-1.0, 0.0, 1.0]], {"alpha": 0.5}, [[0.18393972058572117, 0.5, 1.0]]),
    (
        "selu",
        "Selu",
        [[-1.0, 0.0, 1.0]],
        {},
        [[0.646768603034814, 1.7580993408473766, 1.0507009873554805]],
    ),
    ("celu", "Celu", [[-1.0, 0.0, 1.0]], {"alpha": 2.0}, [[0.6065306597126334, 1.0, 1.0]]),
    # threshold(x, 1, 0)
    ("threshold", "ThresholdedRelu", [[0.0, 1.0, 2.0]], {"alpha": 1.0}, [[0.0, 0.0, 1.0]]),
    # hardsigmoid, hardswish
    (
        "hard sigmoid",
        "HardSigmoid",
        [[-4.0, -3.0, 0.0, 3.0, 4.0]],
        {"alpha": 1 / 6, "beta": 0.5},
        [[0.0, 0.0, 1 / 6, 0.0, 0.0]],
    ),
    (
        "hard swish",
        "HardSwish",
        [[-4.0, -3.0, 0.0, 3.0, 4.0]],
        {},
        [[0.0, 0.0, 0.5, 1.0, 1.0]],
    ),
    # softshrink(x, 0.5), hardshrink(x, 0.5)
    (
        "soft shrink",
        "Shrink",
        [[-1.0, -0.5, 0.0, 0.5, 1.0]],
        {"lambd": 0.5, "bias": 0.5},
        [[1.0, 0.0, 0.0, 0.0, 1.0]],
    ),
    (
        "hard shrink",
        "Shrink",
        [[-1.0, -0.5, 0.0, 0.5, 1.0]],
        {"lambd": 0.5},
        [[1.0, 0.0, 0.0, 0.0, 1.0]],
    ),
    ("softsign", "Softsign", [[0.0]], {}, [[1.0]]),
    # softplus, mish and gelu far out: no NaN from what overflows
    ("softplus", "Softplus", [[100.0, -100.0]], {}, [[1.0, 3.720075976020836e-44]]),
    ("mish", "Mish", [[0.0, 100.0]], {}, [[0.6, 1.0]]),
    ("gelu", "Gelu", [[0.0, 40.0, -40.0]], {}, [[0.5, 1.0, 0.0]]),
    # maximum, minimum
    (
        "maximum",
        "Max",
        [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]],
        {},
        [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]],
    ),
    (
        "minimum",
        "Min",
        [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]],
        {},
        [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]],
    ),
    # amax(x, -1), amin(x, -1)
    (
        "amax",
        "ReduceMax",
        [[[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]], np.asarray([-1])],
        {},
        [[[0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]],
    ),
    (
        "amin",
        "ReduceMin",
        [[[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]], np.asarray([-1])],
        {"keepdims": 0},
        [[[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]],
    ),
    # clamp with tensor bounds; equal bounds; bounds that cross; one bound
    (
        "clamp",
        "Clip",
        [[-2.0, -1.0, 0.0, 1.0, 2.0], -1.0, 1.0],
        {},
        [[0.0, 1.0, 1.0, 1.0, 0.0], 1.0, 1.0],
    ),
    ("clamp to a point", "Clip", [[-2.0, 1.0, 2.0], 1.0, 1.0], {}, [[0.0, 1.0, 0.0], 0.0, 1.0]),
    (
        "clamp crossed",
        "Clip",
        [[-2.0, -1.0, 0.0, 1.0, 2.0], 1.0, -1.0],
        {},
        [[0.0, 0.0, 0.0, 0.0, 0.0], 0.0, 5.0],
    ),
    ("clamp low", "Clip", [[-2.0, 1.0, 2.0], 1.0], {}, [[0.0, 1.0, 1.0], 1.0]),
    ("clamp high", "Clip", [[-2.0, 1.0, 2.0], None, 1.0], {}, [[1.0, 1.0, 0.0], 1.0]),
    # linalg.vector_norm(x, 2, dim=-1), (x, 1, dim=-1)
    (
        "norm 2",
        "ReduceL2",
        [[[0.0, 0.0], [3.0, 4.0]], np.asarray([-1])],
        {},
        [[[0.0, 0.0], [0.6, 0.8]]],
    ),
    (
        "norm 1",
        "ReduceL1",
        [[[0.0, 0.0], [3.0, -4.0]], np.asarray([-1])],
        {},
        [[[0.0, 0.0], [1.0, -1.0]]],
    ),
    # prod(x, -1): no, one, two zeros
    (
        "prod",
        "ReduceProd",
        [[[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0]], np.asarray([-1])],
        {},
        [[[12.0, 8.0, 6.0], [12.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
    ),
    # x ** number
    ("power 0", "Pow", [[0.0, 2.0], ("constant", 0.0)], {}, [[0.0, 0.0]]),
    ("power 1", "Pow", [[0.0, 2.0], ("constant", 1.0)], {}, [[1.0, 1.0]]),
    ("power 2", "Pow", [[0.0, 2.0], ("constant", 2.0)], {}, [[0.0, 4.0]]),
    ("power 0.5", "Pow", [[0.0, 4.0], ("constant", 0.5)], {}, [[INF, 0.25]]),
    ("power -1", "Pow", [[0.0, 4.0], ("constant", -1.0)], {}, [[-INF, -0.0625]]),
    # pow(x, y) of tensors
    (
        "power",
        "Pow",
        [[0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0], [0.0, 0.5, 1.0, 2.0, -1.0, 0.0, 3.0]],
        {},
        [
            [0.0, INF, 1.0, 0.0, -INF, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, -INF, 0.6931471805599453, 0.0],
        ],
    ),
    (
        "power of a negative base",
        "Pow",
        [[-2.0, -2.0, -2.0], [0.0, -1.0, 0.5]],
        {},
        [[0.0, -0.25, NAN], [NAN, NAN, NAN]],
    ),
    (
        "power of zero",
        "Pow",
        [[0.0, 0.0], [-1.0, -2.0]],
        {},
        [[-INF, -INF], [-INF, -INF]],
    ),
    # fmod
    (
        "fmod",
        "Mod",
        [[5.0, -5.0, 6.0, -6.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0]],
        {"fmod": 1},
        [[1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, -2.0, 2.0, 0.0]],
    ),
    # sqrt, log, reciprocal, div, asin at their poles
    ("sqrt", "Sqrt", [[0.0, 4.0]], {}, [[INF, 0.25]]),
    ("log", "Log", [[0.0, -1.0]], {}, [[INF, -1.0]]),
    ("reciprocal", "Reciprocal", [[0.0]], {}, [[-INF]]),
    ("div", "Div", [[1.0, 0.0], [0.0, 0.0]], {}, [[INF, INF], [-INF, NAN]]),
    ("asin", "Asin", [[1.0, -1.0]], {}, [[INF, INF]]),
    ("acos", "Acos", [[1.0, -1.0]], {}, [[-INF, -INF]]),
    # logsumexp(x, -1) with infinities
    (
        "logsumexp",
        "ReduceLogSumExp",
        [[[-INF, -INF], [0.0, -INF], [INF, 0.0]], np.asarray([-1])],
        {},
        [[[NAN, NAN], [1.0, 0.0], [NAN, 0.0]]],
    ),
    # topk(x, 1)[0]: the first of equals
    (
        "topk",
        "TopK",
        [[[1.0, 1.0], [2.0, 3.0]], np.asarray([1])],
        {},
        [[[1.0, 0.0], [0.0, 1.0]]],
    ),
    # cumprod(x, 1): no, one, two zeros; flipped, flipped back
    (
        "cumprod",
        "CumProd",
        [[[2.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 4.0]], np.asarray(1)],
        {},
        [[[16.0, 10.0, 6.0], [16.0, 0.0, 0.0], [1.0, 0.0, 0.0]]],
    ),
    # scatter_reduce(0, index, updates, ...): amax, amin, prod; the data's own element is among the
    # equals
    (
        "scatter max",
        "ScatterElements",
        [[1.0, 2.0, 3.0], np.asarray([0, 0, 1, 1, 2]), [1.0, 1.0, 5.0, 2.0, 0.0]],
        {"reduction": "max"},
        [[1 / 3, 0.0, 1.0], [1 / 3, 1 / 3, 1.0, 0.0, 0.0]],
    ),
    (
        "scatter min",
        "ScatterND",
        [[1.0, 2.0, 3.0], np.asarray([[0], [0], [1], [1], [2]]), [1.0, 1.0, 2.0, 5.0, 0.0]],
        {"reduction": "min"},
        [[1 / 3, 0.5, 0.0], [1 / 3, 1 / 3, 0.5, 0.0, 1.0]],
    ),
    (
        "scatter mul",
        "ScatterElements",
        [
            [2.0, 0.0, 3.0, 0.0],
            np.asarray([0, 0, 1, 1, 2, 2, 3]),
            [0.0, 4.0, 5.0, 2.0, 0.0, 0.0, 0.0],
        ],
        {"reduction": "mul"},
        [[0.0, 10.0, 0.0, 0.0], [8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]],
    ),
    # PyTorch has no gradient of unique: the first of equals gets it, which is the one that ONNX's
    # indices point at
    ("unique", "Unique", [[3.0, 1.0, 3.0, 1.0, 2.0]], {}, [[1.0, 1.0, 0.0, 0.0, 1.0]]),
    # nll_loss and cross_entropy, ignore_index=0: one target ignored, both ignored
    (
        "nll, one ignored",
        "NegativeLogLikelihoodLoss",
        [[[1.0, 2.0], [3.0, 4.0]], np.asarray([0, 1])],
        {"ignore_index": 0},
        [[[0.0, 0.0], [0.0, -1.0]]],
    ),
    (
        "nll, all ignored",
        "NegativeLogLikelihoodLoss",
        [[[1.0, 2.0], [3.0, 4.0]], np.asarray([0, 0])],
        {"ignore_index": 0},
        [[[0.0, 0.0], [0.0, 0.0]]],
    ),
    (
        "cross entropy, all ignored",
        "SoftmaxCrossEntropyLoss",
        [[[1.0, 2.0], [3.0, 4.0]], np.asarray([0, 0])],
        {"ignore_index": 0},
        [[[0.0, 0.0], [0.0, 0.0]]],
    ),
    # cross_entropy(x, [0, 0], weight=[0, 1]): a mean over no weight
    (
        "cross entropy, no weight",
        "SoftmaxCrossEntropyLoss",
        [[[1.0, 2.0], [3.0, 4.0]], np.asarray([0, 0]), ("constant", [0.0, 1.0])],
        {},
        [[[NAN, NAN], [NAN, NAN]]],
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [pytest.param(*case[1:], id=case[0]) for case in CONVENTIONS],
)
def test_as_pytorch(
    op: str, inputs: list[Any], attributes: dict[str, Any], expected: list[Any], dtype: Any
) -> None:
    if op == "Celu" and dtype == np.float64:
        pytest.skip("ONNX's Celu takes float32 only")
    graph, b = new_graph(26 if op == "CumProd" else 21)
    operands: list[ir.Value | None] = []
    sources: list[ir.Value] = []
    feeds: dict[str, Array] = {}
    for i, x in enumerate(inputs):
        if x is None:
            operands.append(None)
        elif isinstance(x, tuple):
            operands.append(b.constant(np.asarray(x[1], dtype)))
        elif isinstance(x, np.ndarray):
            operands.append(b.constant(x))
        else:
            feeds[f"x{i}"] = np.asarray(x, dtype)
            sources.append(b.input(f"x{i}", np.dtype(dtype), feeds[f"x{i}"].shape))
            operands.append(sources[-1])
    y = b.op_multi(op, *operands, outputs=2 if op == "TopK" else 1, **attributes)[0]
    gradients = differentiate(graph, [y], sources)
    found = Evaluator(graph, [g for g in gradients if g is not None])(feeds)
    tolerance = 1e-6 if dtype == np.float32 else 1e-7  # attributes are float32 in either case
    for gradient, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sign"])
def test_steps_carry_no_gradient(op: str) -> None:
    """Their derivative is zero wherever it exists; the source counts as unconnected."""
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.float64), (3,))
    assert differentiate(graph, [b.op(op, x)], [x]) == [None]
