"""Writes mlp.npz, the loss sequences of a small training in PyTorch and Keras.

Run it in an environment with PyTorch and Keras 3:
``python tests/reference/make_mlp_reference.py [PATH]``. `tests/peers` runs it again and compares.

A perceptron 64-32-10 (relu, cross-entropy from logits) is trained for 100 steps on 208 examples in
order, in batches of 32, so that every seventh batch holds 16. The arithmetic is float64, which
makes the sequences those of the formulas, not those of one machine's rounding (Keras's Adam rounds
its betas to float32 on this backend, which moves the losses by 3e-8); the data and the initial
weights are float32 values.

The file holds ``x`` (208, 64) float32, ``y`` (208,) int64, the initial weights ``initial_0`` to
``initial_3`` in Keras's order and layout (kernels are inputs by outputs), and for each case its
``CASE_losses`` (100,) before each update and its trained weights ``CASE_final_0`` to
``CASE_final_3``, float64:

- ``sgd``: PyTorch, learning rate 0.1;
- ``momentum``: PyTorch, learning rate 0.05, momentum 0.9;
- ``adam``: Keras with its defaults, ``w -= rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + 1e-7)``;
- ``torch_adam``: PyTorch with its defaults,
  ``w -= rate / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + 1e-8)``.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from numpy.typing import NDArray

STEPS, BATCH = 100, 32
INPUTS, HIDDEN, CLASSES = 64, 32, 10
EXAMPLES = 6 * BATCH + BATCH // 2

Weights = list[NDArray[Any]]


def start() -> tuple[NDArray[np.float32], NDArray[np.int64], Weights]:
    """The examples, their labels (a linear teacher's, one in five at random), Glorot weights."""
    random = np.random.default_rng(20240)
    x = random.standard_normal((EXAMPLES, INPUTS), dtype=np.float32)
    teacher = random.standard_normal((INPUTS, CLASSES), dtype=np.float32)
    noise = random.integers(0, CLASSES, EXAMPLES)
    y = np.where(random.random(EXAMPLES) < 0.2, noise, (x @ teacher).argmax(axis=1))
    weights: Weights = []
    for rows, columns in ((INPUTS, HIDDEN), (HIDDEN, CLASSES)):
        limit = np.sqrt(6 / (rows + columns))
        kernel = random.uniform(-limit, limit, (rows, columns))
        weights += [kernel.astype(np.float32), np.zeros(columns, np.float32)]
    return x, y, weights


def batches(x: NDArray[Any], y: NDArray[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`STEPS` batches in order, epoch after epoch, float64."""
    starts = range(0, EXAMPLES, BATCH)
    for step in range(STEPS):
        first = starts[step % len(starts)]
        rows = slice(first, first + BATCH)
        yield torch.from_numpy(x[rows]).double(), torch.from_numpy(y[rows])


def with_torch(
    make_optimizer: Any, x: NDArray[Any], y: NDArray[Any], initial: Weights
) -> tuple[list[float], Weights]:
    """Losses and trained weights of PyTorch; ``make_optimizer(parameters)`` gives the optimizer."""
    model = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    ).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), initial, strict=True):
            parameter.copy_(torch.from_numpy(value.T))
    optimizer = make_optimizer(model.parameters())
    losses = []
    for inputs, labels in batches(x, y):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [parameter.detach().numpy().T for parameter in model.parameters()]


def with_keras(
    optimizer: Any, x: NDArray[Any], y: NDArray[Any], initial: Weights
) -> tuple[list[float], Weights]:
    """Losses and trained weights of Keras on PyTorch: its layers, its loss, its optimizer."""
    model = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.set_weights(initial)
    losses = []
    for inputs, labels in batches(x, y):
        model.zero_grad()
        logits = model(inputs, training=True)
        # The loss class averages in float32 on this backend, so its function and PyTorch's mean.
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True).mean()
        loss.backward()
        gradients = [weight.value.grad for weight in model.trainable_weights]
        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_weights)
        losses.append(loss.item())
    return losses, model.get_weights()


def main(path: Path) -> None:
    """Train all cases and write them to `path`."""
    keras.config.set_floatx("float64")
    torch.use_deterministic_algorithms(True)
    x, y, initial = start()
    runs = {
        "sgd": with_torch(lambda parameters: torch.optim.SGD(parameters, 0.1), x, y, initial),
        "momentum": with_torch(
            lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9), x, y, initial
        ),
        "adam": with_keras(keras.optimizers.Adam(), x, y, initial),
        "torch_adam": with_torch(torch.optim.Adam, x, y, initial),
    }
    arrays: dict[str, Any] = {"x": x, "y": y}
    arrays |= {f"initial_{index}": value for index, value in enumerate(initial)}
    for case, (losses, final) in runs.items():
        arrays[f"{case}_losses"] = np.array(losses)
        arrays |= {f"{case}_final_{index}": value for index, value in enumerate(final)}
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("mlp.npz"))
