"""Initializers: their distributions, their streams, and how they are named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import initializers
from onnxtape.errors import ShapeError, TracingError
from tests.reference import parity

SHAPE = (300, 200)
N = 300 * 200


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
def test_constants(dtype: str) -> None:
    for make, value in ((initializers.Zeros(), 0), (initializers.Ones(), 1)):
        for shape in ((2, 3), (), (0, 4), [3]):
            made = make(shape, dtype)
            assert (made.dtype, made.shape) == (dtype, tuple(shape))
            np.testing.assert_array_equal(made.numpy(), np.full(shape, value))
    np.testing.assert_array_equal(
        initializers.Constant(3)((2,), dtype).numpy(), np.full(2, 3, dtype)
    )


def test_constant_takes_an_array_that_broadcasts() -> None:
    made = initializers.Constant([1.5, 2.5])((3, 2))
    np.testing.assert_array_equal(made.numpy(), [[1.5, 2.5]] * 3)
    with pytest.raises(ShapeError, match=r"\(2,\) does not broadcast to \(3,\)"):
        initializers.Constant([1.5, 2.5])((3,))
    np.testing.assert_array_equal(initializers.Constant()((2,)).numpy(), [0, 0])


#: name -> (variance, range), by Keras's documentation, for a kernel of 300 inputs and 200 outputs.
KEEP = 0.87962566103423978
DISTRIBUTIONS: dict[str, tuple[Any, float, float]] = {
    "RandomNormal": (initializers.RandomNormal(seed=1), 0.05**2, math.inf),
    "RandomNormal wide": (initializers.RandomNormal(stddev=2.0, seed=1), 4.0, math.inf),
    "TruncatedNormal": (initializers.TruncatedNormal(seed=1), (0.05 * KEEP) ** 2, 0.1),
    "RandomUniform": (initializers.RandomUniform(seed=1), 0.05**2 / 3, 0.05),
    "GlorotUniform": (initializers.GlorotUniform(seed=1), 2 / 500, math.sqrt(6 / 500)),
    "GlorotNormal": (initializers.GlorotNormal(seed=1), 2 / 500, 2 / KEEP * math.sqrt(2 / 500)),
    "HeUniform": (initializers.HeUniform(seed=1), 2 / 300, math.sqrt(6 / 300)),
    "HeNormal": (initializers.HeNormal(seed=1), 2 / 300, 2 / KEEP * math.sqrt(2 / 300)),
    "LecunUniform": (initializers.LecunUniform(seed=1), 1 / 300, math.sqrt(3 / 300)),
    "LecunNormal": (initializers.LecunNormal(seed=1), 1 / 300, 2 / KEEP * math.sqrt(1 / 300)),
    "VarianceScaling": (
        initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal", seed=1),
        3 / 200,
        math.inf,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    make, variance, limit = DISTRIBUTIONS[name]
    x = make(SHAPE).numpy().astype(np.float64)
    assert x.shape == SHAPE
    assert abs(x.mean()) < 5 * math.sqrt(variance / N)
    # The relative error of a variance is at most sqrt(2 / N), the normal distribution's.
    assert abs(x.var() / variance - 1) < 5 * math.sqrt(2 / N)
    largest = np.abs(x).max()
    if math.isfinite(limit):
        assert 0.98 * limit < largest <= limit * (1 + 1e-6)
    else:
        assert largest > 3.5 * math.sqrt(variance)


def test_means_and_bounds() -> None:
    assert abs(initializers.RandomNormal(3.0, 0.1, seed=0)(SHAPE).numpy().mean() - 3) < 1e-2
    assert abs(initializers.TruncatedNormal(-2.0, 0.1, seed=0)(SHAPE).numpy().mean() + 2) < 1e-2
    x = initializers.RandomUniform(2.0, 5.0, seed=0)(SHAPE).numpy()
    assert 2 <= x.min() < 2.01 < 4.99 < x.max() < 5


@pytest.mark.parametrize(
    ("shape", "fans"),
    [
        ((), (1, 1)),
        ((7,), (7, 7)),
        ((7, 3), (7, 3)),
        ((5, 7, 3), (35, 15)),
        ((3, 3, 7, 2), (63, 18)),
    ],
)
def test_fans(shape: tuple[int, ...], fans: tuple[int, int]) -> None:
    assert initializers.compute_fans(shape) == fans
    limit = math.sqrt(6 / sum(fans))
    for seed in range(3):
        assert np.abs(initializers.GlorotUniform(seed=seed)(shape).numpy()).max() <= limit


def test_seeds() -> None:
    fixed = initializers.GlorotUniform(seed=4)
    first = fixed((5,)).numpy()
    np.testing.assert_array_equal(fixed((5,)).numpy(), first)
    np.testing.assert_array_equal(initializers.GlorotUniform(seed=4)((5,)).numpy(), first)
    stream = initializers.GlorotUniform(seed=ot.random.SeedGenerator(4))
    np.testing.assert_array_equal(stream((5,)).numpy(), first)
    assert not np.array_equal(stream((5,)).numpy(), first)
    ot.set_seed(4)
    anew = initializers.GlorotUniform()
    np.testing.assert_array_equal(anew((5,)).numpy(), first)
    assert not np.array_equal(anew((5,)).numpy(), first)


def test_every_initializer_makes_every_floating_dtype() -> None:
    for name in ("glorot_uniform", "he_normal", "lecun_uniform", "random_normal", "zeros"):
        for dtype in ("float16", "float32", "float64"):
            made = initializers.get(name)((3, 2), dtype=dtype)
            assert (made.dtype, made.shape) == (dtype, (3, 2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("zeros", initializers.Zeros),
        ("Ones", initializers.Ones),
        ("constant", initializers.Constant),
        ("glorot_uniform", initializers.GlorotUniform),
        ("GlorotNormal", initializers.GlorotNormal),
        ("he_uniform", initializers.HeUniform),
        ("lecun_normal", initializers.LecunNormal),
        ("random_uniform", initializers.RandomUniform),
        ("normal", initializers.RandomNormal),
        ("uniform", initializers.RandomUniform),
        ("truncated_normal", initializers.TruncatedNormal),
        ("variance_scaling", initializers.VarianceScaling),
        ("Identity", initializers.Identity),
        ("orthogonal", initializers.Orthogonal),
        ("OrthogonalInitializer", initializers.Orthogonal),
        ("stft", initializers.STFT),
        (initializers.HeNormal, initializers.HeNormal),
        (initializers.he_normal, initializers.HeNormal),
    ],
)
def test_names(name: Any, kind: type) -> None:
    assert type(initializers.get(name)) is kind


def test_other_ways_to_give_an_initializer() -> None:
    ready = initializers.Zeros()
    assert initializers.get(ready) is ready
    assert initializers.get(max) is max
    assert initializers.get(None) is None
    config = {"class_name": "RandomUniform", "config": {"minval": -3.0, "maxval": -2.0}}
    assert initializers.get(config).maxval == -2.0
    given = initializers.get(np.arange(3.0))
    np.testing.assert_array_equal(given((3,), "float16").numpy(), np.float16([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"shape \(3,\) was given for a variable of shape \(4,\)"):
        given((4,))
    with pytest.raises(ValueError, match=r"is called 'glorot'; there are zeros, ones"):
        initializers.get("glorot")
    with pytest.raises(TypeError, match=r"cannot make an initializer of 3"):
        initializers.get(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, r"scale must be positive, not 0\.0"),
        ({"mode": "fan"}, r"mode is 'fan_in', 'fan_out' or 'fan_avg', not 'fan'"),
        ({"distribution": "gauss"}, r"distribution is 'truncated_normal', .* not 'gauss'"),
        ({"input_axes": [0]}, r"input_axes and output_axes are given together, or neither"),
    ],
)
def test_variance_scalings_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initializers.VarianceScaling(**options)


@pytest.mark.parametrize("name", parity.names("initializers"))
def test_as_keras(name: str) -> None:
    parity.check("initializers", name, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (3, 2, 4), (2, 2, 3, 20)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_orthogonal(shape: tuple[int, ...], dtype: str) -> None:
    made = initializers.Orthogonal(gain=2.0, seed=3)(shape, dtype)
    assert (made.shape, made.dtype) == (shape, dtype)
    q = made.numpy().astype(np.float64).reshape(-1, shape[-1])
    gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    tolerance = {"float16": 1e-2, "float32": 1e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(gram, 4.0 * np.eye(len(gram)), atol=tolerance)


def test_orthogonal_matrices_are_uniform() -> None:
    """Of Haar's distribution: every element has mean 0 and variance 1 / n, the signs too."""
    stream = ot.random.SeedGenerator(5)
    make = initializers.Orthogonal(seed=stream)
    q = np.array([make((4, 4)).numpy() for _ in range(400)], np.float64)
    assert np.abs(q.mean(0)).max() < 5 * 0.5 / math.sqrt(400)
    np.testing.assert_allclose((q**2).mean(0), 0.25, atol=5 * 0.25 * math.sqrt(2 / 400))
    # The trace has variance 1; without corrected signs it is far larger.
    assert abs(np.trace(q, axis1=1, axis2=2).var() - 1) < 0.4


def test_orthogonal_in_a_layer_and_in_a_trace() -> None:
    ot.set_seed(3)
    layer = ot.layers.Dense(3, kernel_initializer="orthogonal")
    step = ot.function(lambda x: layer(x), fallback="error")
    step(np.ones((2, 3), np.float32))
    q = layer.kernel.numpy()
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-6)
    ot.set_seed(3)
    eager = ot.layers.Dense(3, kernel_initializer="orthogonal")
    eager(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(eager.kernel.numpy(), q)
    direct = ot.function(lambda: initializers.Orthogonal()((3, 3)), fallback="error")
    with pytest.raises(TracingError, match=r"(?s)Orthogonal was called .*Create a variable with"):
        direct()


def test_axes_of_inputs_and_outputs() -> None:
    shape = (4, 30, 5, 20)
    assert initializers.compute_fans(shape, [1], [0, 2]) == (30, 20)
    x = initializers.HeNormal(seed=1, input_axes=[1], output_axes=[0, 2])(shape).numpy()
    assert abs(x.var() * 30 / 2 - 1) < 5 * math.sqrt(2 / x.size)


def test_shapes_that_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"Identity makes matrices, not shape \(3,\)"):
        initializers.Identity()((3,))
    with pytest.raises(ShapeError, match=r"Orthogonal makes no tensors of shape \(3,\)"):
        initializers.Orthogonal()((3,))
    with pytest.raises(ShapeError, match=r"STFT makes kernels of shape .* not \(3, 4\)"):
        initializers.STFT()((3, 4))
    with pytest.raises(ShapeError, match=r"a window of shape \(2,\) was given for frames of 8"):
        initializers.STFT(window=[1.0, 2.0])((8, 1, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "left"}, r"side is 'real' or 'imag', not 'left'"),
        ({"scaling": "power"}, r"scaling is 'density', 'spectrum' or None, not 'power'"),
        ({"window": "kaiser"}, r"no window is called 'kaiser'; there are hann, .* and any array"),
    ],
)
def test_stfts_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initializers.STFT(**options)
