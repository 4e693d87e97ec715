"""Architectures that ship inside the onnx package take training steps.

Their files hold no weights: each is filled with one number when the model runs, which no network
learns from (and deep ones overflow). So they start from He's initial values here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxtape as ot

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
#: Those with BatchNormalization, whose statistics are filled with one number too.
NORMALIZED = ("densenet121", "inception_v2", "resnet50", "shufflenet")
#: Those that end without a Softmax.
SCORES = ("densenet121", "squeezenet")
#: Those for which the one example is learned after a step: no loss is left to make smaller.
AT_ONCE = ("bvlc_alexnet", "vgg19", "zfnet512")
NAMES = (*NORMALIZED, "bvlc_alexnet", "inception_v1", "squeezenet", "vgg19", "zfnet512")


def start(model: Any, seed: int = 0) -> None:
    """Random kernels, neutral scales and offsets, as their sizes ask for."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        shape = variable.shape
        if len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            variable.assign(rng.normal(size=shape).astype("f") * scale)


def test_these_are_all_of_them() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.onnx")) == sorted(
        f"light_{n}" for n in NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_and_fall(name: str) -> None:
    model = ot.load_onnx(FOLDER / f"light_{name}.onnx")
    start(model)
    (spec,) = [model.input_specs]
    x = np.random.default_rng(1).normal(size=[d or 1 for d in spec.shape]).astype("f")
    # Each of SqueezeNet's thousand scores is the mean of 169 places, and nearly the same.
    optimizer = ot.optimizers.SGD(1.0 if name == "squeezenet" else 1e-3)

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            found = ot.ops.reshape(model(x, training=name in NORMALIZED), (1, -1))
            losses = ot.losses.sparse_categorical_crossentropy(
                np.int64([3]), found, from_logits=name in SCORES
            )
            loss = ot.ops.mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(g is not None for g in gradients)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    losses = [float(step(x)) for _ in range(2 if name in AT_ONCE else 3)]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    assert name in AT_ONCE or losses[2] < losses[1]
