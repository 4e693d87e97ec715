"""Activations by name, and what Keras's have beyond the operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import activations

X = np.array([-8.0, -1.5, 0.0, 0.5, 3.0, 9.0], np.float32)


def relu(x: Any, slope: float, most: float, threshold: float) -> Any:
    """As Keras's documentation has it."""
    return np.where(x >= most, most, np.where(x >= threshold, x, slope * (x - threshold)))


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("most", [None, 4.0])
@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_relu(slope: float, most: float | None, threshold: float) -> None:
    found = activations.relu(X, slope, most, threshold)
    expected = relu(X, slope, np.inf if most is None else most, threshold)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_gelu_is_exact_by_default() -> None:
    np.testing.assert_array_equal(activations.gelu(X), ot.ops.gelu(X, approximate=False))
    np.testing.assert_array_equal(activations.gelu(X, True), ot.ops.gelu(X))


@pytest.mark.parametrize(
    "name", sorted(set(activations.__all__) - {"get", "serialize", "deserialize"})
)
def test_names_stand_for_functions(name: str) -> None:
    function = getattr(activations, name)
    assert activations.get(name) is function
    assert activations.deserialize(activations.serialize(function)) is function
    if name not in ("threshold", "glu"):
        assert ot.layers.Activation(name)(X[None]).shape == (1, 6)


def test_others() -> None:
    assert activations.get(None) is activations.linear
    assert activations.deserialize("mine", {"mine": abs}) is abs
    with pytest.raises(ValueError, match=r"no activation is called 'rellu'; there are celu, elu"):
        activations.get("rellu")
    with pytest.raises(TypeError, match="cannot make an activation of 3"):
        activations.get(3)
    with pytest.raises(ValueError, match="abs is no activation of onnxtape's"):
        activations.serialize(abs)
