"""`Dataset.shuffle`: chance, and what decides it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape.data import Dataset, set_global_seed
from onnxtape.data.shuffling import _Seeds
from tests.frontend.test_data import grouped, values


@pytest.fixture
def fresh_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `set_global_seed` inside one test."""
    monkeypatch.setattr("onnxtape.data.shuffling._seeds", _Seeds())


@settings(deadline=None)
@given(
    length=st.integers(1, 40),
    buffer_size=st.integers(1, 50),
    epochs=st.integers(1, 3),
    size=st.integers(1, 9),
    seed=st.integers(0, 2**40),
    mapped=st.booleans(),
)
def test_each_sample_appears_once_per_epoch(
    length: int, buffer_size: int, epochs: int, size: int, seed: int, mapped: bool
) -> None:
    dataset = Dataset.range(length)
    if mapped:  # elements instead of row numbers go through the shuffle
        dataset = dataset.map(lambda x: x)
    dataset = dataset.shuffle(buffer_size, seed=seed).repeat(epochs).batch(size)
    flat = list(itertools.chain.from_iterable(values(dataset)))
    for epoch in range(epochs):
        assert sorted(flat[epoch * length : (epoch + 1) * length]) == list(range(length))
    assert [len(batch) for batch in values(dataset)] == [
        len(group) for group in grouped([0] * (length * epochs), size, False)
    ]


@settings(deadline=None)
@given(
    length=st.integers(1, 3000),
    buffer_size=st.integers(1, 3000),
    seed=st.integers(0, 99),
    mapped=st.booleans(),
)
def test_a_small_buffer_looks_only_that_far_ahead(
    length: int, buffer_size: int, seed: int, mapped: bool
) -> None:
    if mapped:
        length = length % 100
    dataset = Dataset.range(length)
    if mapped:
        dataset = dataset.map(lambda x: x)
    order = values(dataset.shuffle(buffer_size, seed=seed))
    assert all(row < position + buffer_size for position, row in enumerate(order))
    assert sorted(order) == list(range(length))


def test_shuffle_after_repeat_mixes_epochs() -> None:
    order = values(Dataset.range(10).repeat(20).shuffle(30, seed=1))
    assert Counter(order) == dict.fromkeys(range(10), 20)
    epochs = [order[start : start + 10] for start in range(0, 200, 10)]
    assert any(sorted(epoch) != list(range(10)) for epoch in epochs)


def test_shuffle_of_an_endless_dataset() -> None:
    dataset = Dataset.range(5).repeat().shuffle(8, seed=1).batch(3)
    batches = list(itertools.islice(dataset.as_numpy_iterator(), 500))
    assert all(batch.shape == (3,) for batch in batches)
    counts = Counter(np.concatenate(batches).tolist())
    assert all(abs(counts[row] - 300) <= 8 for row in range(5))


@pytest.mark.parametrize(("buffer_size", "reachable"), [(1, 1), (3, 3), (6, 6), (99, 6)])
@pytest.mark.parametrize("mapped", [False, True])
def test_the_first_draw_is_uniform_over_the_buffer(
    buffer_size: int, reachable: int, mapped: bool
) -> None:
    source = Dataset.range(6).map(lambda x: x) if mapped else Dataset.range(6)
    dataset = source.shuffle(buffer_size, seed=0).take(1).repeat(600)
    counts = Counter(values(dataset))
    assert set(counts) == set(range(reachable))
    expected = 600 / reachable  # each count is binomial; 5 standard deviations
    assert all(abs(count - expected) <= 5 * expected**0.5 for count in counts.values())


def test_a_full_shuffle_reaches_every_permutation() -> None:
    orders = Counter(tuple(values(Dataset.range(3).shuffle(3, seed=s))) for s in range(600))
    assert set(orders) == set(itertools.permutations(range(3)))
    assert all(abs(count - 100) <= 50 for count in orders.values())


def test_passes_and_epochs_reshuffle() -> None:
    dataset = Dataset.range(50).shuffle(50, seed=7)
    first, second = values(dataset), values(dataset)
    assert first != second
    epochs = values(dataset.repeat(2))
    assert len({tuple(order) for order in (first, second, epochs[:50], epochs[50:])}) == 4


def test_without_reshuffling_every_pass_is_the_same() -> None:
    dataset = Dataset.range(50).shuffle(50, reshuffle_each_iteration=False)
    first = values(dataset)
    assert first != list(range(50))
    assert values(dataset) == first
    assert values(dataset.repeat(2)) == first + first


def test_a_seed_decides_the_order_of_every_pass() -> None:
    one, other = (Dataset.range(50).shuffle(50, seed=7) for _ in range(2))
    assert [values(one), values(one)] == [values(other), values(other)]
    assert values(Dataset.range(50).shuffle(50, seed=8)) != values(
        Dataset.range(50).shuffle(50, seed=7)
    )


@pytest.mark.usefixtures("fresh_seeds")
def test_the_global_seed_decides_unseeded_shuffles() -> None:
    def orders(seed: int | None) -> list[list[Any]]:
        if seed is not None:
            set_global_seed(seed)
        first, second = (Dataset.range(50).shuffle(50) for _ in range(2))
        return [values(first), values(second), values(first)]

    assert orders(3) == orders(3)
    assert orders(3) != orders(4)
    assert len({tuple(order) for order in orders(3)}) == 3
    assert orders(None) != orders(None)


@pytest.mark.usefixtures("fresh_seeds")
def test_the_global_seed_leaves_seeded_shuffles_alone() -> None:
    before = values(Dataset.range(50).shuffle(50, seed=7))
    set_global_seed(3)
    assert values(Dataset.range(50).shuffle(50, seed=7)) == before
