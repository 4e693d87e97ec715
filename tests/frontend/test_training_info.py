"""ONNX's own form of training: written, read, and the operators of its preview domain."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import model as model_tests
from onnx.backend.test.case import node as node_tests

import onnxtape as ot
from onnxtape.errors import ModelError
from tests.frontend.training import CLASSES, FEATURES, Training, batches

DOMAIN = "ai.onnx.preview.training"
SPECS = (ot.TensorSpec((None, FEATURES)), ot.TensorSpec((None,), "int64"))
node = helper.make_node


def backend_tests() -> dict[str, Any]:
    """onnx's own, of the operators of the domain; making all others would take long."""
    for module in ("adagrad", "adam", "momentum"):
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return {
        case.name: case
        for case in (*node_tests._NodeTestCases, *model_tests.collect_testcases())
        if case.model is not None and any(n.domain == DOMAIN for n in case.model.graph.node)
    }


CASES = backend_tests()


@pytest.mark.parametrize("name", CASES)
def test_the_backend_tests_of_the_operators(name: str) -> None:
    case = CASES[name]
    info = ot.load_training_info(case.model)
    for inputs, outputs in case.data_sets:
        results = info.step(dict(zip(info.input_names, inputs, strict=True)))
        for found, expected in zip(results.values(), outputs, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    domains = {n.domain for n in info.step.get_concrete_function().model.graph.node}
    assert domains == {""}


def test_there_are_such_tests() -> None:
    assert len(CASES) >= 7
    operators = {n.op_type for c in CASES.values() for n in c.model.graph.node if n.domain}
    assert operators == {"Adagrad", "Adam", "Gradient", "Momentum"}


# Written and read again --------------------------------------------------------------------------


def test_a_step_goes_on_from_its_file(tmp_path: Path) -> None:
    """Adam, dropout and a metric: the same losses as the step itself."""
    data = batches(6)
    training = Training()
    training.restart_masks()
    training.run(data[:3])
    path = ot.export_training_info(
        training.step, tmp_path / "trained.onnx", *SPECS, model=training.model
    )
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert all(n.domain == "" for n in model.training_info[0].algorithm.node)

    x = data[0][0]
    (found,) = onnxruntime.InferenceSession(path).run(None, {model.graph.input[0].name: x})
    np.testing.assert_allclose(found, training.model(x, training=False), rtol=1e-5, atol=1e-6)

    info = ot.load_training_info(path)
    assert found.shape[1] == CLASSES
    assert set(info.input_names) == {"x", "y"}
    for x, y in data[3:]:
        results, expected = info.step({"x": x, "y": y}), training.step(x, y)
        assert list(results) == list(expected)
        for name in expected:
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-5)
    for variable in training.model.trainable_variables:
        np.testing.assert_allclose(
            info.variables[variable.path].numpy(), variable.numpy(), rtol=1e-4, atol=1e-6
        )


# Written by somebody else ------------------------------------------------------------------------


def linear_regression(**changes: Any) -> onnx.ModelProto:
    """y = x w; an algorithm with Gradient and Momentum, an initialization, opset 17."""
    info = helper.make_tensor_value_info
    main = helper.make_graph(
        [node("MatMul", ["x", "w"], ["y"])],
        "inference",
        [info("x", TensorProto.FLOAT, ["n", 3])],
        [info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.ones((3, 1), "f"), "w")],
    )
    algorithm = helper.make_graph(
        [
            node("Sub", ["y", "t"], ["e"]),
            node("Mul", ["e", "e"], ["e2"]),
            node("ReduceMean", ["e2"], ["loss"], keepdims=0),
            node(
                "Gradient", ["w", "x", "t"], ["g"], domain=DOMAIN,
                xs=["w"], zs=["x", "t"], y="loss",
            ),
            node(
                "Momentum", ["rate", "count", "w", "g", "v"], ["w_new", "v_new"], domain=DOMAIN,
                alpha=0.9, beta=0.5, mode="standard", norm_coefficient=0.01,
            ),
            node("Add", ["count", "one"], ["count_new"]),
        ],
        "algorithm",
        [info("t", TensorProto.FLOAT, ["n", 1])],
        [info(n, TensorProto.FLOAT, None) for n in ("loss", "w_new", "v_new")]
        + [info("count_new", TensorProto.INT64, [])],
        [
            numpy_helper.from_array(array, name)
            for name, array in {
                "rate": np.float32(0.1), "one": np.int64(1), "count": np.int64(0),
                "v": np.zeros((3, 1), "f"),
            }.items()
        ],
    )  # fmt: skip
    initialization = helper.make_graph(
        [
            node(
                "ConstantOfShape",
                ["shape"],
                ["start"],
                value=numpy_helper.from_array(np.float32([2])),
            )
        ],
        "initialization",
        [],
        [info("start", TensorProto.FLOAT, [3, 1])],
        [numpy_helper.from_array(np.int64([3, 1]), "shape")],
    )
    model = helper.make_model(
        main,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)],
        ir_version=8,
    )
    added = model.training_info.add(algorithm=algorithm, initialization=initialization)
    bindings = {"w": "w_new", "v": "v_new", "count": "count_new", **changes}
    for key, value in bindings.items():
        added.update_binding.add(key=key, value=value)
    added.initialization_binding.add(key="w", value="start")
    return model


def test_an_algorithm_of_preview_operators_is_that_of_the_formulas() -> None:
    info = ot.load_training_info(linear_regression().SerializeToString())
    info.initialize()
    w, v = np.full((3, 1), 2.0), np.zeros((3, 1))
    random = np.random.default_rng(0)
    assert info.output_names == ["loss"]
    for count in range(4):
        x, t = random.normal(size=(5 + count, 3)), random.normal(size=(5 + count, 1))
        loss = info.step({"x": x.astype("f"), "t": t.astype("f")})["loss"]
        np.testing.assert_allclose(loss, np.mean((x @ w - t) ** 2), rtol=1e-5)
        g = 2 * x.T @ (x @ w - t) / len(x) + 0.01 * w
        v = 0.9 * v + (0.5 if count else 1.0) * g
        w = w - 0.1 * v
        np.testing.assert_allclose(info.variables["w"].numpy(), w, rtol=1e-4)
    assert info.variables["count"].numpy() == 4
    assert info.step.trace_count == 1


def test_a_loaded_step_becomes_an_artifact(tmp_path: Path) -> None:
    info = ot.load_training_info(linear_regression())
    session = ot.TrainingSession(info.step.export(tmp_path / "artifact"))
    assert {(e.name, e.role) for e in session.state} == {
        ("w", "parameter"),
        ("v", "optimizer"),
        ("count", "optimizer"),
    }
    x, t = np.ones((2, 3), "f"), np.zeros((2, 1), "f")
    for _ in range(2):
        found, expected = session.step(x=x, t=t), info.step({"x": x, "t": t})
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(session.state_dict()["w"], info.variables["w"].numpy(), rtol=1e-6)


def test_what_is_broken() -> None:
    with pytest.raises(ModelError, match="updates 'z', which is no initializer"):
        ot.load_training_info(linear_regression(z="w_new"))
    with pytest.raises(ModelError, match="holds 1 training_info, and none number 2"):
        ot.load_training_info(linear_regression(), 2)
    plain = linear_regression()
    del plain.training_info[:]
    with pytest.raises(ModelError, match=r"holds no training_info; ot.load_onnx makes a model"):
        ot.load_training_info(plain)
    cut = linear_regression()
    cut.training_info[0].algorithm.node[4].input[0] = "nowhere"
    with pytest.raises(ModelError, match="Momentum reads 'nowhere', which nothing makes"):
        ot.load_training_info(cut)
    unknown = linear_regression()
    unknown.training_info[0].algorithm.node[4].op_type = "Newton"
    with pytest.raises(ModelError, match="no operator Newton that is known here"):
        ot.load_training_info(unknown).step.get_concrete_function()
    lost = linear_regression()
    lost.training_info[0].initialization_binding[0].value = "nothing"
    with pytest.raises(ModelError, match="initializes 'w' with 'nothing', which it does not have"):
        ot.load_training_info(lost).initialize()
    with pytest.raises(
        ModelError, match=r"cannot read the ONNX model 'no.onnx': there is no such file"
    ):
        ot.load_training_info("no.onnx")
    with pytest.raises(ModelError, match="is not an ONNX model, or it has been cut off"):
        ot.load_training_info(b"nothing")
