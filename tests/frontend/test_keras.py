"""The programs of tests/reference/keras_cases.py give what Keras gives, name for name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import dtypes
from tests.reference import keras_cases

REFERENCE = Path(__file__).parent.parent / "reference" / "keras.npz"


@functools.cache
def reference() -> dict[str, Any]:
    with np.load(REFERENCE) as file:
        return dict(file)


def stored(program: str) -> dict[str, Any]:
    prefix = f"{program}/"
    return {k.removeprefix(prefix): v for k, v in reference().items() if k.startswith(prefix)}


@functools.cache
def made(program: str) -> Any:
    return getattr(keras_cases, program)(ot)


def check(program: str, name: str, rtol: float, atol: float) -> None:
    found, expected = made(program)[name], stored(program)[name]
    assert found.shape == expected.shape
    if expected.dtype.kind in "fc":
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("program", ["activations", "layers", "losses", "metrics", "optimizers",
                                     "models", "summaries"])  # fmt: skip
def test_every_stored_result_is_made(program: str) -> None:
    assert sorted(made(program)) == sorted(stored(program)) != []


@pytest.mark.parametrize("name", stored("activations"))
def test_activations(name: str) -> None:
    check("activations", name, 2e-6, 1e-6)


@pytest.mark.parametrize("name", stored("layers"))
def test_layers(name: str) -> None:
    check("layers", name, 2e-6, 1e-6)


@pytest.mark.parametrize("name", stored("losses"))
def test_losses(name: str) -> None:
    check("losses", name, 2e-6, 1e-6)


@pytest.mark.parametrize("name", stored("metrics"))
def test_metrics(name: str) -> None:
    check("metrics", name, 2e-6, 1e-6)


@pytest.mark.parametrize("name", stored("optimizers"))
def test_optimizers(name: str) -> None:
    check("optimizers", name, 2e-6, 1e-6)


@pytest.mark.parametrize("name", stored("models"))
def test_names_and_order_of_layers_and_weights(name: str) -> None:
    check("models", name, 0, 0)


@pytest.mark.parametrize("name", stored("summaries"))
def test_summaries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found, expected = keras_cases.summaries(ot)[name], stored("summaries")[name].item()
    assert found.splitlines() == expected.splitlines()


def dtype_pairs() -> list[tuple[str, str]]:
    names = [str(name) for name in reference()["dtypes"]]
    return [(a, b) for a in names for b in names]


@pytest.mark.parametrize(("first", "second"), dtype_pairs())
def test_promotion(first: str, second: str) -> None:
    names = list(reference()["dtypes"])
    expected = reference()["promotion"][names.index(first), names.index(second)]
    weak = {"int": 1, "float": 1.0}
    strong = [np.dtype(name) for name in (first, second) if name not in weak]
    numbers = [weak[name] for name in (first, second) if name in weak]
    assert dtypes.result_type(strong, numbers).name == expected


#: What the reference's backend refuses with booleans: as in NumPy where that has a logical meaning,
#: in int32 otherwise, since ONNX has no arithmetic of booleans.
LOGICAL = ("add", "maximum", "minimum", "multiply")
#: What ONNX Runtime computes nothing with.
WITHOUT_KERNELS = ("bfloat16",)


def results() -> list[tuple[str, tuple[str, ...], str]]:
    """Operations, the dtypes of their arguments, and of their results in Keras."""
    table = reference()
    names = [str(n) for n in table["dtypes"] if n not in ("int", "float")]
    found = []
    for operation, row in zip(table["unary_operations"], table["unary"], strict=True):
        found += [(str(operation), (a,), str(r)) for a, r in zip(names, row, strict=True)]
    for operation, plane in zip(table["binary_operations"], table["binary"], strict=True):
        found += [
            (str(operation), (a, b), str(plane[i, j]))
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
    return [
        (operation, arguments, expected or ("bool" if operation in LOGICAL else "int32"))
        for operation, arguments, expected in found
        if (expected or set(arguments) == {"bool"}) and not set(arguments) & set(WITHOUT_KERNELS)
    ]


RESULTS = results()


@pytest.mark.parametrize("operation", sorted({operation for operation, _, _ in RESULTS}))
def test_dtypes_of_results(operation: str) -> None:
    for name, arguments, expected in RESULTS:
        if name == operation:
            tensors = [ot.ops.ones((2, 2), dtype=dtype) for dtype in arguments]
            result = getattr(ot.ops, operation)(*tensors)
            assert (arguments, result.dtype.name) == (arguments, expected)
