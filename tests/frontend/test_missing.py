"""Names of Keras's that are not here say what to use instead."""

from __future__ import annotations

import operator

import pytest

import onnxtape as ot
from onnxtape import missing


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("applications", "ot.load_onnx"),
        ("backend", "ot.ops"),
        ("datasets", "nothing is downloaded"),
        ("remat", "it is ot.recompute"),
        ("Dense", "it is ot.layers.Dense"),
        ("Adam", "it is ot.optimizers.Adam"),
        ("reduce_total", ""),
        ("reduce_sum", "it is ot.ops.sum"),
        ("concat", "it is ot.ops.concatenate"),
        ("ones", "it is ot.ops.ones"),
        ("float32", "dtypes are written by name"),
        ("nn", "ot.ops, and ot.activations"),
        ("sequential", "did you mean 'Sequential'?"),
        ("callbacks.TensorBoard", "CSVLogger"),
        ("callbacks.EarlyStoping", "did you mean 'EarlyStopping'?"),
        ("layers.TextVectorization", "no tensors of strings"),
        ("layers.Conv2d", "did you mean 'Conv2D' or"),
        ("layers.InputLayer", "it is ot.Input"),
        ("utils.get_file", "nothing is downloaded"),
        ("utils.image_dataset_from_directory", "ot.data.Dataset"),
        ("ops.one_hott", "did you mean 'one_hot'?"),
        ("losses.MeanSquareError", "did you mean 'MeanSquaredError'"),
        ("initializers.GlorotUnifrom", "did you mean 'GlorotUniform'"),
        ("regularizers.serialize", "get_config"),
        ("random.nornal", "did you mean 'normal'"),
        ("data.Datasett", "did you mean 'Dataset'?"),
    ],
)
def test_what_to_use_instead(name: str, advice: str) -> None:
    module, _, last = name.rpartition(".")
    with pytest.raises(AttributeError) as refusal:
        operator.attrgetter(name)(ot)
    message = str(refusal.value)
    start = f"module 'onnxtape{'.' * bool(module)}{module}' has no attribute '{last}'"
    assert message.startswith(start)
    assert advice in message.removeprefix(start)
    if not advice:
        assert message == start


def test_advice_is_for_what_is_missing() -> None:
    for module, names in missing.ADVICE.items():
        holder = operator.attrgetter(module.removeprefix("onnxtape."))(ot) if "." in module else ot
        assert [name for name in names if hasattr(holder, name)] == []


def test_names_of_the_interpreter_are_asked_for_in_vain() -> None:
    assert not hasattr(ot, "__path_hooks__")
    assert not hasattr(ot.layers, "__wrapped__")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("Layer", "layers"),
        ("Loss", "losses"),
        ("Metric", "metrics"),
        ("Optimizer", "optimizers"),
        ("Initializer", "initializers"),
        ("Regularizer", "regularizers"),
    ],
)
def test_bases_are_at_the_top_as_in_keras(name: str, where: str) -> None:
    assert getattr(ot, name) is getattr(getattr(ot, where), name)


def test_saving_has_what_configurations_need() -> None:
    @ot.saving.register_keras_serializable("mine")
    class Twice(ot.Layer):
        def call(self, x: ot.Tensor) -> ot.Tensor:
            return x * 2.0

    layer = Twice(name="twice")
    config = ot.saving.serialize_keras_object(layer)
    again = ot.saving.deserialize_keras_object(config)
    assert type(again) is Twice
    assert ot.saving.get_custom_objects()["mine>Twice"] is Twice
    with ot.saving.custom_object_scope({"Other": Twice}):
        assert "Other" in ot.utils.get_custom_objects()
    del ot.saving.get_custom_objects()["mine>Twice"], ot.saving.get_custom_objects()["Twice"]


def test_names_begin_anew_after_clear_session() -> None:
    ot.utils.clear_session()
    first = [ot.layers.Dense(1).name for _ in range(2)]
    ot.utils.clear_session()
    assert first == ["dense", "dense_1"]
    assert ot.layers.Dense(1).name == "dense"


@pytest.mark.parametrize(
    ("given", "name"),
    [("float16", "float16"), (None, "float32"), (int, "int32"), ("int", "int32"), (bool, "bool")],
)
def test_standard_names_of_dtypes_are_those_of_keras(given: object, name: str) -> None:
    assert ot.utils.standardize_dtype(given) == name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("fit_generator", "fit takes generators"),
        ("run_eagerly", "compile has it"),
    ],
)
def test_what_models_do_not_have(name: str, advice: str) -> None:
    class Own(ot.Model):
        pass

    for owner in (Own, Own()):
        with pytest.raises(AttributeError, match=f"Own has no attribute '{name}': {advice}"):
            getattr(owner, name)
        assert not hasattr(owner, name)

    class Saving(ot.Model):
        def save(self) -> str:
            return "saved"

    assert Saving().save() == "saved"
    model = Own()
    setattr(model, name, 3)
    assert getattr(model, name) == 3
