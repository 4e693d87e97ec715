"""What CUDA has no kernels for gives the same numbers when it is written with other operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler.passes.cuda.lower import LowerForCuda
from onnxtape.compiler.passes.portable_masks import PortableMasks
from tests.compiler.graphs import new_graph, run
from tests.compiler.pass_checks import apply, operators

RNG = np.random.default_rng(0)
FLOAT32 = np.dtype(np.float32)
#: What a lowering leaves of these is wrong on CUDA.
WITHOUT_KERNEL = {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"}


def numbers(dtype: str, shape: tuple[int, ...] = (300,)) -> np.ndarray[Any, Any]:
    """Of all sizes, the least and the greatest among them."""
    limits = np.iinfo(dtype)
    made = RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    made.reshape(-1)[:4] = limits.min, limits.max, 0, 1
    return made


def lowered(graph: ir.Graph, feeds: dict[str, Any]) -> None:
    """Compare the graph's results before and after."""
    before = run(graph, feeds)
    assert apply(LowerForCuda(), graph)
    assert not WITHOUT_KERNEL & set(operators(graph))
    for found, expected in zip(run(graph, feeds), before, strict=True):
        assert found.dtype == expected.dtype
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", [*UNSIGNED, "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
def test_bitwise(op: str, dtype: str) -> None:
    graph, b = new_graph()
    x, y = (b.input(name, np.dtype(dtype), (300,)) for name in "xy")
    graph.outputs.append(b.op(op, x, y))
    lowered(graph, {"x": numbers(dtype), "y": numbers(dtype)})


@pytest.mark.parametrize("dtype", [*UNSIGNED, "int8", "int64"])
def test_bitwise_not(dtype: str) -> None:
    graph, b = new_graph()
    graph.outputs.append(b.op("BitwiseNot", b.input("x", np.dtype(dtype), (300,))))
    lowered(graph, {"x": numbers(dtype)})


@pytest.mark.parametrize("dtype", UNSIGNED)
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(direction: str, dtype: str) -> None:
    graph, b = new_graph()
    x, places = (b.input(name, np.dtype(dtype), (300,)) for name in ("x", "places"))
    width = 8 * np.dtype(dtype).itemsize
    graph.outputs.append(b.op("BitShift", x, places, direction=direction))
    for count in (0, 1, width // 2, width - 1):
        constant = b.constant(np.asarray(count, dtype))
        graph.outputs.append(b.op("BitShift", x, constant, direction=direction))
    feeds = {"x": numbers(dtype), "places": RNG.integers(0, width, 300).astype(dtype)}
    lowered(graph, feeds)


def test_operands_that_broadcast() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.uint64), (3, 4))
    y = b.input("y", np.dtype(np.uint64), (2, 1, 4))
    graph.outputs.append(b.op("BitwiseXor", x, y))
    lowered(graph, {"x": numbers("uint64", (3, 4)), "y": numbers("uint64", (2, 1, 4))})


def test_bits_that_cannot_be_set_in_both_are_added() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.uint64), (300,))
    half = b.constant(np.uint64(32))
    high, low = (b.op("BitShift", x, half, direction=way) for way in ("LEFT", "RIGHT"))
    graph.outputs.append(b.op("BitwiseOr", high, low))
    lowered(graph, {"x": numbers("uint64")})
    assert operators(graph) == ["Mul", "Div", "Add"]


def test_only_bytes_in_common_are_looked_up() -> None:
    graph, b = new_graph()
    x, y = (b.input(name, np.dtype(np.uint64), (300,)) for name in "xy")
    low = b.op("BitShift", y, b.constant(np.uint64(48)), direction="RIGHT")
    graph.outputs.append(b.op("BitwiseXor", x, low))
    lowered(graph, {"x": numbers("uint64"), "y": numbers("uint64")})
    (split,) = (node for node in graph if node.op_type == "Split")
    assert len(split.outputs) == 2


def test_nothing_in_common_is_zero() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.uint64), (300,))
    high = b.op("BitShift", x, b.constant(np.uint64(56)), direction="LEFT")
    graph.outputs.append(b.op("BitwiseAnd", high, b.constant(np.uint64(255))))
    lowered(graph, {"x": numbers("uint64")})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("rows", [True, False])
def test_batch_normalization(shape: tuple[int, ...], momentum: float, rows: bool) -> None:
    graph, b = new_graph()
    known: Any = shape if rows else ("batch", *shape[1:])
    x = b.input("x", FLOAT32, known)
    names = ("scale", "bias", "mean", "variance")
    rest = [b.input(name, FLOAT32, (3,)) for name in names]
    made = b.op_multi(
        "BatchNormalization", x, *rest, outputs=3, training_mode=1, momentum=momentum, epsilon=1e-3
    )
    graph.outputs.extend(made)
    feeds = {name: RNG.uniform(0.5, 2, 3).astype(np.float32) for name in names}
    lowered(graph, {**feeds, "x": RNG.normal(1, 2, shape).astype(np.float32)})
    assert "BatchNormalization" not in operators(graph)


def test_batch_normalization_of_inference_stays() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (2, 3))
    graph.outputs.append(
        b.op("BatchNormalization", x, *[b.input(n, FLOAT32, (3,)) for n in "sbmv"])
    )
    assert not apply(LowerForCuda(), graph)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [0, 0, 1, 1]},
        {"pads": [1, 2, 2, 0], "strides": [2, 3]},
        {"pads": [0, 1, 1, 1], "dilations": [2, 1], "output_padding": [1, 0], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"pads": [0, 0, 1, 1], "group": 2},
    ],
    ids=str,
)
def test_transposed_convolutions(attributes: dict[str, Any]) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, ("batch", 4, 5, 6))
    w = b.constant(RNG.normal(size=(4, 3, 3, 4)).astype(np.float32))
    bias = b.constant(RNG.normal(size=3 * attributes.get("group", 1)).astype(np.float32))
    graph.outputs.append(b.op("ConvTranspose", x, w, bias, **attributes))
    lowered(graph, {"x": RNG.normal(size=(2, 4, 5, 6)).astype(np.float32)})
    (node,) = (node for node in graph if node.op_type == "ConvTranspose")
    pads = node.attributes["pads"].as_ints()
    assert pads[:2] == pads[2:]
    assert "auto_pad" not in node.attributes


@pytest.mark.parametrize(
    ("image", "block", "attributes"),
    [
        ([5, 6], [2, 3], {}),
        ([5, 6], [2, 3], {"strides": [2, 1], "pads": [1, 0, 0, 2]}),
        ([7, 6], [3, 2], {"dilations": [2, 3], "pads": [1, 1, 2, 0]}),
        ([9], [4], {"strides": [3], "pads": [1, 1]}),
        ([3, 4, 3], [2, 2, 2], {"strides": [1, 2, 1]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [2, "batch"])
def test_blocks_that_are_added_up(
    image: list[int], block: list[int], attributes: dict[str, Any], batch: Any
) -> None:
    rank = len(image)
    pads = attributes.get("pads", [0] * 2 * rank)
    blocks = [
        (size + pads[i] + pads[i + rank] - (block[i] - 1) * attributes.get("dilations", [1] * 3)[i])
        for i, size in enumerate(image)
    ]
    counts = [-(-n // attributes.get("strides", [1] * 3)[i]) for i, n in enumerate(blocks)]
    shape = (2, 3 * int(np.prod(block)), int(np.prod(counts)))
    graph, b = new_graph()
    columns = b.input("columns", FLOAT32, (batch, *shape[1:]))
    graph.outputs.append(b.op("Col2Im", columns, image, block, **attributes))
    lowered(graph, {"columns": RNG.normal(size=shape).astype(np.float32)})
    assert "Col2Im" not in operators(graph)


def test_even_padding_stays() -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT32, (2, 4, 5, 6)), b.input("w", FLOAT32, (4, 3, 3, 3))
    graph.outputs.append(b.op("ConvTranspose", x, w, pads=[1, 1, 1, 1], strides=[2, 2]))
    graph.outputs.append(b.op("ConvTranspose", x, w, output_shape=[12, 13], strides=[2, 2]))
    assert not apply(LowerForCuda(), graph)


@pytest.mark.parametrize(
    ("compares", "made"), [(True, ["Greater", "Cast"]), (False, ["Clip", "Ceil"])]
)
def test_masks_elsewhere(compares: bool, made: list[str]) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (6,))
    graph.outputs.append(b.op("HardSigmoid", x, alpha=1e38, beta=0.0))
    graph.outputs.append(b.op("HardSigmoid", x, alpha=0.5, beta=0.5))
    feeds = {"x": np.array([-np.inf, -1, -0.0, 1e-45, 1e-30, np.inf], np.float32)}
    plain = run(graph, feeds)[1]
    assert apply(PortableMasks(compares=compares), graph)
    assert operators(graph) == [*made, "HardSigmoid"]
    mask, other = run(graph, feeds)
    np.testing.assert_array_equal(mask, np.array([0, 0, 0, 1, 1, 1], np.float32))
    np.testing.assert_array_equal(other, plain)
    assert not apply(PortableMasks(), graph)


def test_many_tensors_are_joined_in_groups() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (3, 2))
    parts = [b.op("Mul", x, float(i)) for i in range(70)]
    graph.outputs.append(b.op("Concat", *parts, axis=1))
    lowered(graph, {"x": RNG.normal(size=(3, 2)).astype(np.float32)})
    joins = [node for node in graph if node.op_type == "Concat"]
    assert [len(node.inputs) for node in joins] == [32, 32, 6, 3]


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "float64"])
@pytest.mark.parametrize(
    ("shape", "depth"), [((7,), 1), ((5, 3), 1), ((4, 3, 2), 2), ((2, 3, 2), 3)], ids=str
)
@pytest.mark.parametrize("known", [True, False])
def test_scattered_numbers(
    reduction: str, dtype: str, shape: tuple[int, ...], depth: int, known: bool
) -> None:
    graph, b = new_graph()
    places = np.stack([RNG.integers(-n, n, (6, 2)) for n in shape[:depth]], axis=-1)
    feeds = {
        "x": RNG.integers(-9, 9, shape).astype(dtype),
        "indices": places,
        "updates": RNG.integers(-3, 4, (6, 2, *shape[depth:])).astype(dtype),
    }
    inputs = [
        b.input(name, a.dtype, a.shape if known else (f"{name}_rows", *a.shape[1:]))
        for name, a in feeds.items()
    ]
    graph.outputs.append(b.op("ScatterND", *inputs, reduction=reduction))
    lowered(graph, feeds)
    assert "ScatterND" not in operators(graph)


def test_scattered_floats_have_a_kernel() -> None:
    graph, b = new_graph()
    x, updates = b.input("x", FLOAT32, (4,)), b.input("updates", FLOAT32, (2,))
    indices = b.constant(np.array([[0], [0]]))
    graph.outputs.append(b.op("ScatterND", x, indices, updates, reduction="add"))
    graph.outputs.append(b.op("ScatterND", x, indices, updates))
    assert not apply(LowerForCuda(), graph)


@pytest.mark.parametrize(
    ("op", "dtype", "more", "attributes"),
    [
        ("Equal", "int8", ["x"], {}),
        ("Greater", "uint8", ["x"], {}),
        ("ArgMax", "int32", [], {"axis": 1, "keepdims": 0}),
        ("Clip", "int32", [-2, 3], {}),
        ("GatherND", "int32", [np.array([[1], [0], [-1]])], {}),
        ("MatMul", "int32", [np.arange(12).reshape(4, 3)], {}),
        ("Pad", "int32", [np.array([1, 0, 0, 2]), 7], {}),
        ("Pad", "uint8", [np.array([1, 0, 0, 2])], {}),
        ("Tile", "bool", [np.array([2, 3])], {}),
    ],
)
def test_a_wider_type(op: str, dtype: str, more: list[Any], attributes: dict[str, Any]) -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(dtype), (3, 4))
    rest = [
        x
        if isinstance(m, str)
        else b.constant(m if op != "MatMul" else m.astype(dtype))
        if isinstance(m, np.ndarray)
        else b.constant(np.asarray(m, dtype))
        for m in more
    ]
    graph.outputs.append(b.op(op, x, *rest, **attributes))
    values = RNG.integers(0, 2, (3, 4)).astype(dtype) if dtype == "bool" else numbers(dtype, (3, 4))
    lowered(graph, {"x": values % 1000 if op == "MatMul" else values})


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("ArgMax", {"axis": 1, "keepdims": 0}),
        ("ArgMin", {"axis": 0}),
        ("Pad", {}),
        ("Pad", {"mode": "reflect"}),
    ],
    ids=str,
)
def test_int64_to_the_last_digit(op: str, attributes: dict[str, Any]) -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.int64), (3, 4))
    rest: list[Any] = [] if op != "Pad" else [np.array([1, 0, 1, 2])]
    if op == "Pad" and not attributes:
        rest.append(b.constant(np.int64(-(2**62) - 1)))
    graph.outputs.append(b.op(op, x, *rest, **attributes))
    values = numbers("int64", (3, 4))
    # Equal numbers, of which the first counts, and one that float64 would not tell from them.
    values[:, 1:3] = np.iinfo(np.int64).max
    values[2] = 2**62, 2**62 + 1, 2**62 + 1, 2**62 - 1
    lowered(graph, {"x": values})


def test_the_last_of_equal_numbers_has_no_kernel() -> None:
    graph, b = new_graph()
    x = b.input("x", np.dtype(np.int64), (3, 4))
    graph.outputs.append(b.op("ArgMax", x, axis=1, select_last_index=1))
    assert not apply(LowerForCuda(), graph)


@pytest.mark.parametrize("shape", [(5, 40), (4, 3, 16), ("n", 40)], ids=str)
def test_long_rows_are_scattered_number_by_number(shape: tuple[Any, ...]) -> None:
    graph, b = new_graph()
    sizes = tuple(6 if isinstance(n, str) else n for n in shape)
    feeds = {
        "x": RNG.normal(size=sizes).astype(np.float32),
        "indices": RNG.integers(-sizes[0], sizes[0], (9, 1)),
        "updates": RNG.normal(size=(9, *sizes[1:])).astype(np.float32),
    }
    x = b.input("x", FLOAT32, shape)
    rest = [b.input(name, feeds[name].dtype, feeds[name].shape) for name in ("indices", "updates")]
    graph.outputs.append(b.op("ScatterND", x, *rest, reduction="add"))
    lowered(graph, feeds)
    assert "ScatterND" not in operators(graph)


#: From the least number that is not zero to where the next one would be infinite.
SIZES = [0.0, 1e-38, 1e-20, 1e-6, 1e-3, 0.1, 0.3, 0.99, 1.0, 1.01, 2.0, 10.0, 88.9, 1e4, 1e20, 3e38]
EVERYWHERE = np.array([*SIZES, *(-s for s in SIZES), np.inf, -np.inf, np.nan])
NEAR_ONE = 1 - np.array([0, 1e-7, 1e-6, 1e-4, 1e-2, 0.3])
FUNCTIONS = {
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "Sinh": np.sinh,
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_to_the_last_digits(op: str, dtype: str) -> None:
    """Of numbers of all sizes, outside of where they are defined, too."""
    graph, b = new_graph()
    with np.errstate(all="ignore"):
        among = np.linspace(-3, 3, 999)
        x = np.concatenate([EVERYWHERE, among, NEAR_ONE, -NEAR_ONE, 1 + 1e-3 * among]).astype(dtype)
    graph.outputs.append(b.op(op, b.input("x", x.dtype, x.shape)))
    assert apply(LowerForCuda(), graph)
    assert op not in operators(graph)
    (found,) = run(graph, {"x": x})
    assert found.dtype == x.dtype
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[op](x.astype(np.float64)).astype(dtype)
    places = {"float16": 1, "float32": 8, "float64": 16}[dtype]
    np.testing.assert_allclose(found, expected, rtol=places * np.finfo(dtype).eps, atol=1e-37)


@pytest.mark.parametrize(("op", "alpha"), [("Celu", 1.5), ("Tan", None), ("Cosh", None)])
def test_functions(op: str, alpha: float | None) -> None:
    graph, b = new_graph()
    attributes = {} if alpha is None else {"alpha": alpha}
    graph.outputs.append(b.op(op, b.input("x", FLOAT32, (40,)), **attributes))
    lowered(graph, {"x": np.linspace(-4, 4, 40, dtype=np.float32)})
    assert op not in operators(graph)
