"""What the table of gradient cases cannot say of normalizations, dropout and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxtape.compiler import GraphBuilder, differentiate
from onnxtape.compiler.errors import GradientError
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import has_zero_gradient
from tests.compiler.graphs import Array, Evaluator, new_graph, spread

FLOAT32 = np.dtype(np.float32)


def inputs(b: GraphBuilder, arrays: dict[str, Array]) -> list[ir.Value]:
    return [b.input(name, array.dtype, array.shape) for name, array in arrays.items()]


def gradients(
    op: str,
    arrays: dict[str, Array],
    target: int = 0,
    outputs: int = 1,
    opset: int = 21,
    **attributes: Any,
) -> tuple[dict[str, Array], ir.Graph]:
    """The gradients of one output's sum, weighted by 1, 2, 3, ..., by every floating input."""
    graph, b = new_graph(opset)
    values = inputs(b, arrays)
    made = b.op_multi(op, *values, outputs=outputs, **attributes)
    seed = b.input("seed", b.dtype(made[target]), b.shape(made[target]) or ())
    count = int(np.prod(seed.shape.numpy())) if seed.shape is not None else 0
    seed_array = (np.arange(count) / count).reshape(seed.shape.numpy())
    sources = [v for v, a in zip(values, arrays.values(), strict=True) if a.dtype.kind == "f"]
    found = differentiate(graph, [made[target]], sources, [seed])
    known = {s.name: g for s, g in zip(sources, found, strict=True) if g is not None}
    feeds = {**arrays, "seed": seed_array.astype(b.dtype(made[target]))}
    results = Evaluator(graph, list(known.values()))(feeds)
    return dict(zip([str(name) for name in known], results, strict=True)), graph


def arrays(dtype: Any, *shapes: tuple[int, ...]) -> dict[str, Array]:
    return {f"x{i}": spread(s, 0.2, 2.0, seed=i).astype(dtype) for i, s in enumerate(shapes)}


def test_layer_normalization_reads_the_statistics_that_its_node_makes() -> None:
    """Of float32; they are float32, so float64 makes its own."""
    shapes = ((2, 3, 4), (4,), (4,))
    exact, _ = gradients("LayerNormalization", arrays("float64", *shapes))
    found, graph = gradients("LayerNormalization", arrays("float32", *shapes))
    for name, array in exact.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    ops = [node.op_type for node in graph]
    assert "ReduceMean" not in ops
    (node,) = [node for node in graph if node.op_type == "LayerNormalization"]
    assert len(node.outputs) == 3
    assert all(output.name for output in node.outputs)


@pytest.mark.parametrize("target", [1, 2])
def test_gradients_that_arrive_at_the_statistics_alone(target: int) -> None:
    x = spread((2, 3, 4), 0.2, 2.0).astype(np.float32)
    given = {"x": x, "s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    found, _ = gradients("LayerNormalization", given, target, outputs=3)
    assert sorted(found) == ["x"]
    seed = (np.arange(6) / 6).reshape(2, 3, 1)
    wide = x.astype(np.float64)
    shifted = wide - wide.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((shifted**2).mean(-1, keepdims=True) + 1e-5)
    expected = seed / 4 + 0 * shifted if target == 1 else -seed * inverse**3 * shifted / 4
    np.testing.assert_allclose(found["x"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "opset"),
    [
        ("LayerNormalization", ((3, 8), (8,), (8,)), {}, 21),
        ("RMSNormalization", ((3, 8), (8,)), {}, 23),
        ("InstanceNormalization", ((2, 3, 8), (3,), (3,)), {}, 22),
        ("GroupNormalization", ((2, 4, 8), (4,), (4,)), {"num_groups": 2}, 21),
    ],
)
def test_half_precision_is_normalized_in_single(
    op: str, shapes: Any, attributes: dict[str, Any], opset: int
) -> None:
    """Squares of these numbers are beyond float16's range."""
    exact = arrays("float64", *shapes)
    exact["x0"] = exact["x0"] * 400
    expected, _ = gradients(op, exact, opset=opset, **attributes)
    halves = {name: array.astype(np.float16) for name, array in exact.items()}
    found, _ = gradients(op, halves, opset=opset, **attributes)
    for name, array in expected.items():
        assert found[name].dtype == np.float16
        scale = np.abs(array).max()
        np.testing.assert_allclose(
            found[name].astype("float64"), array, rtol=0.02, atol=0.02 * scale
        )


def test_batch_normalization_trains_through_its_output_alone() -> None:
    x = spread((5, 3), 0.2, 2.0)
    vectors = arrays("float64", (3,), (3,), (3,), (3,))
    given = {"x": x, **{f"v{i}": v for i, v in enumerate(vectors.values())}}
    found, _ = gradients("BatchNormalization", given, outputs=3, training_mode=1, epsilon=1e-3)
    seed = (np.arange(15) / 15).reshape(5, 3)
    # Nothing reaches the running statistics that came in.
    assert sorted(found) == ["v0", "v1", "x"]
    z = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3)
    np.testing.assert_allclose(found["v0"], (seed * z).sum(0), rtol=1e-9)
    np.testing.assert_allclose(found["v1"], seed.sum(0), rtol=1e-9)
    expected = seed - seed.mean(0) - z * (seed * z).mean(0)
    expected *= given["v0"] / np.sqrt(x.var(0) + 1e-3)
    np.testing.assert_allclose(found["x"], expected, rtol=1e-9, atol=1e-12)


def test_zero_norms_have_zero_gradients() -> None:
    x = np.asarray([[0.0, 0.0], [3.0, 4.0]])
    for p in (1, 2):
        found, _ = gradients("LpNormalization", {"x": x}, p=p)
        np.testing.assert_array_equal(found["x"][0], [0.0, 0.0])
        assert np.all(found["x"][1] != 0)


def test_a_constant_channel_has_a_finite_gradient() -> None:
    x = np.ones((2, 1, 2, 2), np.float32)
    found, _ = gradients("MeanVarianceNormalization", {"x": x}, axes=[0, 2, 3])
    assert np.all(np.isfinite(found["x"]))


def test_dropout_asks_for_its_mask() -> None:
    given = {"x": spread((4, 5)), "rate": np.asarray(0.25), "training": np.asarray(True)}
    graph, b = new_graph()
    x, rate, training = inputs(b, given)
    y = b.op("Dropout", x, rate, training, seed=3)
    (found,) = differentiate(graph, [y], [x])
    assert found is not None
    node = y.producer()
    assert node is not None
    assert len(node.outputs) == 2
    gradient, mask = Evaluator(graph, [found, node.outputs[1]])(given)
    np.testing.assert_allclose(gradient, mask / 0.75)
    assert 0 < mask.sum() < mask.size


def test_dropout_that_has_run_without_its_mask_refuses() -> None:
    class Eager(GraphBuilder):
        def outputs_of(self, record: Record[ir.Value], count: int) -> Any:
            return None

    from onnxtape.compiler.autodiff import backward, record_of

    graph, _ = new_graph()
    b = Eager(graph)
    x, rate, training = inputs(
        b, {"x": spread((4,)), "rate": np.asarray(0.25), "training": np.asarray(True)}
    )
    y = b.op("Dropout", x, rate, training)
    node = y.producer()
    assert node is not None
    with pytest.raises(GradientError, match=r"without its second output, the mask .* ask for that"):
        backward(b, [record_of(node)], [y], [x])


def test_dropout_has_no_gradient_by_its_ratio() -> None:
    graph, b = new_graph()
    given = {"x": spread((4,)), "rate": np.asarray(0.25), "training": np.asarray(True)}
    x, rate, training = inputs(b, given)
    y = b.op("Dropout", x, rate, training)
    with pytest.raises(GradientError, match="does not depend smoothly on its ratio"):
        differentiate(graph, [y], [rate])


def test_a_scale_of_another_size_is_refused() -> None:
    graph, b = new_graph()
    x, scale = inputs(b, arrays("float64", (2, 4), (1,)))
    y = b.op("LayerNormalization", x, scale)
    with pytest.raises(GradientError, match="scale has 1 elements for 4 that are normalized"):
        differentiate(graph, [y], [x])


def test_uneven_blocks_are_refused() -> None:
    graph, b = new_graph()
    x, scale = inputs(b, {"x": np.ones((2, 5), np.int8), "s": np.ones((2, 2), np.float32)})
    y = b.op("DequantizeLinear", x, scale, axis=1, block_size=4)
    with pytest.raises(GradientError, match="of size 5, does not divide into blocks of 4"):
        differentiate(graph, [y], [scale])


def test_quantized_numbers_carry_no_gradient() -> None:
    assert has_zero_gradient("QuantizeLinear")
    graph, b = new_graph()
    x, scale = inputs(b, {"x": np.ones((2,), np.float32), "s": np.ones((), np.float32)})
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale), scale)
    by_x, by_scale = differentiate(graph, [y], [x, scale])
    assert by_x is None
    assert by_scale is not None


def test_queries_without_a_key_have_no_gradient_and_no_nan() -> None:
    shape = (1, 2, 3, 4)
    given = arrays("float32", shape, shape, shape)
    for hidden in (
        np.asarray([[True, False, True], [False, False, False], [True, True, True]]),
        np.asarray([[0.0, -np.inf, 0.0], [-np.inf] * 3, [0.5, 0.0, 1.0]], np.float32),
    ):
        found, _ = gradients("Attention", {**given, "mask": hidden}, opset=24)
        for name, array in found.items():
            assert np.all(np.isfinite(array)), name
        np.testing.assert_array_equal(found["x0"][:, :, 1], 0)
        assert np.all(found["x0"][:, :, [0, 2]] != 0)


def test_attention_makes_two_passes_over_the_scores() -> None:
    """dP - D, times P: the sum over keys comes from the small output."""
    given = arrays("float32", *[(2, 3, 8, 4)] * 3)
    _, graph = gradients("Attention", given, opset=23)
    large = [n.op_type for n in graph if n.outputs[0].shape == ir.Shape([2, 3, 8, 8])]
    # ONNX Runtime's products transpose by themselves.
    large = [op for op in large if op != "Transpose"]
    assert sorted(large) == ["MatMul", "MatMul", "Mul", "Softmax", "Sub"]


def test_a_batchs_statistics_are_read_where_its_node_gives_them() -> None:
    """They come out as running statistics of which nothing old is kept."""
    given = arrays("float32", (6, 3, 4), (3,), (3,), (3,), (3,))
    options = {"training_mode": 1, "outputs": 3}
    found, graph = gradients("BatchNormalization", given, **options, momentum=0.0)
    expected, other = gradients("BatchNormalization", given, **options, momentum=0.5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    sums = [sum(node.op_type == "ReduceSum" for node in g) for g in (graph, other)]
    assert sums == [4, 8]
    (node,) = [node for node in graph if node.op_type == "BatchNormalization"]
    assert len(node.outputs) == 3
