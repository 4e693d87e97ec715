"""Normalization, and what happens to images by chance."""

from __future__ import annotations

import numpy as np
import pytest

import onnxtape as ot
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("preprocessing"))
def test_as_keras(name: str) -> None:
    parity.check("preprocessing", name, rtol=1e-4, atol=1e-5)


def test_adapting_to_batches_is_adapting_to_all() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype(np.float32)
    whole, parts = ot.layers.Normalization(), ot.layers.Normalization()
    whole.adapt(x)
    parts.adapt(ot.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(16))
    np.testing.assert_allclose(parts(x), whole(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole(x).numpy().std(0), 1.0, rtol=1e-4)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="takes mean and variance together"):
        ot.layers.Normalization(mean=1.0)
    with pytest.raises(ValueError, match="was given its mean"):
        ot.layers.Normalization(mean=1.0, variance=1.0).adapt(np.ones((2, 2)))
    with pytest.raises(ValueError, match="cannot adapt to no data"):
        ot.layers.Normalization().adapt([])
    with pytest.raises(ValueError, match="mode is 'horizontal'"):
        ot.layers.RandomFlip("sideways")
    with pytest.raises(ValueError, match="not 'wrap'"):
        ot.layers.RandomRotation(0.1, fill_mode="wrap")


@pytest.mark.parametrize("mode", ["horizontal", "vertical", "horizontal_and_vertical"])
def test_flips_are_flips_of_each_image_by_itself(mode: str) -> None:
    images = np.random.default_rng(0).uniform(size=(64, 3, 4, 2)).astype(np.float32)
    layer = ot.layers.RandomFlip(mode, seed=3)
    flipped = ot.function(lambda x: layer(x, training=True))(images).numpy()
    sides = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    chosen = [
        next(i for i, side in enumerate(sides) if np.array_equal(image, side[n]))
        for n, image in enumerate(flipped)
    ]
    allowed = {"horizontal": {0, 1}, "vertical": {0, 2}}.get(mode, {0, 1, 2, 3})
    assert set(chosen) == allowed
    np.testing.assert_array_equal(layer(images, training=False), images)
    assert layer(images[0], training=True).shape == (3, 4, 2)


def test_each_image_is_turned_by_an_angle_of_its_own() -> None:
    images = np.tile(np.random.default_rng(0).uniform(size=(5, 5, 1)), (8, 1, 1, 1))
    turned = ot.layers.RandomRotation(0.2, seed=1)(images.astype(np.float32), training=True)
    assert len(np.unique(turned.numpy()[:, 0, 0, 0])) == 8
    np.testing.assert_allclose(turned.numpy()[:, 2, 2, 0], images[:, 2, 2, 0], rtol=1e-5)
