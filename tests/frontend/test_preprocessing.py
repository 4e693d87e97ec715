"""Normalization, and what happens to images by chance."""

from __future__ import annotations

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.errors import ShapeError
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
    with pytest.raises(ValueError, match="factor is a number from 0 to 1, or two"):
        ot.layers.RandomContrast(1.5)
    with pytest.raises(ValueError, match=r"RandomContrast's factor .* not -0.5"):
        ot.layers.RandomContrast(-0.5)
    with pytest.raises(ValueError, match=r"value_range is \(low, high\), not 255"):
        ot.layers.RandomBrightness(0.5, 255)
    with pytest.raises(ValueError, match="needs num_tokens of at least 1, not None"):
        ot.layers.CategoryEncoding()
    with pytest.raises(ValueError, match="output_mode is 'one_hot' or 'multi_hot' or 'count', not"):
        ot.layers.CategoryEncoding(3, output_mode="int")
    with pytest.raises(ValueError, match="takes count_weights with output_mode='count'"):
        ot.layers.CategoryEncoding(3)([1], count_weights=[1.0])
    with pytest.raises(ValueError, match="either bin_boundaries or num_bins"):
        ot.layers.Discretization()
    with pytest.raises(ValueError, match=r"has no boundaries yet: call adapt\(data\) first"):
        ot.layers.Discretization(num_bins=2)([1.0])
    with pytest.raises(ValueError, match="was given its bin_boundaries"):
        ot.layers.Discretization([1.0]).adapt(np.ones(3))
    with pytest.raises(ValueError, match="cannot adapt to no data"):
        ot.layers.Discretization(num_bins=2).adapt([])
    with pytest.raises(ShapeError, match=r"RandomCrop 'crop' takes images.*whose height and width"):
        ot.layers.RandomCrop(2, 2, name="crop")(ot.Input((None, None, 3)))
    with pytest.raises(ShapeError, match="no patch of 5 fits into 4"):
        ot.ops.image.extract_patches(np.zeros((4, 6, 1), np.float32), 5)
    with pytest.raises(ValueError, match="a size of 2 or 3 numbers and padding 'valid' or 'same'"):
        ot.ops.image.extract_patches(np.zeros((4, 6, 1), np.float32), 2, padding="full")


def test_contrast_and_brightness_differ_from_image_to_image() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(60, 190, (64, 3, 4, 2)).astype(np.float32)
    means = images.mean((1, 2), keepdims=True)
    contrast = ot.layers.RandomContrast(0.5, seed=1)
    found = ot.function(lambda x: contrast(x, training=True))(images).numpy()
    times = ((found - means) / (images - means)).reshape(64, -1)
    np.testing.assert_allclose(times, np.broadcast_to(times[:, :1], times.shape), rtol=1e-2)
    # As in Keras, one factor is the upper bound of what is added to 1.
    assert times.min() > 0.99
    assert times.max() < 1.51
    assert len(np.unique(np.round(times[:, 0], 3))) > 50
    brightness = ot.layers.RandomBrightness(0.2, value_range=(0, 250), seed=1)
    more = (brightness(images, training=True).numpy() - images).reshape(64, -1)
    np.testing.assert_allclose(more, np.broadcast_to(more[:, :1], more.shape), atol=1e-3)
    assert -50 <= more.min() < -30
    assert 30 < more.max() <= 50


def test_a_crop_is_the_same_part_of_all_images_of_a_batch() -> None:
    rows, columns = np.mgrid[:6, :8]
    images = np.tile((10 * rows + columns)[None, :, :, None], (3, 1, 1, 1)).astype(np.float32)
    layer = ot.layers.RandomCrop(4, 5, seed=2)
    step = ot.function(lambda x: layer(x, training=True))
    corners = set()
    for _ in range(30):
        part = step(images).numpy()
        assert part.shape == (3, 4, 5, 1)
        corner = part[0, 0, 0, 0]
        corners.add(corner)
        np.testing.assert_array_equal(part[..., 0] - corner, images[:, :4, :5, 0])
    assert corners == {10.0 * row + column for row in range(3) for column in range(4)}
    first = ot.layers.RandomCrop(4, 5, data_format="channels_first")
    assert first(images.transpose(0, 3, 1, 2), training=True).shape == (3, 1, 4, 5)


def test_bins_that_were_found_are_in_the_configuration() -> None:
    layer = ot.layers.Discretization(num_bins=3)
    layer.adapt(np.arange(30.0))
    again = ot.layers.Discretization.from_config(layer.get_config())
    x = np.array([-1.0, 9.5, 15.0, 40.0])
    np.testing.assert_array_equal(again(x), layer(x))
    assert again(x).dtype == np.int32


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


def test_lists_of_numbers_are_arrays_to_them() -> None:
    """As in Keras, whose other layers refuse them."""
    normalization = ot.layers.Normalization(mean=1.0, variance=4.0)
    np.testing.assert_array_equal(normalization([[1.0, 5.0]]), [[0.0, 2.0]])
    np.testing.assert_array_equal(ot.layers.Rescaling(0.5)([[1, 2]]), [[0.5, 1.0]])
    np.testing.assert_array_equal(ot.layers.Discretization([1.5])([[1.0, 2.0]]), [[0, 1]])
    image = [[[[1.0], [2.0]], [[3.0], [4.0]]]]
    np.testing.assert_array_equal(ot.layers.CenterCrop(2, 2)(image), image)
