"""load_onnx: If, Loop and Scan, against ONNX Runtime and its differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser

import onnxtape as ot
from onnxtape.errors import ModelError

ops = ot.ops
RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 4))
WEIGHTS = {"w": RNG.normal(size=(4, 4)) * 0.5, "b": RNG.normal(size=4)}

BRANCHES = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, bool c) => (double[n,4] y) {
    h = MatMul(x, w)
    y = If (c) <
        then_branch = yes () => (double[n,4] t) <double[4] shift = {0.5, -1.0, 2.0, 0.25}> {
            u = Add(h, shift)
            t = Tanh(u)
        },
        else_branch = no () => (double[n,4] e) <double[4] shift = {1.5, 2.0, -3.0, 0.75}> {
            s = ReduceSum(h)
            zero = Constant <value = double {0.0}> ()
            large = Greater(s, zero)
            e = If (large) <
                then_branch = more () => (double[n,4] m) { m = Mul(h, b) },
                else_branch = less () => (double[n,4] l) { v = Mul(h, shift)  l = Add(v, x) }
            >
        }
    >
}
"""

REPEATED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 count) => (double[n,4] last, double[k,n,4] all) {
    go = Constant <value = bool {1}> ()
    last, all = Loop (count, go, x) <
        body = step (int64 i, bool before, double[n,4] h) => (bool after, double[n,4] next,
                double[n,4] kept) {
            after = Identity(before)
            gain = Constant <value_floats = [1.0, 0.5, 1.5, 2.0]> ()
            scale = Cast <to = 11> (gain)
            p = MatMul(h, w)
            q = Add(p, b)
            r = Mul(q, scale)
            next = Tanh(r)
            kept = Mul(next, next)
        }
    >
}
"""

WHILE = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x) => (double[n,4] y) {
    go = Constant <value = bool {1}> ()
    most = Constant <value = double {30.0}> ()
    y = Loop ("", go, x) <
        body = step (int64 i, bool before, double[n,4] h) => (bool after, double[n,4] next) {
            doubled = Add(h, h)
            moved = Add(doubled, b)
            next = MatMul(moved, w)
            size = ReduceL1 <keepdims = 0> (next)
            after = Less(size, most)
        }
    >
}
"""

SCANNED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x) => (double[4] last, double[n,4] front, double[4,n] back) {
    zero = Constant <value = double[4] {0.0, 0.0, 0.0, 0.0}> ()
    turned = Transpose <perm = [1, 0]> (x)
    last, front, back = Scan <
        num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
        scan_output_axes = [0, -1], scan_output_directions = [1, 0],
        body = step (double[4] h, double[4] a, double[4] z) => (double[4] next, double[4] f,
                double[4] g) {
            p = MatMul(h, w)
            q = Add(p, a)
            next = Tanh(q)
            f = Mul(next, b)
            g = Mul(z, next)
        }
    > (zero, x, turned)
}
"""

NESTED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 count) => (double[n,4] y) {
    zero = Constant <value = double[4] {0.0, 0.0, 0.0, 0.0}> ()
    last, y = Scan <
        num_scan_inputs = 1,
        body = outer (double[4] h, double[4] a) => (double[4] next, double[4] out) {
            start = Add(h, a)
            next = Loop (count, "", start) <
                body = inner (int64 i, bool before, double[4] v) => (bool after, double[4] more) {
                    after = Identity(before)
                    p = MatMul(v, w)
                    q = Add(p, a)
                    more = Tanh(q)
                }
            >
            out = Mul(next, b)
        }
    > (zero, x)
}
"""

# A body's names are its own: they may be those of values around it, and of another body.
TWICE = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 count) => (double[n,4] y) {
    h = Loop (count, "", x) <
        body = step (int64 i, bool before, double[n,4] h) => (bool after, double[n,4] next) {
            after = Identity(before)
            p = MatMul(h, w)
            next = Tanh(p)
        }
    >
    y = Loop (count, "", h) <
        body = step (int64 i, bool before, double[n,4] h) => (bool after, double[n,4] next) {
            after = Identity(before)
            p = Add(h, b)
            next = Sigmoid(p)
        }
    >
}
"""

CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "if": (
        BRANCHES,
        [{"c": np.array(True)}, {"c": np.array(False)}, {"c": np.array(False), "x": -X}],
    ),
    "loop": (REPEATED, [{"count": np.array(3)}, {"count": np.array(1), "x": X[:2]}]),
    "while": (WHILE, [{}, {"x": X[:1] / 8}]),
    "scan": (SCANNED, [{}, {"x": X[:2]}]),
    "twice": (TWICE, [{"count": np.array(2)}]),
    "nested": (NESTED, [{"count": np.array(2)}]),
}


def parsed(text: str) -> onnx.ModelProto:
    model = parser.parse_model(text)
    used = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    for name, array in WEIGHTS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def run(model: onnx.ModelProto | Path, feeds: dict[str, Any]) -> list[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return list(ort.InferenceSession(source).run(None, feeds))


def projected(outputs: Any) -> list[Any]:
    rng = np.random.default_rng(8)
    return [rng.normal(size=np.shape(y)) for y in outputs]


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name: str, tmp_path: Path) -> None:
    """Eagerly and compiled; gradients along a random direction of each weight."""
    text, calls = CASES[name]
    proto = parsed(text)
    model = ot.load_onnx(proto)

    def gradients(feeds: Any, seeds: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(feeds)
            outputs = list(y) if isinstance(y, tuple) else [y]
            loss = sum(ops.sum(o * s) for o, s in zip(outputs, seeds, strict=True))
        return outputs, tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    compiled = ot.function(gradients, fallback="error")
    for call in calls:
        feeds = {"x": X, **call}
        expected = run(proto, feeds)
        seeds = [np.random.default_rng(8).normal(size=np.shape(y)) for y in expected]

        def loss(feeds: Any = feeds, seeds: Any = seeds) -> float:
            made = run(model.save_onnx(tmp_path / "net.onnx"), feeds)
            return sum(float((y * s).sum()) for y, s in zip(made, seeds, strict=True))

        slopes = []
        for variable in model.trainable_variables:
            value, direction, sides = variable.numpy(), direction_of(variable), []
            step = 1e-5 if value.dtype == np.float64 else 1e-3
            for shift in (step, -step):
                variable.assign(value + shift * direction)
                sides.append(loss())
            variable.assign(value)
            slopes.append((sides[0] - sides[1]) / (2 * step))
        for way in (gradients, compiled):
            outputs, found = way(feeds, seeds)
            for y, e in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(y, e, rtol=1e-10)
            directions = map(direction_of, model.trainable_variables)
            along = [
                float((np.asarray(g) * d).sum()) for g, d in zip(found, directions, strict=True)
            ]
            np.testing.assert_allclose(along, slopes, rtol=3e-4, atol=1e-6)


def direction_of(variable: Any) -> Any:
    return np.random.default_rng(5).normal(size=variable.shape)


def test_tensors_in_subgraphs_are_weights() -> None:
    """Those that have one name in two subgraphs are told apart."""
    model = ot.load_onnx(parsed(BRANCHES))
    assert model.weight_names == ["w", "b", "shift", "shift.2"]
    assert ot.load_onnx(parsed(REPEATED)).weight_names == ["w", "b", "gain"]


def test_a_condition_that_is_known_leaves_no_if() -> None:
    model = ot.load_onnx(parsed(BRANCHES))
    step = ot.function(lambda x: model(x, np.array(True)), fallback="error")
    ops_used = {n.op_type for n in step.get_concrete_function(X).model.graph.node}
    assert "Tanh" in ops_used
    assert "If" not in ops_used


def test_no_iterations() -> None:
    proto = parsed(REPEATED)
    model = ot.load_onnx(proto)
    feeds = {"x": X, "count": np.array(0)}
    for step in (model, ot.function(model, fallback="error")):
        last, rows = step(feeds)
        np.testing.assert_array_equal(last, X)
        assert np.asarray(rows).shape[0] == 0


GROWING = """
<ir_version: 8, opset_import: ["": 17]>
net (float[n,4] x, int64 count) => (float[m,4] y) {
    go = Constant <value = bool {1}> ()
    y = Loop (count, go, x) <
        body = step (int64 i, bool before, float[k,4] h) => (bool after, float[l,4] next) {
            after = Identity(before)
            next = Concat <axis = 0> (h, x)
        }
    >
}
"""


def test_a_state_may_change_its_shape() -> None:
    proto = parsed(GROWING)
    model = ot.load_onnx(proto)
    feeds = {"x": X.astype("f"), "count": np.array(3)}
    (expected,) = run(proto, feeds)
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_array_equal(step(feeds), expected)


COLLECTED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64 given) => (double[n,p] y) {
    go = Constant <value = bool {1}> ()
    COUNT
    empty = SequenceEmpty <dtype = 11> ()
    h, parts = Loop (count, go, x, empty) <
        body = step (int64 i, bool before, double[n,4] a, seq(double[n,4]) s) => (bool after,
                double[n,4] next, seq(double[n,4]) t) {
            after = Identity(before)
            next = MatMul(a, w)
            t = SequenceInsert(s, next)
        }
    >
    y = ConcatFromSequence <axis = 1> (parts)
}
"""


def test_sequences_that_a_loop_collects() -> None:
    """As TorchScript writes a list that grows; where the number of iterations is a constant."""
    proto = parsed(COLLECTED.replace("COUNT", "count = Constant <value = int64 {3}> ()"))
    model = ot.load_onnx(proto)
    feeds = {"x": X, "given": np.array(3)}
    (expected,) = run(proto, feeds)
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_allclose(step(feeds), expected)
    with ot.GradientTape() as tape:
        loss = ops.sum(model(feeds))
    assert tape.gradient(loss, model.trainable_variables)[0] is not None
    open_count = ot.load_onnx(parsed(COLLECTED.replace("COUNT", "count = Identity(given)")))
    np.testing.assert_allclose(open_count(feeds), expected)
    with pytest.raises(ModelError, match=r"Loop .*carries a sequence through a number of iterat"):
        ot.function(open_count, fallback="error")(feeds)


WHILE_IT_COLLECTS = """
<ir_version: 8, opset_import: ["": 18]>
net (double[n,4] x) => (double[m,4] y) {
    go = Constant <value = bool {1}> ()
    first = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    sizes = Shape (x)
    rows = Gather (sizes, first)
    empty = SequenceEmpty <dtype = 11> ()
    last, parts = Loop ("", go, first, empty) <
        body = step (int64 i, bool before, int64 k, seq(double[1,4]) s) => (bool after,
                int64 next, seq(double[1,4]) t) {
            next = Add(k, one)
            from = Unsqueeze(k, first_axis)
            to = Unsqueeze(next, first_axis)
            row = Slice(x, from, to)
            odd = Mod(next, two)
            even = Equal(odd, first)
            made = If (even) <
                then_branch = yes () => (double[1,4] a) { a = MatMul(row, w) },
                else_branch = no () => (double[1,4] c) { c = Mul(row, b) }
            >
            t = SequenceInsert(s, made)
            after = Less(next, rows)
        }
    >
    y = ConcatFromSequence <axis = 0> (parts)
}
"""


def test_iterations_that_depend_on_a_size_that_is_known() -> None:
    """As PyTorch's exporter writes EmbeddingBag: numbers decide how long, and which branch."""
    proto = parsed(WHILE_IT_COLLECTS)
    for name, array in {"first_axis": np.int64([0]), "two": np.int64(2)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    model = ot.load_onnx(proto)

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
        return y, tape.gradient(y, model.trainable_variables)

    assert not {"If", "Loop"} & {n.op_type for n in step.get_concrete_function(X).model.graph.node}
    for x in (X, X[:3]):
        y, gradients = step(x)
        np.testing.assert_allclose(y, run(proto, {"x": x})[0])
        by_path = dict(zip([v.path for v in model.trainable_variables], gradients, strict=True))
        np.testing.assert_allclose(by_path["b"], x[::2].sum(0))
        np.testing.assert_allclose(by_path["w"], np.tile(x[1::2].sum(0)[:, None], 4))


def test_a_model_that_ends_behind_a_loop() -> None:
    proto = parsed(REPEATED)
    model = ot.load_onnx(proto)
    short = model.truncate("last")
    feeds = {"x": X, "count": np.array(2)}
    np.testing.assert_allclose(short(feeds), run(proto, feeds)[0])
    assert set(short.weight_names) == {"w", "b", "gain"}


def test_a_saved_model_has_its_subgraphs_weights(tmp_path: Path) -> None:
    proto = parsed(BRANCHES)
    model = ot.load_onnx(proto)
    changed = {v.path: v for v in model.trainable_variables}
    changed["shift.2"].assign(changed["shift.2"].numpy() * 3)
    feeds = {"x": X, "c": np.array(False)}
    path = model.save_onnx(tmp_path / "net.onnx")
    np.testing.assert_allclose(run(path, feeds)[0], model(feeds))
    assert not np.allclose(run(path, feeds)[0], run(proto, feeds)[0])


MAPPED = """
<ir_version: 8, opset_import: ["": 18]>
net (double[n,4] x) => (double[n,4] y) {
    three = Constant <value = int64[2] {1, 3}> ()
    parts = SplitToSequence <axis = 1> (x, three)
    turned = SequenceMap (parts, b) <
        body = each (double[n,k] part, double[4] shift) => (double[n,k] made) {
            total = ReduceSum (shift)
            made = Mul (part, total)
        }
    >
    maybe = Optional (turned)
    here = OptionalHasElement (maybe)
    y = If (here) <
        then_branch = some () => (double[n,4] t) {
            held = OptionalGetElement (maybe)
            t = ConcatFromSequence <axis = 1> (held)
        },
        else_branch = none () => (double[n,4] e) { e = Identity (x) }
    >
}
"""


def test_sequences_are_mapped_and_optionals_opened() -> None:
    model = ot.load_onnx(parsed(MAPPED))
    expected = X * WEIGHTS["b"].sum()
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_allclose(step(X), expected)
    with ot.GradientTape() as tape:
        loss = ops.sum(model(X))
    (gradient,) = tape.gradient(loss, model.trainable_variables)
    np.testing.assert_allclose(gradient, np.full(4, X.sum()))


DIVIDED = """
<ir_version: 8, opset_import: ["": 17]>
net (double[n,4] x, int64[2] sizes) => (double[n,4] y) {
    parts = SplitToSequence <axis = 0> (x, sizes)
    zero = Constant <value = int64 {0}> ()
    one = Constant <value = int64 {1}> ()
    first = SequenceAt (parts, zero)
    second = SequenceAt (parts, one)
    f = MatMul (first, w)
    s = Mul (second, b)
    y = Concat <axis = 0> (f, s)
}
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_pieces_whose_sizes_are_known_when_it_runs(compiled: bool) -> None:
    """As a mixture of experts divides its tokens."""
    proto = parsed(DIVIDED)
    model = ot.load_onnx(proto)

    def gradients(x: Any, sizes: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x, sizes)
            loss = ops.sum(y)
        return y, tape.gradient(loss, model.trainable_variables)

    step = ot.function(gradients, fallback="error") if compiled else gradients
    for first in (3, 1, 5):
        sizes = np.array([first, 5 - first])
        y, found = step(X, sizes)
        (expected,) = run(proto, {"x": X, "sizes": sizes})
        np.testing.assert_allclose(y, expected)
        by_name = dict(zip([v.path for v in model.trainable_variables], found, strict=True))
        ones = np.ones((first, 4))
        np.testing.assert_allclose(by_name["w"], X[:first].T @ ones)
        np.testing.assert_allclose(by_name["b"], X[first:].sum(0))
