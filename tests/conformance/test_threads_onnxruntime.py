"""What ONNX Runtime's kernels compute does not depend on their threads.

Of kernels that write, or add to, places that several of their threads could reach, on inputs large
enough for two threads. ScatterND with a reduction is the one that fails: the compiler cuts it up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from onnxtape.compiler.distinct_rows import SERIAL

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def below(end: int, *shape: int) -> Array:
    return RNG.integers(0, end, shape)


ROWS, WIDTH = 8000, 64
#: Operator, inputs, number of outputs, attributes.
CASES: dict[str, tuple[str, list[Array], int, dict[str, Any]]] = {
    "ScatterElements, rows": (
        "ScatterElements",
        [np.zeros((50, WIDTH), "f"), below(50, ROWS, WIDTH), normal(ROWS, WIDTH)],
        1,
        {"axis": 0, "reduction": "add"},
    ),
    "ScatterElements, columns": (
        "ScatterElements",
        [np.zeros((WIDTH, 50), "f"), below(50, WIDTH, ROWS), normal(WIDTH, ROWS)],
        1,
        {"axis": 1, "reduction": "max"},
    ),
    "ScatterND of distinct rows": (
        "ScatterND",
        [normal(ROWS, WIDTH), RNG.permutation(ROWS)[:, None], normal(ROWS, WIDTH)],
        1,
        {"reduction": "add"},
    ),
    "ScatterND of one thread": (
        "ScatterND",
        [np.zeros((3, WIDTH), "f"), below(3, SERIAL // WIDTH, 1), normal(SERIAL // WIDTH, WIDTH)],
        1,
        {"reduction": "add"},
    ),
    "MaxUnpool": (
        "MaxUnpool",
        [normal(8, 16, 32, 32), np.sort(below(8 * 16 * 64 * 64, 8, 16, 32, 32), axis=None)],
        1,
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "Col2Im": (
        "Col2Im",
        [normal(8, 16 * 9, 900), np.array([32, 32]), np.array([3, 3])],
        1,
        {},
    ),
    "ConvTranspose": (
        "ConvTranspose",
        [normal(8, 32, 16, 16), normal(32, 16, 5, 5)],
        1,
        {"strides": [2, 2]},
    ),
    "LSTM in both directions": (
        "LSTM",
        [normal(16, 64, 64), normal(2, 256, 64), normal(2, 256, 64)],
        3,
        {"hidden_size": 64, "direction": "bidirectional"},
    ),
    "BatchNormalization": (
        "BatchNormalization",
        [normal(32, 64, 32, 32), *(np.ones(64, "f") for _ in range(4))],
        3,
        {"training_mode": 1},
    ),
    "ReduceSum over rows": ("ReduceSum", [normal(3000, 500), np.array([0])], 1, {}),
    "CumSum": ("CumSum", [normal(500, 2000), np.array(0)], 1, {}),
}
CASES["MaxUnpool"][1][1] = CASES["MaxUnpool"][1][1].reshape(8, 16, 32, 32)


@pytest.mark.parametrize("name", CASES)
def test_two_threads_give_what_one_gives(name: str) -> None:
    op_type, inputs, outputs, attributes = CASES[name]
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in zip(names, inputs, strict=True)
    ]
    empty = [helper.make_empty_tensor_value_info(result) for result in results]
    graph = helper.make_graph([node], "one", infos, empty)
    opset = onnx.helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    feeds = dict(zip(names, inputs, strict=True))

    def run(threads: int, times: int) -> list[list[Array]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model.SerializeToString(), options)
        return [session.run(None, feeds) for _ in range(times)]

    (expected,) = run(1, 1)
    for made in run(2, 5):
        for got, want in zip(made, expected, strict=True):
            np.testing.assert_array_equal(got, want)
