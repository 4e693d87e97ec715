"""Trains the perceptron of tests/reference from the same weights as PyTorch and Keras did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot

REFERENCE = Path(__file__).parent.parent / "reference" / "mlp.npz"
BATCH = 32

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: ot.optimizers.SGD(0.1),
    "momentum": lambda: ot.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: ot.optimizers.Adam(),
    # PyTorch adds epsilon after the bias correction, Keras (and so onnxtape) before it.
    "torch_adam": lambda: ot.optimizers.Adam(1e-3, epsilon=1e-8),
}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(REFERENCE) as file:
        return dict(file)


def train(
    reference: dict[str, np.ndarray[Any, Any]], optimizer: Any, wrap: Callable[[Any], Any]
) -> tuple[Any, list[float], Any]:
    """Train through the reference's batches; return the model, the losses and the step."""
    model = ot.Sequential(
        [ot.Input((64,)), ot.layers.Dense(32, activation="relu"), ot.layers.Dense(10)]
    )
    model.set_weights([reference[f"initial_{index}"] for index in range(4)])
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

    @wrap
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        grads = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(grads, model.trainable_weights)
        return loss

    x, y = reference["x"], reference["y"]
    starts = range(0, len(x), BATCH)
    losses = []
    for count in range(len(reference["sgd_losses"])):
        first = starts[count % len(starts)]
        losses.append(float(step(x[first : first + BATCH], y[first : first + BATCH])))
    return model, losses, step


@pytest.mark.parametrize("case", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_losses_and_weights_follow_the_reference(
    reference: dict[str, np.ndarray[Any, Any]], case: str, mode: str
) -> None:
    wrap = ot.function(fallback="error") if mode == "compiled" else lambda step: step
    model, losses, _ = train(reference, OPTIMIZERS[case](), wrap)
    np.testing.assert_allclose(losses, reference[f"{case}_losses"], rtol=1e-4)
    # Where epsilon stands matters to a weight whose first gradient is tiny: one here, -2e-6, ends
    # 1.2e-4 apart by PyTorch's formula and by Keras's, in float64 too.
    atol = 2e-4 if case == "torch_adam" else 2e-5
    for index, weight in enumerate(model.get_weights()):
        np.testing.assert_allclose(
            weight, reference[f"{case}_final_{index}"], rtol=1e-4, atol=atol, err_msg=str(index)
        )


def test_a_smaller_last_batch_traces_at_most_once_more(
    reference: dict[str, np.ndarray[Any, Any]],
) -> None:
    _, _, step = train(reference, OPTIMIZERS["adam"](), ot.function(fallback="error"))
    assert step.trace_count <= 2
    assert step.fallback_reason is None
