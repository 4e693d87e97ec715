"""The judge of `test_node_gradients.py` sees what is wrong, and says where it looked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxtape.compiler import Builder, Record, registry
from tests.conformance.differences import FLOAT64, NotSmooth, derivatives
from tests.conformance.node_cases import NodeCase, Unfit, brought, node_cases
from tests.conformance.node_tests import Status, judge

B = Builder[Any]
N = Record[Any]


def case(name: str) -> NodeCase:
    return next(c for cases in node_cases().values() for c in cases if c.name == name)


def with_rule(patch: pytest.MonkeyPatch, op_type: str, rule: Callable[..., Any]) -> None:
    entry = registry.lookup(op_type)
    assert entry is not None
    patch.setitem(registry._TABLE, op_type, replace(entry, rule=rule))


@pytest.mark.parametrize(
    ("name", "rule", "complaint"),
    [
        ("test_sigmoid", lambda b, n, g: [None], "by 'x': None, numerically"),
        ("test_sigmoid", lambda b, n, g: [b.full_like(g, 0.0)], "by 'x': 0, numerically"),
        ("test_sigmoid", lambda b, n, g: [b.op("ReduceSum", g)], "has shape (1, 1, 1), not"),
        ("test_sigmoid", lambda b, n, g: [b.op("Log", b.op("Neg", n.outputs[0]))], "not finite"),
        ("test_sigmoid", lambda b, n, g: [1 / 0], "differentiate fails: ZeroDivisionError"),
        ("test_mul_bcast", lambda b, n, g: [b.op("Mul", g, n.inputs[1]), g], "by 'y':"),
    ],
)
def test_a_wrong_rule_is_seen(
    name: str, rule: Callable[..., Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judge(case(name)).status is Status.AGREES
    with_rule(monkeypatch, case(name).operator, rule)
    verdict = judge(case(name))
    assert verdict.status is Status.WRONG
    assert complaint in verdict.detail


def test_a_gradient_that_is_wrong_in_one_element_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(b: B, n: N, g: Any) -> list[Any]:
        once = np.ones(n.outputs[0].shape.numpy())
        once.flat[7] = 1.001
        return [b.op("Mul", g, b.op("Mul", b.op("Cos", n.required(0)), once))]

    with_rule(monkeypatch, "Sin", rule)
    assert judge(case("test_sin")).status is Status.WRONG


def test_refusals_are_told_apart_from_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(b: B, n: N, g: Any) -> list[Any]:
        raise registry.Refusal("not today")

    def second_input(b: B, n: N, g: Any) -> list[Any]:
        return [b.op("Mul", g, n.inputs[1])]

    with_rule(monkeypatch, "Mul", all_of_it)
    verdict = judge(case("test_mul"))
    assert verdict.status is Status.REFUSED
    assert "not today" in verdict.detail
    with_rule(monkeypatch, "Mul", second_input)
    verdict = judge(case("test_mul"))
    assert verdict.status is Status.AGREES
    assert verdict.refused.keys() == {"y"}


def test_data_at_a_kink_is_moved() -> None:
    at_zero = replace(case("test_relu"), inputs={"x": np.zeros(5)}, outputs={"y": np.zeros(5)})
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [5]) for n in "xy"]
    graph = helper.make_graph([node], "relu", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    verdict = judge(replace(at_zero, model=model))
    assert verdict.status is Status.AGREES
    assert verdict.moved
    assert not judge(case("test_relu")).moved


@pytest.mark.parametrize(
    ("function", "x", "complaint"),
    [
        (lambda x: np.abs(np.sin(1e6 * x)), 0.0, "not smooth"),
        (lambda x: np.sign(np.sin(1e9 * x)), 0.3, "not smooth"),
        (lambda x: np.where(x == 0.5, x, np.nan), 0.5, "not defined around"),
        (lambda x: np.zeros(int(1e9 * x[0]) % 7), 0.5, "depends on the values"),
    ],
)
def test_nothing_is_compared_where_nothing_can_be(
    function: Callable[..., Any], x: float, complaint: str
) -> None:
    with pytest.raises(NotSmooth, match=complaint):
        derivatives(
            lambda feeds: {"y": np.asarray(function(feeds["x"]))},
            {"x": np.full(3, x)},
            ["x"],
            ["y"],
            FLOAT64,
            seed=0,
        )


def test_points_outside_of_the_domain_count_as_not_smooth() -> None:
    """A random operator at probabilities: its values change, and it refuses a point above 1."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        with pytest.raises(NotSmooth):
            derivatives(
                lambda feeds: {"y": rng.binomial(1, feeds["p"]).astype(float)},
                {"p": np.linspace(0.1, 0.99, 9)},
                ["p"],
                ["y"],
                FLOAT64,
                seed=0,
            )
    with pytest.raises(ValueError, match="p > 1"):
        derivatives(
            lambda feeds: {"y": rng.binomial(1, feeds["p"])},
            {"p": np.full(3, 2.0)},
            ["p"],
            ["y"],
            FLOAT64,
            seed=0,
        )


def test_models_are_brought_to_float64_and_to_opsets_that_onnx_runtime_has() -> None:
    for name, opset in [("test_relu", 21), ("test_einsum_sum", 26), ("test_swish", 24)]:
        model = brought(case(name).model, TensorProto.DOUBLE)
        assert [o.version for o in model.opset_import] == [opset]
        assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE
        onnx.checker.check_model(model, full_check=True)
    with pytest.raises(Unfit, match="opset 26 has no SwiGLU"):
        brought(case("test_swiglu").model, TensorProto.DOUBLE)
    with pytest.raises(Unfit, match=r"domain ai\.onnx\.preview"):
        brought(case("test_adam").model, TensorProto.DOUBLE)
