"""Random numbers: Squares' exact bits, the same wherever drawn, and their distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import onnxtape as ot
from onnxtape import random
from onnxtape.errors import ShapeError

MASK = (1 << 64) - 1


def key_of(seed: int) -> int:
    """SplitMix64's output function of the seed, made odd."""
    z = (seed + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return (z ^ (z >> 31)) | 1


def squares(counter: int, key: int) -> int:
    """B. Widynski's squares64, as in his paper (arXiv:2004.06278)."""
    y = x = counter * key & MASK
    z = (y + key) & MASK
    x = (x * x + y) & MASK
    x = x >> 32 | x << 32 & MASK
    x = (x * x + z) & MASK
    x = x >> 32 | x << 32 & MASK
    x = (x * x + y) & MASK
    x = x >> 32 | x << 32 & MASK
    t = x = (x * x + z) & MASK
    x = x >> 32 | x << 32 & MASK
    return t ^ ((x * x + y) & MASK) >> 32


def expected_uniform(count: int, seed: int, counter: int = 0) -> Any:
    """The high 24 bits of each number's halves: those of the upper ones first."""
    draws = [squares(counter + i, key_of(seed)) for i in range((count + 1) // 2)]
    lanes = [d >> 40 for d in draws] + [(d & 0xFFFFFFFF) >> 8 for d in draws]
    return (np.array(lanes[:count], np.float64) * 2.0**-24).astype(np.float32)


def test_the_reference_gives_known_numbers() -> None:
    # Published by other implementations of Squares and of SplitMix64.
    found = [squares(counter, 0x548C9DECBCE65297) for counter in range(3)]
    assert found == [0x36D88366CEE633A5, 0x944716E00E60DFAA, 0xC8A8F4E0678654BF]
    assert key_of(0) == 0xE220A8397B1DCDAF
    assert key_of(1234567) == 6457827717110365317


@pytest.mark.parametrize("shape", [(), (1,), (2,), (7,), (8,), (3, 5), (0,), (0, 3), (2, 1, 4)])
@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890, -3])
def test_uniform_bits(shape: tuple[int, ...], seed: int) -> None:
    found = random.uniform(shape, seed=seed)
    assert found.shape == shape
    assert found.dtype == "float32"
    expected = expected_uniform(math.prod(shape), seed).reshape(shape)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [33, 64, 65, 100])
@pytest.mark.parametrize("name", ["uniform", "normal", "truncated_normal"])
def test_the_same_bits_in_blocks(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = getattr(ot.random, name)
    whole, blocks = ot.random.SeedGenerator(3), ot.random.SeedGenerator(3)
    expected = draw((size,), seed=whole).numpy()
    with monkeypatch.context() as patch:
        patch.setattr(random, "_BLOCK", 16)
        np.testing.assert_array_equal(draw((size,), seed=blocks), expected)
        assert draw((size, 3), dtype="float16", seed=5).shape == (size, 3)
    np.testing.assert_array_equal(blocks.state, whole.state)


def test_a_stream_goes_on_where_it_was() -> None:
    generator = random.SeedGenerator(5)
    drawn, counter = [], 0
    for count in (3, 4, 0, 1, 6):
        drawn.append(random.uniform((count,), seed=generator).numpy())
        np.testing.assert_array_equal(drawn[-1], expected_uniform(count, 5, counter))
        counter += (count + 1) // 2
        assert generator.state.numpy().tolist() == [key_of(5), counter]
    generator.reset(5)
    np.testing.assert_array_equal(random.uniform((3,), seed=generator).numpy(), drawn[0])
    generator.reset(6)
    np.testing.assert_array_equal(
        random.uniform((3,), seed=generator).numpy(), expected_uniform(3, 6)
    )


def test_counters_beyond_32_bits() -> None:
    generator = random.SeedGenerator(5)
    start = (1 << 40) - 1
    generator.state.assign(np.array([key_of(5), start], np.uint64))
    found = random.uniform((5,), seed=generator)
    np.testing.assert_array_equal(found.numpy(), expected_uniform(5, 5, start))


#: Everything that draws, as a function of its seed.
DRAWS: dict[str, Callable[[Any], Any]] = {
    "uniform": lambda seed: random.uniform((5, 3), seed=seed),
    "uniform range": lambda seed: random.uniform((4, 4), -0.3, 1.7, seed=seed),
    "uniform float64": lambda seed: random.uniform((5,), -1.0, 1.0, "float64", seed=seed),
    "uniform float16": lambda seed: random.uniform((5,), dtype="float16", seed=seed),
    "normal": lambda seed: random.normal((5, 3), seed=seed),
    "normal moved": lambda seed: random.normal((4,), 2.0, 0.5, seed=seed),
    "truncated_normal": lambda seed: random.truncated_normal((7,), 1.0, 2.0, seed=seed),
    "randint": lambda seed: random.randint((9,), -3, 12, seed=seed),
    "dropout": lambda seed: random.dropout(np.ones((6, 5), np.float32), 0.4, seed=seed),
    "shuffle": lambda seed: random.shuffle(np.arange(20, dtype=np.float32), seed=seed),
    "categorical": lambda seed: random.categorical(np.zeros((2, 9), np.float32), 6, seed=seed),
    "gamma": lambda seed: random.gamma((4, 2), 1.5, seed=seed),
    "beta": lambda seed: random.beta((5,), 0.5, 2.0, seed=seed),
    "binomial": lambda seed: random.binomial((7,), 9, 0.4, seed=seed),
    "dropout noise_shape": lambda seed: random.dropout(
        np.ones((6, 5), np.float32), 0.4, (6, 1), seed=seed
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_bits_eager_compiled_and_after_a_reset(name: str) -> None:
    draw = DRAWS[name]
    eager = random.SeedGenerator(3)
    first, second = draw(eager).numpy(), draw(eager).numpy()
    assert first.size < 2 or not np.array_equal(first, second)

    generator = random.SeedGenerator(3)
    step = ot.function(lambda: draw(generator), fallback="error")
    np.testing.assert_array_equal(step().numpy(), first)
    np.testing.assert_array_equal(step().numpy(), second)
    assert step.trace_count == 1
    np.testing.assert_array_equal(generator.state.numpy(), eager.state.numpy())
    generator.reset(3)
    np.testing.assert_array_equal(step().numpy(), first)
    # A stream drawn from by turns, in and outside of the step, is one stream.
    np.testing.assert_array_equal(draw(generator).numpy(), second)


@pytest.mark.parametrize("name", DRAWS)
def test_an_int_gives_the_same_numbers_each_time(name: str) -> None:
    draw = DRAWS[name]
    state = random.global_generator().state.numpy()
    first = draw(11).numpy()
    np.testing.assert_array_equal(draw(np.int64(11)).numpy(), first)
    np.testing.assert_array_equal(draw(random.SeedGenerator(11)).numpy(), first)
    step = ot.function(lambda: draw(11), fallback="error")
    for _ in range(2):
        np.testing.assert_array_equal(step().numpy(), first)
    np.testing.assert_array_equal(random.global_generator().state.numpy(), state)


@pytest.mark.parametrize("name", DRAWS)
def test_without_a_seed_the_global_stream_is_used(name: str) -> None:
    draw = DRAWS[name]
    ot.set_seed(3)
    first, second = draw(None).numpy(), draw(None).numpy()
    np.testing.assert_array_equal(draw(random.SeedGenerator(3)).numpy(), first)
    step = ot.function(lambda: draw(None), fallback="error")
    ot.set_seed(3)
    np.testing.assert_array_equal(step().numpy(), first)
    np.testing.assert_array_equal(step().numpy(), second)
    ot.set_seed(3)
    np.testing.assert_array_equal(step().numpy(), first)


def test_streams_of_their_own_differ() -> None:
    drawn = [random.uniform((8,), seed=random.SeedGenerator()).numpy() for _ in range(3)]
    drawn += [random.uniform((8,), seed=seed).numpy() for seed in range(3)]
    assert len({d.tobytes() for d in drawn}) == 6


@pytest.mark.parametrize("size", [1, 2, 5, 6, 0])
def test_shapes_known_at_run_time_only(size: int) -> None:
    def draws(x: Any) -> Any:
        shape = ot.ops.shape(x)
        return {
            "uniform": random.uniform(shape, seed=1),
            "normal": random.normal((shape[0], 2), seed=1),
            "truncated_normal": random.truncated_normal(shape, seed=1),
            "randint": random.randint((3, shape[0]), 0, 10, seed=1),
            "dropout": random.dropout(x, 0.5, seed=1),
            "generator": random.uniform(shape, seed=generator),
        }

    x = np.ones((size, 3), np.float32)
    generator = random.SeedGenerator(2)
    step = ot.function(draws, input_signature=[ot.TensorSpec((None, 3))], fallback="error")
    found = step(x)
    counter = generator.state.numpy()[1]
    generator.reset(2)
    expected = draws(ot.Tensor(x))
    assert counter == generator.state.numpy()[1] == (3 * size + 1) // 2
    for name, value in expected.items():
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)
    assert step.trace_count == 1


# Distributions. Bounds are 5 standard errors of N draws; with fixed seeds they hold or do not. ---

N = 200_000


def distance(x: Any, cdf: Callable[[Any], Any]) -> float:
    """Kolmogorov and Smirnov's: the largest between empirical and true distribution function."""
    ordered = np.sort(np.asarray(x, np.float64).ravel())
    steps = np.arange(len(ordered) + 1) / len(ordered)
    true = cdf(ordered)
    return float(max(np.abs(true - steps[1:]).max(), np.abs(true - steps[:-1]).max()))


def phi(x: Any) -> Any:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


#: P(distance > limit) is about 2 exp(-2 * 2.2^2) = 1e-4.
LIMIT = 2.2 / math.sqrt(N)


@pytest.mark.parametrize("seed", [0, 1])
def test_uniform_is_uniform(seed: int) -> None:
    x = random.uniform((N,), -2.0, 6.0, seed=seed).numpy().astype(np.float64)
    assert -2 <= x.min() < -1.999
    assert 5.999 < x.max() < 6
    assert abs(x.mean() - 2) < 5 * math.sqrt(64 / 12 / N)
    assert abs(x.var() - 64 / 12) < 5 * 64 * math.sqrt(1 / 180 / N)
    assert distance(x, lambda v: (v + 2) / 8) < LIMIT


@pytest.mark.parametrize("seed", [0, 1])
def test_normal_is_normal(seed: int) -> None:
    x = random.normal((N,), seed=seed).numpy().astype(np.float64)
    assert abs(x.mean()) < 5 / math.sqrt(N)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / N)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / N)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / N)
    assert distance(x, phi) < LIMIT
    # The two of a pair, and neighbours, have nothing to do with each other.
    for y in (x[: N // 2] * x[N // 2 :], x[1:] * x[:-1]):
        assert abs(y.mean()) < 5 / math.sqrt(len(y))
    assert 4 < np.abs(x).max() < 6
    moved = random.normal((N,), 3.0, 0.5, seed=seed).numpy()
    np.testing.assert_allclose(moved, 3 + 0.5 * x, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_truncated_normal_ends_at_two_standard_deviations(seed: int) -> None:
    x = random.truncated_normal((N,), 1.0, 3.0, seed=seed).numpy().astype(np.float64)
    z = (x - 1) / 3
    assert 1.99 < np.abs(z).max() <= 2 + 1e-6
    tail = phi(np.array(-2.0))
    assert distance(z, lambda v: (phi(v) - tail) / (1 - 2 * tail)) < LIMIT
    assert abs(z.std() - 0.87962566103423978) < 5 * 0.88 / math.sqrt(2 * N)


def test_randint_is_even() -> None:
    x = random.randint((N,), -2, 5, seed=0).numpy()
    assert x.dtype == np.int32
    counts = np.bincount(x + 2, minlength=7)
    assert len(counts) == 7
    assert np.abs(counts - N / 7).max() < 5 * math.sqrt(N / 7)
    wide = random.randint((N,), 0, 2**24, seed=0).numpy()
    assert 0 <= wide.min() < 1000
    assert 2**24 - 1000 < wide.max() < 2**24
    for dtype in ("int64", "uint8", "float32"):
        assert random.randint((4,), 0, 9, dtype=dtype, seed=0).dtype == dtype


def test_uniform_never_reaches_its_end() -> None:
    # Among 2^19 numbers some are so large that each of these dtypes would round them up.
    for dtype, end in (("float16", 1.0), (ml_dtypes.bfloat16, 1.0), ("float32", 4096.0)):
        found = random.uniform((2**19,), end - 1, end, dtype, seed=4).numpy().astype(np.float64)
        assert found.min() >= end - 1
        assert found.max() == float(np.nextafter(np.asarray(end, dtype), np.asarray(0, dtype)))
    np.testing.assert_array_equal(random.uniform((3,), 2.0, 2.0, seed=0), [2, 2, 2])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation(rate: float) -> None:
    x = random.dropout(np.full((N,), 3.0, np.float32), rate, seed=1).numpy().astype(np.float64)
    np.testing.assert_allclose(np.unique(x), np.unique([0.0, 3 / (1 - rate)])[rate == 0 :])
    assert abs((x == 0).mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / N)
    spread = 3 * math.sqrt(rate / (1 - rate))
    assert abs(x.mean() - 3) <= 5 * spread / math.sqrt(N) + 1e-6


def test_dropout_differs_between_steps_and_gives_gradients_to_what_it_kept() -> None:
    x = ot.Variable(np.ones((50,), np.float32))

    @ot.function(fallback="error")
    def step() -> Any:
        with ot.GradientTape() as tape:
            y = random.dropout(x, 0.5)
            loss = ot.ops.sum(y * 3.0)
        return y, tape.gradient(loss, x)

    seen = set()
    for _ in range(5):
        y, gradient = step()
        np.testing.assert_array_equal(gradient.numpy(), y.numpy() * 3)
        seen.add(y.numpy().tobytes())
    assert len(seen) == 5
    assert step.trace_count == 1


def test_dropout_broadcasts_its_noise() -> None:
    x = random.dropout(np.ones((40, 30), np.float32), 0.5, (40, 1), seed=0).numpy()
    assert all(len(set(row)) == 1 for row in x)
    assert {0.0, 2.0} == set(x[:, 0])


def test_dropout_in_float16_and_float64() -> None:
    for dtype in ("float16", "float64"):
        x = random.dropout(np.ones((9,), dtype), 0.25, seed=0)
        assert x.dtype == dtype
        expected = random.dropout(np.ones((9,), np.float32), 0.25, seed=0).numpy()
        np.testing.assert_array_equal(x.numpy() > 0, expected > 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: random.uniform((2,), dtype="int32"), TypeError, r"-point dtype, not int32"),
        (lambda: random.normal((2,), dtype="bool"), TypeError, r"floating-point dtype, not bool"),
        (lambda: random.truncated_normal((2,), dtype="int8"), TypeError, r"dtype, not int8"),
        (lambda: random.dropout([1, 2], 0.5), TypeError, r"floating-point dtype, not int32"),
        (lambda: random.dropout([1.0], 1.0), ValueError, r"rate lies in \[0, 1\), not at 1\.0"),
        (lambda: random.dropout([1.0], -0.1), ValueError, r"rate lies in \[0, 1\), not at -0\.1"),
        (lambda: random.uniform((2,), 1.0, 0.0), ValueError, r"maxval is 0\.0, less than minval"),
        (lambda: random.randint((2,), 3, 3), ValueError, r"0 < maxval - minval <= 2\^24, not 0"),
        (lambda: random.randint((2,), 0, 2**25), ValueError, r"2\^24, not 33554432"),
        (lambda: random.uniform((2,), seed="a"), TypeError, r"an int or a SeedGenerator, not str"),
    ],
)  # fmt: skip
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


LOGITS = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]], np.float32))


def test_categorical_draws_classes_by_their_probabilities() -> None:
    found = random.categorical(LOGITS, 20000, seed=1)
    assert found.shape == (2, 20000)
    assert found.dtype == "int32"
    for row, expected in zip(found.numpy(), np.exp(LOGITS), strict=True):
        shares = np.bincount(row, minlength=3) / row.size
        np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(row.size))
    assert random.categorical(LOGITS, 3, dtype="int64", seed=1).dtype == "int64"
    with pytest.raises(
        ShapeError, match=r"categorical takes logits \(batch, classes\), not \(3,\)"
    ):
        random.categorical(LOGITS[0], 3)


def test_shuffle_gives_every_order_equally_often() -> None:
    orders: dict[tuple[int, ...], int] = {}
    generator = random.SeedGenerator(2)
    for _ in range(1200):
        order = tuple(random.shuffle(np.arange(3), seed=generator).tolist())
        orders[order] = orders.get(order, 0) + 1
    assert len(orders) == 6
    assert min(orders.values()) > 150
    table = np.arange(12).reshape(3, 4)
    columns = random.shuffle(table, axis=1, seed=3).numpy()
    np.testing.assert_array_equal(np.sort(columns, 1), table)
    assert not np.array_equal(columns, table)
    np.testing.assert_array_equal(columns - columns[0], table - table[0])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.5])
def test_gamma_has_its_moments(alpha: float) -> None:
    x = random.gamma((20000,), alpha, seed=4).numpy().astype(np.float64)
    assert x.min() >= 0
    # Mean and variance are alpha; the logarithm, which small values move, has the mean digamma.
    spread = 4 / np.sqrt(x.size)
    assert abs(x.mean() - alpha) < spread * np.sqrt(alpha)
    assert abs(x.var() / alpha - 1) < 8 * spread * np.sqrt(1 + 1 / alpha) / 4
    step = 1e-5
    digamma = (math.lgamma(alpha + step) - math.lgamma(alpha - step)) / (2 * step)
    positive = x[x > 0]
    assert abs(np.log(positive).mean() - digamma) < 4 * np.log(positive).std() / np.sqrt(x.size)


def test_gamma_takes_a_parameter_for_each_number() -> None:
    x = random.gamma((4000, 2), np.array([0.5, 9.0], np.float32), seed=4).numpy()
    np.testing.assert_allclose(x.mean(0), [0.5, 9.0], rtol=0.06)
    half = random.gamma((3,), 2.0, "float16", seed=1)
    assert half.dtype == "float16"


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (2.0, 5.0), (0.01, 0.01)])
def test_beta_has_its_moments(a: float, b: float) -> None:
    x = random.beta((20000,), a, b, seed=5).numpy().astype(np.float64)
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    assert 0 <= x.min() <= x.max() <= 1
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / x.size)
    assert abs(x.var() / variance - 1) < 0.05
    # Two draws, not one twice.
    assert np.unique(x).size > x.size / 10 or a < 0.1


def test_binomial_has_its_moments() -> None:
    counts, chances = np.array([0.0, 1.0, 12.0], np.float32), np.array([0.5, 0.9, 0.25], "f")
    x = random.binomial((20000, 3), counts, chances, seed=6).numpy().astype(np.float64)
    np.testing.assert_array_equal(x, np.round(x))
    variance = counts * chances * (1 - chances)
    assert (np.abs(x.mean(0) - counts * chances) <= 4 * np.sqrt(variance / len(x))).all()
    np.testing.assert_allclose(x.var(0), variance, rtol=0.06)
    assert (x.max(0) <= counts).all()

    @ot.function(input_signature=[ot.TensorSpec((None,), "float32")], fallback="error")
    def step(counts: Any) -> Any:
        return random.binomial((3,), counts, 0.5)

    with pytest.raises(ShapeError, match="binomial needs counts that are known while tracing"):
        step(counts)


def test_dtypes_are_float32_by_default() -> None:
    for draw in (random.uniform, random.normal, random.truncated_normal):
        assert draw((2,), dtype=None, seed=0).dtype == "float32"
