"""Make what the page trains: a small digits classifier, taught only a little.

    python examples/browser/make_artifact.py

It writes `generated/artifact` (the training step and the inference graph) and
`generated/digits.json` (some of scikit-learn's digits, which the page mixes with the drawn ones so
that the model does not forget what it knew).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets

import onnxtape as ot
from onnxtape import layers

PIXELS = 64


def make(folder: Path, steps: int = 60, seed: int = 1) -> float:
    """Write the page's files into `folder`; the accuracy on digits that it was not taught."""
    ot.set_seed(seed)
    inputs = ot.Input((PIXELS,), name="digits")
    x = layers.Dense(96, activation="relu", name="hidden")(inputs)
    x = layers.Dropout(0.2, name="dropout")(x)
    model = ot.Model(inputs, layers.Dense(10, name="scores")(x), name="digits")
    optimizer = ot.optimizers.Adam(learning_rate=3e-3)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

    @ot.function(input_signature=[ot.TensorSpec((None, PIXELS)), ot.TensorSpec((None,), "int64")])
    def train_step(x: Any, y: Any) -> dict[str, Any]:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        weights = model.trainable_weights
        optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}

    digits = sklearn.datasets.load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    images = (digits.data[order] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    for _ in range(steps):
        batch = rng.choice(1400, 32)
        train_step(images[batch], labels[batch])
    train_step.export(folder / "artifact", model=model)
    taught = {
        "images": (images[:400] * 16).astype(int).tolist(),
        "labels": labels[:400].tolist(),
    }
    (folder / "digits.json").write_text(json.dumps(taught, separators=(",", ":")))
    answers = model(images[1400:]).numpy().argmax(axis=1)
    return float(np.mean(answers == labels[1400:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "generated")
    parser.add_argument("--steps", type=int, default=60, help="how much it is taught (60)")
    options = parser.parse_args()
    accuracy = make(options.folder, options.steps)
    print(f"{options.folder}: knows {accuracy:.0%} of the digits that it has not seen")
