"""The driver: what lies on a path, how gradients add up, what is refused and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.compiler import (
    DtypeError,
    GradientError,
    GraphBuilder,
    Provenance,
    Record,
    ShapeError,
    differentiate,
    gradient,
    registry,
    zero_gradient,
)
from onnxtape.compiler.autodiff import backward, record_of
from tests.compiler.graphs import (
    BOOL,
    FLOAT64,
    INT64,
    Array,
    Evaluator,
    check_shapes,
    new_graph,
    spread,
)

FLOAT32 = np.dtype(np.float32)


def values(graph: ir.Graph, wanted: list[Any], **feeds: Any) -> list[Array]:
    return Evaluator(graph, wanted)({k: np.asarray(v) for k, v in feeds.items()})


def foreign(
    b: GraphBuilder, op_type: str, x: ir.Value, *, provenance: Provenance | None = None, **kind: Any
) -> ir.Value:
    """An operator of a custom domain, named 'mystery', whose result has x's type and shape."""
    node = ir.Node(
        "com.example",
        op_type,
        [x],
        name="mystery",
        metadata_props=provenance.to_metadata() if provenance else None,
    )
    out = node.outputs[0]
    out.name = b.unique_name("custom")
    if kind.get("typed", True):
        out.type, out.shape = x.type, x.shape
    assert b.graph is not None
    b.graph.append(node)
    return out


# Sums --------------------------------------------------------------------------------------------


def test_a_value_used_three_times_gets_the_sum_of_three_gradients() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3,))
    y = b.op("Add", b.op("Add", b.op("Mul", x, 2.0), b.op("Sin", x)), b.op("Exp", x))
    (dx,) = differentiate(graph, [y], [x])
    point = spread((3,))
    np.testing.assert_allclose(
        values(graph, [dx], x=point)[0], 2 + np.cos(point) + np.exp(point), rtol=1e-12
    )
    assert [node.op_type for node in graph if node.op_type in ("Sum", "Add")].count("Sum") == 1


def test_a_value_used_twice_by_one_operator() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3,))
    (dx,) = differentiate(graph, [b.op("Mul", x, x)], [x])
    point = spread((3,))
    np.testing.assert_allclose(values(graph, [dx], x=point)[0], 2 * point, rtol=1e-12)


def test_several_targets_add_up() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3,))
    targets = [b.op("Sin", x), b.op("ReduceSum", x, keepdims=0)]
    (dx,) = differentiate(graph, targets, [x])
    point = spread((3,))
    np.testing.assert_allclose(values(graph, [dx], x=point)[0], np.cos(point) + 1, rtol=1e-12)


def test_one_target_may_depend_on_another() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Mul", x, 3.0)
    (dx,) = differentiate(graph, [y, b.op("Mul", y, y)], [x])
    assert values(graph, [dx], x=2.0) == [3 + 2 * 6 * 3]


def test_the_same_target_twice_counts_twice() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Mul", x, 3.0)
    (dx,) = differentiate(graph, [y, y], [x])
    assert values(graph, [dx], x=2.0) == [6]


def test_only_one_of_several_outputs_is_used() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ("batch", 4))
    _, second, _ = b.op_multi("Split", x, [1, 2, 1], outputs=3, axis=1)
    (dx,) = differentiate(graph, [b.op("Mul", second, second)], [x])
    point = spread((2, 4))
    expected = np.zeros((2, 4))
    expected[:, 1:3] = 2 * point[:, 1:3]
    np.testing.assert_allclose(values(graph, [dx], x=point)[0], expected, rtol=1e-12)


# Sources and targets -----------------------------------------------------------------------------


def test_an_intermediate_as_a_source_beside_the_input_it_comes_from() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Mul", x, 3.0)
    z = b.op("Mul", y, y)
    dx, dy = differentiate(graph, [z], [x, y])
    assert values(graph, [dx, dy], x=2.0) == [2 * 6 * 3, 2 * 6]


def test_a_target_as_its_own_source() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    y = b.op("Exp", x)
    (dy,) = differentiate(graph, [y], [y])
    np.testing.assert_array_equal(values(graph, [dy], x=[1.0, 2.0])[0], [1, 1])


def test_an_initializer_as_a_source() -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT64, (2,)), b.constant(np.asarray([3.0, 4.0]))
    (dw,) = differentiate(graph, [b.op("Mul", x, w)], [w])
    np.testing.assert_array_equal(values(graph, [dw], x=[1.0, 2.0])[0], [1, 2])


def test_an_unconnected_source_has_no_gradient() -> None:
    graph, b = new_graph()
    x, other, after = b.input("x", FLOAT64, ()), b.input("other", FLOAT64, ()), b.constant(1.0)
    y = b.op("Exp", x)
    assert differentiate(graph, [y], [other, after, b.op("Exp", y)]) == [None, None, None]


def test_integers_and_comparisons_stop_the_path() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3,))
    whole = b.cast(b.cast(x, INT64), FLOAT64)
    mask = b.cast(b.op("Greater", x, 0.0), FLOAT64)
    assert differentiate(graph, [whole], [x]) == [None]
    assert differentiate(graph, [mask], [x]) == [None]
    (dx,) = differentiate(graph, [b.op("Mul", x, b.op("Add", whole, mask))], [x])
    np.testing.assert_array_equal(values(graph, [dx], x=[-1.5, 0.5, 2.5])[0], [-1, 1, 3])


def test_an_integer_source_has_no_gradient() -> None:
    graph, b = new_graph()
    i, x = b.input("i", INT64, (2,)), b.input("x", FLOAT64, (3,))
    di, dx = differentiate(graph, [b.op("Gather", x, i)], [i, x])
    assert di is None
    assert dx is not None


def test_values_by_name() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Mul", x, x)
    (dx,) = differentiate(graph, [y.name or ""], ["x"])
    assert values(graph, [dx], x=3.0) == [6]


def test_an_unknown_name() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    with pytest.raises(KeyError, match="the graph has no value named 'nothing'"):
        differentiate(graph, [x], ["nothing"])
    with pytest.raises(KeyError, match="the graph has no value named 'nowhere'"):
        differentiate(graph, ["nowhere"], ["x"])


@pytest.mark.parametrize("dtype", [INT64, BOOL])
def test_a_target_that_is_not_floating(dtype: np.dtype[Any]) -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    message = (
        f"a gradient needs a floating-point target, not {dtype}; "
        "cast it, or differentiate the value it was computed from"
    )
    with pytest.raises(GradientError) as caught:
        differentiate(graph, [b.cast(x, dtype)], [x])
    assert str(caught.value) == message


def test_an_old_opset_is_refused() -> None:
    graph, b = new_graph(opset=17)
    x = b.input("x", FLOAT64, ())
    y = b.op("Exp", x)
    with pytest.raises(GradientError) as caught:
        differentiate(graph, [y], [x])
    assert str(caught.value) == (
        "the graph is of opset 17; convert it to 21 or later first, with onnx.version_converter"
    )


def test_graph_outputs_are_left_alone() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Exp", x)
    graph.outputs.append(y)
    differentiate(graph, [y], [x])
    assert list(graph.outputs) == [y]


# Output gradients --------------------------------------------------------------------------------


def test_output_gradients_weigh_the_targets() -> None:
    graph, b = new_graph()
    x, g = b.input("x", FLOAT64, ("batch", 2)), b.input("g", FLOAT64, ("batch", 2))
    y, z = b.op("Exp", x), b.op("Mul", x, 5.0)
    (dx,) = differentiate(graph, [y, z], [x], [g, None])
    point, weights = spread((3, 2)), spread((3, 2), seed=1)
    np.testing.assert_allclose(
        values(graph, [dx], x=point, g=weights)[0], np.exp(point) * weights + 5, rtol=1e-12
    )


def test_an_output_gradient_of_another_shape() -> None:
    graph, b = new_graph()
    x, g = b.input("x", FLOAT64, ("batch", 2)), b.input("g", FLOAT64, (2,))
    with pytest.raises(ShapeError) as caught:
        differentiate(graph, [b.op("Exp", x)], [x], [g])
    assert str(caught.value) == (
        "an output gradient has shape (2,), its target (batch, 2); they must be equal"
    )


def test_an_output_gradient_of_another_dtype() -> None:
    graph, b = new_graph()
    x, g = b.input("x", FLOAT64, (2,)), b.input("g", FLOAT32, (2,))
    with pytest.raises(DtypeError) as caught:
        differentiate(graph, [b.op("Exp", x)], [x], [g])
    assert str(caught.value) == (
        "an output gradient has dtype float32, its target float64; they must be equal"
    )


def test_too_few_output_gradients() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    with pytest.raises(ValueError) as caught:
        differentiate(graph, [b.op("Exp", x), x], [x], [None])
    assert str(caught.value) == (
        "1 output gradients were given for 2 targets; give one for each, None for ones"
    )


# Operators without a rule ------------------------------------------------------------------------

PLACE = Provenance("train.py", 12, "dense")


def test_an_operator_without_a_rule_on_the_path() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    y = b.op("Mul", foreign(b, "Mystery", x, provenance=PLACE), 2.0)
    with pytest.raises(GradientError) as caught:
        differentiate(graph, [y], [x])
    assert str(caught.value) == (
        "com.example::Mystery (node 'mystery') has no gradient rule, and it lies between the "
        "target and a source; stop the gradient there with ot.stop_gradient, or give it one with "
        "ot.custom_gradient\n  at train.py:12 in layer 'dense'"
    )


def test_a_standard_operator_without_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.lookup("Erf")  # loads the rules
    table = {op: rule for op, rule in registry._TABLE.items() if op != "Erf"}
    monkeypatch.setattr(registry, "_TABLE", table)
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 2))
    with pytest.raises(GradientError, match=r"^Erf \(node 'Erf_\d+_node'\) has no gradient rule"):
        differentiate(graph, [b.op("Erf", x)], [x])


@pytest.mark.parametrize("typed", [True, False])
def test_an_operator_without_a_rule_beside_the_path(typed: bool) -> None:
    """Behind the target, before the source, or in a branch that leads nowhere."""
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    before = foreign(b, "Mystery", x)
    y = b.op("Exp", b.op("Mul", x, before))
    foreign(b, "Mystery", y, typed=typed)
    foreign(b, "Mystery", x, typed=typed)
    source = b.input("s", FLOAT64, (2,))
    (ds,) = differentiate(graph, [b.op("Mul", y, source)], [source])
    assert ds is y or ds is not None


def test_the_name_of_a_standard_operator_in_another_domain() -> None:
    """A custom 'Floor' is not ONNX's, whose derivative is zero; nor is a custom 'Exp'."""
    for op_type in ("Floor", "Exp"):
        graph, b = new_graph()
        x = b.input("x", FLOAT64, (2,))
        with pytest.raises(GradientError, match=f"com.example::{op_type}"):
            differentiate(graph, [foreign(b, op_type, x)], [x])


def test_an_unknown_dtype_on_the_path_is_reported_as_what_it_is() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2,))
    hidden = foreign(b, "Mystery", x, typed=False)
    node = ir.Node("com.example", "Reveal", [hidden], name="reveal")
    node.outputs[0].name, node.outputs[0].type = "revealed", ir.TensorType(ir.DataType.DOUBLE)
    node.outputs[0].shape = ir.Shape((2,))
    graph.append(node)
    with pytest.raises(GradientError, match=r"com.example::Reveal \(node 'reveal'\)"):
        differentiate(graph, [node.outputs[0]], [x])


def test_a_refusal_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def sine(b: Any, n: Any, g: Any) -> Any:
        raise registry.Refusal("the sine is too curved")

    registry.lookup("Sin")  # loads the rules
    table = {**registry._TABLE, "Sin": registry.Gradient(sine)}
    monkeypatch.setattr(registry, "_TABLE", table)
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (3,))
    with b.origin(PLACE, "forward"):
        y = b.op("Sin", x)
    with pytest.raises(GradientError) as caught:
        differentiate(graph, [y], [x])
    assert str(caught.value) == (
        "Sin (node 'Sin_1_node') cannot be differentiated: the sine is too curved\n"
        "  at train.py:12 in layer 'dense'"
    )


def test_a_rule_that_needs_a_rank_says_so() -> None:
    graph, b = new_graph()
    x, shape = b.input("x", FLOAT64, (6,)), b.input("shape", INT64, ("n",))
    y = b.op("Tile", b.op("Reshape", x, shape), b.input("repeats", INT64, ("n",)))
    with pytest.raises(GradientError) as caught:
        differentiate(graph, [y], [x])
    assert str(caught.value) == (
        "Tile (node 'Tile_2_node') cannot be differentiated: "
        "Tile's gradient needs a tensor whose rank is known"
    )


def test_control_flow_that_captures_a_source_is_not_taken_for_unconnected() -> None:
    graph, b = new_graph()
    x, c = b.input("x", FLOAT64, (2,)), b.input("c", BOOL, ())
    branches = []
    for name in ("then", "else"):
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name=name)
        inner_builder = GraphBuilder(inner)
        inner.outputs.append(inner_builder.op("Exp" if name == "then" else "Sin", x))
        branches.append(inner)
    y = b.op("If", c, then_branch=branches[0], else_branch=branches[1])
    y.type, y.shape = x.type, x.shape
    (dx,) = differentiate(graph, [y], [x])
    point = np.asarray([0.25, -0.5])
    for condition, derivative in ((True, np.exp), (False, np.cos)):
        feeds = {"x": point, "c": np.asarray(condition)}
        assert dx is not None
        np.testing.assert_allclose(values(graph, [dx], **feeds)[0], derivative(point))
    # A source that the branches do not read is unconnected.
    other = b.input("other", FLOAT64, ())
    assert differentiate(graph, [y], [other]) == [None]


# Notes on nodes ----------------------------------------------------------------------------------


def test_backward_nodes_carry_the_place_of_their_forward_node() -> None:
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ("batch", 2))
    with b.origin(Provenance("net.py", 3, "first"), "forward"):
        y = b.op("Sin", x)
    with b.origin(Provenance("net.py", 7, "second"), "forward"):
        z = b.op("Add", b.op("Exp", y), b.op("Mul", y, 2.0))
    forward = set(graph)
    differentiate(graph, [z], [x])
    backward_nodes = [node for node in graph if node not in forward]
    assert len(backward_nodes) > 5
    assert {n.metadata_props["onnxtape.phase"] for n in backward_nodes} == {"backward"}
    places = {
        node.op_type: (
            node.metadata_props.get("onnxtape.source"),
            node.metadata_props.get("onnxtape.layer"),
        )
        for node in backward_nodes
    }
    assert places["Cos"] == ("net.py:3", "first")
    # The seed belongs to the target, the sum of y's two gradients to y.
    assert places["ConstantOfShape"] == ("net.py:7", "second")
    assert places["Add"] == ("net.py:3", "first")


def test_records_know_their_place() -> None:
    b = GraphBuilder(None)
    with b.origin(PLACE, "update"):
        y = b.op("LeakyRelu", b.declare("x", FLOAT64, (2,)), alpha=0.5)
    node = y.producer()
    assert node is not None
    record = record_of(node)
    assert record.provenance == Provenance("train.py", 12, "dense", "update")
    assert record.attribute("alpha") == 0.5
    assert record.title == "LeakyRelu (node 'LeakyRelu_1_node')"


# Records of a tape -------------------------------------------------------------------------------


def test_backward_follows_the_records_it_is_given() -> None:
    """A tape that did not record an operator does not see through it."""
    graph, b = new_graph()
    x = b.input("x", FLOAT64, ())
    y = b.op("Exp", x)
    z = b.op("Sin", y)
    records = {n.op_type: record_of(n) for n in graph}
    assert backward(b, [records["Sin"]], [z], [x]) == [None]
    (dx,) = backward(b, [records["Exp"], records["Sin"]], [z], [x])
    np.testing.assert_allclose(values(graph, [dx], x=0.5)[0], np.cos(np.exp(0.5)) * np.exp(0.5))


def test_lazy_gradients_are_made_only_where_wanted() -> None:
    graph, b = new_graph()
    x, w = b.input("x", FLOAT64, (4, 3)), b.input("w", FLOAT64, (3, 2))
    y = b.op("MatMul", x, w)
    before = len(list(graph))
    differentiate(graph, [y], [w], [b.input("g", FLOAT64, (4, 2))])
    assert len(list(graph)) == before + 1


# The registry ------------------------------------------------------------------------------------


def test_an_operator_gets_one_rule() -> None:
    def rule(b: Any, n: Record[Any], g: Any) -> list[Any]:
        return [g]

    for op_type in ("Exp", "Floor"):
        with pytest.raises(ValueError, match=f"{op_type} has a gradient rule already"):
            gradient(op_type)(rule)
        with pytest.raises(ValueError, match=f"{op_type} has a gradient rule already"):
            zero_gradient(op_type, because="it is tested")
    assert registry.lookup("Exp") is not None
    assert registry.lookup("Floor") is None
    assert registry.has_zero_gradient("Floor")


def test_a_rule_that_does_not_cover_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TABLE, "Det", registry.Gradient(lambda b, n, g: []))
    graph, b = new_graph()
    x = b.input("x", FLOAT64, (2, 2))
    with pytest.raises(GradientError, match="cannot be differentiated: its rule does not cover"):
        differentiate(graph, [b.op("Det", x)], [x])


def test_float32_masks_are_differentiable_again() -> None:
    """d2/dx2 of relu(x)^3 is 6 relu(x): nothing comes from the mask itself."""
    graph, b = new_graph()
    x = b.input("x", FLOAT32, (4,))
    y = b.op("Pow", b.op("Relu", x), b.constant(np.float32(3)))
    (dx,) = differentiate(graph, [y], [x])
    assert dx is not None
    (d2x,) = differentiate(graph, [dx], [x])
    point = np.asarray([-1.5, 0.0, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(values(graph, [d2x], x=point)[0], [0, 0, 3, 12])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_mean_of_many_small_floats(dtype: Any) -> None:
    """The number of elements of a batch need not be in float16's range; the mean's count is."""
    graph, b = new_graph()
    x = b.input("x", np.dtype(dtype), ("batch", 512))
    (dx,) = differentiate(graph, [b.op("ReduceMean", x, [1], keepdims=0)], [x])
    gradient_of_mean = values(graph, [dx], x=np.ones((256, 512), dtype))[0]
    np.testing.assert_allclose(gradient_of_mean, 1 / 512, rtol=1e-3)


# At random ---------------------------------------------------------------------------------------

SHAPES: list[tuple[Any, ...]] = [("batch", 3), ("batch", 1), ("m", 3), (3,), (1, 3), ()]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.sampled_from(SHAPES), min_size=2, max_size=3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["Add", "Sub", "Mul", "Sum", "Tanh", "Sin", "ReduceMean", "Softmax"]),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        min_size=2,
        max_size=8,
    ),
    sizes=st.sampled_from([(4, 4), (4, 1), (1, 4), (1, 1)]),
)
def test_random_compositions(
    shapes: list[tuple[Any, ...]], steps: list[tuple[str, int, int]], sizes: tuple[int, int]
) -> None:
    """Values of shapes that may broadcast, each used any number of times, in any order."""
    graph, b = new_graph()
    sources = [b.input(f"x{i}", FLOAT64, shape) for i, shape in enumerate(shapes)]
    found = list(sources)
    for op_type, i, j in steps:
        x, y = found[i % len(found)], found[j % len(found)]
        if op_type in ("Add", "Sub", "Mul"):
            found.append(b.op(op_type, x, y))
        elif op_type == "Sum":
            found.append(b.op(op_type, x, y, x))
        elif op_type in ("ReduceMean", "Softmax"):
            axis = {"ReduceMean": ([-1],), "Softmax": ()}[op_type]
            found.append(b.op(op_type, x, *axis) if b.rank(x) else b.op("Exp", x))
        else:
            found.append(b.op(op_type, x))
    loss = b.op("ReduceSum", b.op("Mul", found[-1], found[-2]), keepdims=0)
    gradients = differentiate(graph, [loss], sources)
    named = dict(zip(("batch", "m"), sizes, strict=True))
    feeds = {
        f"x{i}": spread([named.get(d, d) for d in shape], -0.9, 1.1, seed=i)
        for i, shape in enumerate(shapes)
    }
    evaluator = Evaluator(graph, [loss])
    everything = evaluator.all_values(feeds)
    check_shapes(graph, everything)
    rng = np.random.default_rng(0)
    for source, derivative in zip(sources, gradients, strict=True):
        name = source.name or ""
        analytic = np.zeros(feeds[name].shape)
        if derivative is not None:
            analytic = everything[derivative.name or ""]
            assert analytic.shape == feeds[name].shape
        direction = rng.uniform(-1, 1, feeds[name].shape)
        ends = [evaluator({**feeds, name: feeds[name] + s * direction})[0] for s in (1e-5, -1e-5)]
        numeric = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((analytic * direction).sum(), numeric, rtol=1e-6, atol=1e-6)
