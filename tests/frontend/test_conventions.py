"""Functions whose derivative has to be chosen somewhere have PyTorch's; see `tests/reference`."""

from __future__ import annotations

import numpy as np
import pytest

import onnxtape as ot
from tests.compiler.test_conventions import STORED
from tests.reference.conventions import FUNCTIONS, Convention


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in FUNCTIONS])
def test_as_pytorch(case: Convention, compiled: bool) -> None:
    function = getattr(ot.ops, case.op)

    def step(*inputs: ot.Tensor) -> list[ot.Tensor]:
        with ot.GradientTape() as tape:
            tape.watch(inputs)
            y = ot.ops.reshape(function(*inputs, **case.attributes), (-1,))
        return list(tape.gradient(y, list(inputs), output_gradients=weights))

    inputs = [ot.convert_to_tensor(np.asarray(case.inputs[i], np.float32)) for i in case.sources()]
    count = int(np.size(function(*inputs, **case.attributes).numpy()))
    weights = ot.convert_to_tensor(np.arange(1, count + 1, dtype=np.float32))
    found = (ot.function(step, fallback="error") if compiled else step)(*inputs)
    with np.load(STORED) as stored:
        for i, gradient in zip(case.sources(), found, strict=True):
            np.testing.assert_allclose(gradient, stored[f"{case.name} {i}"], rtol=1e-5, atol=1e-6)
