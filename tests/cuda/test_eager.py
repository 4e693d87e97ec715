"""Operators without CUDA kernels in eager mode, where the CPU stands in for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import devices
from onnxtape.runtime.eager import EagerExecutor

X = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
WORDS = np.random.default_rng(1).integers(0, 2**63, 20, np.uint64)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators that run; all places say that they are CUDA."""
    operators: list[str] = []
    plain = EagerExecutor.run

    def run(self: EagerExecutor, op_type: str, *rest: Any) -> Any:
        operators.append(op_type)
        return plain(self, op_type, *rest)

    monkeypatch.setattr(EagerExecutor, "run", run)
    return operators


def pretend_cuda() -> None:
    place = devices.Place("cpu", bound=True)
    place.__dict__["provider"] = "cuda"
    devices.Places.default = place
    devices.Places.use(place)


def normalized() -> Any:
    layer = ot.layers.BatchNormalization(axis=1)
    x = ot.convert_to_tensor(X)
    with ot.GradientTape() as tape:
        tape.watch(x)
        y = ot.ops.sum(layer(x, training=True) ** 3)
    return [y, tape.gradient(y, x), layer.moving_variance]


@pytest.mark.parametrize(
    ("function", "without"),
    [
        (normalized, "BatchNormalization"),
        (lambda: [ot.ops.bitwise_xor(WORDS, WORDS[::-1].copy())], "BitwiseXor"),
        (lambda: [ot.random.uniform((9,), seed=3)], "BitShift"),
        (lambda: [ot.ops.scatter(np.array([[1], [1]]), np.array([2, 3]), (3,))], "ScatterND"),
    ],
    ids=["normalization", "xor", "numbers", "scatter"],
)
def test_the_same_without_kernels(
    function: Callable[[], list[Any]], without: str, ran: list[str]
) -> None:
    expected = [np.array(x) for x in function()]
    assert without in ran
    ran.clear()
    pretend_cuda()
    found = [np.array(x) for x in function()]
    assert ran
    assert without not in ran
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
