"""from_keras without Keras: a stand-in for it whose exporter does what the real ones do."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot
from onnxtape.errors import ModelError
from onnxtape.interop import KerasModel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4)).astype("f")
SHAPES = {"net/a/kernel": (4, 5), "net/a/bias": (5,), "net/b/kernel": (5, 2), "net/b/bias": (2,)}


class Weight:
    def __init__(self, path: str, array: Any) -> None:
        self.path, self.value, self.shape = path, array, array.shape


class Model:
    """Two dense layers; `exporter` makes an ONNX model of their weights."""

    name = "net"

    def __init__(self, exporter: Callable[..., onnx.ModelProto], zeros: bool = False) -> None:
        self.weights = [
            Weight(path, np.zeros(shape, "f") if zeros else RNG.normal(size=shape).astype("f"))
            for path, shape in SHAPES.items()
        ]
        self.trainable_weights = self.weights
        self.inputs = [types.SimpleNamespace(shape=(None, 4), dtype="float32")]
        self._exporter = exporter

    def get_weights(self) -> list[Any]:
        return [weight.value for weight in self.weights]

    def set_weights(self, arrays: list[Any]) -> None:
        for weight, array in zip(self.weights, arrays, strict=True):
            weight.value = array

    def __call__(self, x: Any, training: bool = False) -> Any:
        w, b, v, c = self.get_weights()
        return np.maximum(x @ w + b, 0) @ v + c

    def export(self, path: str, format: str, verbose: bool) -> None:
        onnx.save(self._exporter(*self.get_weights()), path)


def exported(w: Any, b: Any, v: Any, c: Any, *, fold: bool = False) -> onnx.ModelProto:
    """With the first kernel transposed and its bias of rank 2; `fold` folds the second bias."""
    node = helper.make_node
    c, last = (c * 2, [node("Mul", ["c", "half"], ["d"])]) if fold else (c, [])
    graph = helper.make_graph(
        [
            node("Gemm", ["x", "w"], ["h"], transB=1),
            node("Add", ["h", "b"], ["i"]),
            node("Relu", ["i"], ["r"]),
            node("MatMul", ["r", "v"], ["m"]),
            *last,
            node("Add", ["m", "d" if fold else "c"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in (
                ("w", w.T), ("b", b[None]), ("v", v), ("c", c), ("half", np.float32(0.5))
            )
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module: Any = types.ModuleType("keras")
    module.Model = Model
    module.backend = types.SimpleNamespace(backend=lambda: "jax")
    module.ops = types.SimpleNamespace(convert_to_numpy=lambda x: x)
    module.tree = types.SimpleNamespace(flatten=lambda x: [x])
    monkeypatch.setitem(sys.modules, "keras", module)
    return module  # type: ignore[no-any-return]


@pytest.mark.parametrize("zeros", [False, True])
def test_weights_are_found_and_go_back(keras: Any, zeros: bool) -> None:
    """Equal ones too: which zero is which bias shows in an export with other weights."""
    theirs = Model(exported, zeros)
    weights = theirs.get_weights()
    model = ot.from_keras(theirs)
    assert isinstance(model, KerasModel)
    assert all(map(np.array_equal, weights, theirs.get_weights()))
    assert sorted(v.path for v in model.trainable_variables) == sorted(SHAPES)
    np.testing.assert_allclose(model(X), theirs(X), rtol=1e-5, atol=1e-6)
    for found, weight in zip(model.to_keras_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, weight)
    for variable in model.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape).astype("f"))
    theirs.set_weights(model.to_keras_weights())
    np.testing.assert_allclose(model(X), theirs(X), rtol=1e-4, atol=1e-5)


def test_what_is_folded_is_not_trained(keras: Any) -> None:
    theirs = Model(lambda *weights: exported(*weights, fold=True))
    with pytest.warns(UserWarning, match="net/b/bias of the Keras model 'net' cannot be found in"):
        model = ot.from_keras(theirs)
    assert [v.path for v in model.trainable_variables] == list(SHAPES)[:3]
    np.testing.assert_allclose(model(X), theirs(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.to_keras_weights()[3], theirs.get_weights()[3])
    chosen = ot.from_keras(theirs, trainable="net/b/*")
    assert [v.path for v in chosen.trainable_variables] == ["net/b/kernel"]


def test_an_exporter_whose_graph_depends_on_the_weights(keras: Any) -> None:
    """One that leaves out a bias of zeros: the other weights are found by their content."""

    def leaving_out(w: Any, b: Any, v: Any, c: Any) -> onnx.ModelProto:
        proto = exported(w, b, v, c, fold=c.any())
        if not c.any():
            proto.graph.node.pop()
            proto.graph.node[-1].output[0] = "y"
        return proto

    theirs = Model(leaving_out)
    theirs.weights[3].value = np.zeros(2, "f")
    with pytest.warns(UserWarning, match="net/b/bias"):
        model = ot.from_keras(theirs)
    assert [v.path for v in model.trainable_variables] == list(SHAPES)[:3]
    np.testing.assert_allclose(model(X), theirs(X), rtol=1e-5, atol=1e-6)


def test_what_goes_wrong(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"from_keras takes a keras.Model, not a int"):
        ot.from_keras(3)

    def wrong(w: Any, b: Any, v: Any, c: Any) -> onnx.ModelProto:
        return exported(w, b + 1, v, c)

    with pytest.raises(ModelError, match="of 'net' does not compute what Keras does"):
        ot.from_keras(Model(wrong))

    def twice(w: Any, b: Any, v: Any, c: Any) -> onnx.ModelProto:
        proto = exported(w, b, v, c)
        proto.graph.initializer.append(numpy_helper.from_array(c, "again"))
        return proto

    with pytest.raises(ModelError, match="has written the weight 'net/b/bias' of 'net' twice"):
        ot.from_keras(Model(twice))

    def failing(*weights: Any) -> onnx.ModelProto:
        raise RuntimeError("no\nway")

    with pytest.raises(ModelError, match=r"cannot export .* from its backend jax: no way"):
        ot.from_keras(Model(failing))

    def absent(*weights: Any) -> onnx.ModelProto:
        raise ImportError("no jax2onnx")

    with pytest.raises(ImportError, match="pip install jax2onnx flax dm_pix"):
        ot.from_keras(Model(absent))
    doubled = Model(exported)
    doubled.weights[1].path = doubled.weights[0].path
    with pytest.raises(ModelError, match="have the same path"):
        ot.from_keras(doubled)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="from_keras needs Keras 3: pip install keras"):
        ot.from_keras(Model(exported))
