"""load_onnx: If, Loop and Scan, against ONNX Runtime and its differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from tests.frontend.onnx_texts import X, check_outputs_and_gradients, parsed, run

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
net (double[n,4] x) => (double[n,4] y, double[k,n,4] all) {
    go = Constant <value = bool {1}> ()
    most = Constant <value = double {30.0}> ()
    steps = Constant <value = int64 {99}> ()
    y, all = Loop (steps, go, x) <
        body = step (int64 i, bool before, double[n,4] h) => (bool after, double[n,4] next,
                double[n,4] doubled) {
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


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name: str, tmp_path: Path) -> None:
    text, calls = CASES[name]
    check_outputs_and_gradients(parsed(text), calls, tmp_path)


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


@pytest.mark.parametrize("reduction", ["sum", "mean", "max", "min", "prod", "logsumexp"])
def test_all_of_a_result_whose_rank_only_run_time_tells_is_reduced(reduction: str) -> None:
    """An If that gives a matrix or a number."""
    model = ot.load_onnx(
        parsed(
            """<ir_version: 8, opset_import: ["": 17]>
            net (double[n,4] x, bool c) => (double y) {
                h = MatMul(x, w)
                y = If (c) <
                    then_branch = yes () => (double t) { t = ReduceSum <keepdims = 0> (h) },
                    else_branch = no () => (double[n,4] e) { e = Add(h, b) }
                >
            }"""
        )
    )

    def gradients(x: Any, c: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = getattr(ot.ops, reduction)(model(x, c) / 4.0)
        return tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    compiled = ot.function(gradients, fallback="error")
    for condition in (True, False):
        c = np.array(condition)
        for got, expected in zip(compiled(X, c), gradients(X, c), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
