"""`model.save_onnx`, `model.export` and `train_function.export`: ways out for a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

import onnxtape as ot
from onnxtape.runtime import EvaluationSession, TrainingSession

L = ot.layers


def images(size: int) -> Any:
    return np.random.default_rng(size).normal(size=(size, 6, 6, 1)).astype("float32")


def fitted() -> Any:
    model = ot.Sequential(
        [
            ot.Input((6, 6, 1), name="image"),
            L.Conv2D(4, 3, activation="relu"),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(3),
        ]
    )
    loss = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(images(8), np.arange(8) % 3, batch_size=4, verbose=0)
    return model


def run(path: Path, **inputs: Any) -> list[Any]:
    """By ONNX's own evaluator, which knows the default domain alone."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}
    return list(onnx.reference.ReferenceEvaluator(model).run(None, inputs))


def test_a_fitted_model_is_one_plain_file(tmp_path: Path) -> None:
    model = fitted()
    path = model.save_onnx(tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for variable in model.weights:
        np.testing.assert_array_equal(weights[variable.path], variable.numpy())
    (x,) = graph.input
    assert (x.name, x.type.tensor_type.shape.dim[0].dim_param) == ("image", "batch")
    for size in (1, 5):
        (found,) = run(path, image=images(size))
        np.testing.assert_allclose(found, model.predict(images(size), verbose=0), atol=1e-5)


class Pair(ot.Model):
    def __init__(self) -> None:
        super().__init__(name="pair")
        self.left, self.right = L.Dense(2), L.Dense(2)

    def call(self, a: Any, b: Any) -> Any:
        return {"sum": self.left(a) + self.right(b), "left": self.left(a)}


@pytest.mark.parametrize("by_example", [False, True])
def test_a_signature_has_an_entry_for_each_argument(by_example: bool, tmp_path: Path) -> None:
    model = Pair()
    a, b = np.ones((4, 3), "float32"), np.ones((4, 5), "float32")
    expected = model(a, b)
    signature = [a.astype(float), b] if by_example else [ot.TensorSpec((None, s)) for s in (3, 5)]
    path = model.save_onnx(tmp_path / "pair.onnx", signature)
    total, left = run(path, input_0=a[:2], input_1=b[:2])
    np.testing.assert_allclose(left, expected["left"].numpy()[:2], rtol=1e-6)
    np.testing.assert_allclose(total, expected["sum"].numpy()[:2], rtol=1e-6)


def test_export_is_save_onnx_by_another_name(tmp_path: Path) -> None:
    model = fitted()
    model.export(tmp_path / "a.onnx", format="onnx")
    (found,) = run(tmp_path / "a.onnx", image=images(3))
    np.testing.assert_array_equal(found, run(model.save_onnx(tmp_path / "b"), image=images(3))[0])
    with pytest.raises(ValueError, match="exported with format='onnx', not 'tf_saved_model'"):
        model.export(tmp_path / "c", format="tf_saved_model")


def _given(path: Path) -> list[tuple[str, int, list[Any]]]:
    """Names, dtypes and shapes of what a graph takes."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in onnx.load(path).graph.input
    ]


def test_a_sequential_without_input_takes_what_it_was_called_on(tmp_path: Path) -> None:
    model = ot.Sequential([L.Embedding(10, 4), L.LSTM(3), L.Dense(1)])
    model(np.ones((2, 7), np.int32))
    ((name, dtype, shape),) = _given(model.save_onnx(tmp_path / "one.onnx"))
    assert (dtype, shape) == (onnx.TensorProto.INT32, ["batch", 7])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 5), np.int32), np.ones((4, 1), np.float32), verbose=0)
    path = model.save_onnx(tmp_path / "two.onnx")
    assert _given(path) == [(name, onnx.TensorProto.INT32, ["batch", f"{name}_1"])]
    tokens = np.arange(9, dtype=np.int32)[None]
    (found,) = run(path, **{name: tokens})
    np.testing.assert_allclose(found, model.predict(tokens, verbose=0), rtol=1e-5)
    again = ot.Sequential.from_config(model.get_config())
    assert again.input_shape == (None, None)
    assert again.input_specs.dtype == np.int32


def test_what_a_sequential_was_built_for_stays_free(tmp_path: Path) -> None:
    model = ot.Sequential([L.GRU(3)])
    model.build((None, None, 2))
    model(np.ones((1, 5, 2), np.float32))
    ((_, _, shape),) = _given(model.save_onnx(tmp_path / "model.onnx"))
    assert shape[0] == "batch"
    assert isinstance(shape[1], str)
    assert shape[2] == 2


def test_a_model_of_several_arguments_takes_them_all(tmp_path: Path) -> None:
    class Sum(ot.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: Any, more: Any, factor: float = 1.0, *, last: Any) -> Any:
            return self.dense(x) + factor * more + last

    model, x, more = Sum(), np.ones((3, 4), np.float32), np.ones((3, 2), np.float32)
    expected = model(x, more, 2.0, last=more[:1])
    path = model.save_onnx(tmp_path / "model.onnx")
    (found,) = run(path, input_0=x, input_1=more, input_2=more[:1])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("way", ["save_onnx", "artifact"])
def test_what_is_loaded_again_trains_what_the_model_trained(way: str, tmp_path: Path) -> None:
    """Statistics are no parameters, though nothing in the graph tells them apart."""
    model = fitted()
    path = tmp_path / "model.onnx"
    if way == "save_onnx":
        model.save_onnx(path)
    else:
        folder = model.train_function.export(tmp_path / "artifact", model=model)
        TrainingSession(folder).export_inference(path)
    loaded = ot.load_onnx(path)
    names = {v.path for v in model.trainable_weights}
    assert {v.path for v in loaded.trainable_weights} == names
    assert len(names) == 6
    loaded.trainable = False
    loaded.trainable = True
    assert {v.path for v in loaded.trainable_weights} == names


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model 'pair' has no weights yet: call it on data"):
        Pair().save_onnx(tmp_path / "pair.onnx")


def test_a_model_that_changes_itself_is_refused(tmp_path: Path) -> None:
    model = ot.Sequential([ot.Input(batch_shape=(2, 3, 1)), L.GRU(2, stateful=True)])
    with pytest.raises(ValueError, match="an ONNX file keeps no state between runs: export a step"):
        model.save_onnx(tmp_path / "gru.onnx")


def test_a_model_from_a_file_takes_no_signature(tmp_path: Path) -> None:
    path = fitted().save_onnx(tmp_path / "model.onnx")
    again = ot.load_onnx(path)
    np.testing.assert_array_equal(
        run(again.save_onnx(tmp_path / "again.onnx"), image=images(2))[0],
        run(path, image=images(2))[0],
    )
    with pytest.raises(ValueError, match=r"'model.onnx' says what its inputs are"):
        again.save_onnx(tmp_path / "again.onnx", images(1))


def test_the_functions_of_fit_are_exported(tmp_path: Path) -> None:
    model = fitted()
    x, y = images(4), np.arange(4) % 3
    model.evaluate(x, y, verbose=0)
    path = model.train_function.export(
        tmp_path / "artifact", model=model, evaluation=model.test_function
    )
    inputs = {v.name for v in onnx.load(path / "inference.onnx").graph.input}
    assert inputs == {"image", *(v.path for v in model.weights)}
    session, evaluation = TrainingSession(path), EvaluationSession(path)
    session.step(x=x, y=y)
    model.train_on_batch(x, y)
    session.export_inference(tmp_path / "trained.onnx")
    (found,) = run(tmp_path / "trained.onnx", image=x)
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-4)
    evaluation.start(session.state_dict())
    model.reset_metrics()
    assert set(evaluation.step(x=x, y=y)) == set(model.evaluate(x, y, verbose=0, return_dict=True))


def test_what_was_never_run_is_not_exported(tmp_path: Path) -> None:
    model = ot.Sequential([L.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="train_step has not been compiled yet: fit"):
        model.train_function.export(tmp_path / "artifact")
