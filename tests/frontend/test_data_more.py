"""Further methods of `ot.data.Dataset`: elements looked into, and pipelines put together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.data import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY, Dataset


def numbers(*bounds: int) -> Dataset:
    return Dataset.range(*bounds)


def values(dataset: Dataset) -> list[Any]:
    return [
        tuple(part.tolist() for part in x) if isinstance(x, tuple) else x.tolist()
        for x in dataset.as_numpy_iterator()
    ]


def sequences() -> Iterator[Any]:
    for i in range(5):
        yield np.full(i + 1, i, np.int32), np.full((2, 5 - i), i, np.float32)


MADE: dict[str, tuple[Callable[[], Dataset], list[Any], int]] = {
    "filter": (lambda: numbers(10).filter(lambda x: x % 3 == 1), [1, 4, 7], UNKNOWN_CARDINALITY),
    "filter of tuples": (
        lambda: Dataset.zip(numbers(4), numbers(4, 8)).filter(lambda x, y: y > 5),
        [(2, 6), (3, 7)],
        UNKNOWN_CARDINALITY,
    ),
    "concatenate": (lambda: numbers(3).concatenate(numbers(7, 9)), [0, 1, 2, 7, 8], 5),
    "enumerate": (lambda: numbers(5, 8).enumerate(start=2), [(2, 5), (3, 6), (4, 7)], 3),
    "unbatch": (
        lambda: numbers(5).batch(2).unbatch(),
        [0, 1, 2, 3, 4],
        UNKNOWN_CARDINALITY,
    ),
    "flat_map": (
        lambda: numbers(4).flat_map(lambda n: numbers(int(n))),
        [0, 0, 1, 0, 1, 2],
        UNKNOWN_CARDINALITY,
    ),
    "shard": (lambda: numbers(11).shard(4, 1), [1, 5, 9], 3),
    "shard of batches": (lambda: numbers(7).batch(2).shard(2, 1), [[2, 3], [6]], 2),
    "shard of elements": (
        lambda: numbers(7).map(lambda x: x * 10).shard(3, 2),
        [20, 50],
        2,
    ),
    "apply": (lambda: numbers(4).apply(lambda d: d.take(2)), [0, 1], 2),
    "from_tensors": (lambda: Dataset.from_tensors([1, 2]), [[1, 2]], 1),
    "arguments": (
        lambda: Dataset.from_generator(lambda n: iter(range(n)), args=(3,)),
        [0, 1, 2],
        UNKNOWN_CARDINALITY,
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_elements(name: str) -> None:
    make, expected, count = MADE[name]
    dataset = make()
    assert values(dataset) == expected
    assert values(dataset) == expected
    assert dataset.cardinality() == count
    assert values(dataset.skip(1).take(2)) == expected[1:3]
    if not isinstance(expected[0], list):
        assert len(values(dataset.batch(2))) == -(-len(expected) // 2)


def test_endless_ones_stay_endless() -> None:
    endless = numbers(2).repeat()
    for dataset in (endless.filter(lambda x: x > 0), numbers(2).concatenate(endless)):
        assert dataset.cardinality() == INFINITE_CARDINALITY
    found = itertools.islice(endless.shard(2, 1).as_numpy_iterator(), 3)
    assert [int(x) for x in found] == [1, 1, 1]


@pytest.mark.parametrize("name", [name for name in MADE if name != "from_tensors"])
def test_a_pass_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    make, expected, _ = MADE[name]
    first, second = make(), make()
    walk = iter(first)
    next(walk)
    ot.save_checkpoint(tmp_path / "position.safetensors", first)
    ot.restore_checkpoint(tmp_path / "position.safetensors", second)
    assert values(second) == expected[1:]
    assert values(second) == expected


def test_batches_are_filled_up_to_their_largest() -> None:
    batches = list(Dataset.from_generator(sequences).padded_batch(2).as_numpy_iterator())
    assert [(x.shape, y.shape) for x, y in batches] == [
        ((2, 2), (2, 2, 5)),
        ((2, 4), (2, 2, 3)),
        ((1, 5), (1, 2, 1)),
    ]
    np.testing.assert_array_equal(batches[0][0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(batches[1][1][1], [[3, 3, 0], [3, 3, 0]])
    assert [x.dtype for x in batches[0]] == [np.int32, np.float32]


def test_shapes_and_values_of_a_padded_batch() -> None:
    dataset = Dataset.from_generator(sequences)
    padded = dataset.padded_batch(5, ((7,), (None, 6)), (-1, 0.5), drop_remainder=True)
    ((x, y),) = padded.as_numpy_iterator()
    assert x.shape == (5, 7)
    assert y.shape == (5, 2, 6)
    np.testing.assert_array_equal(x[1], [1, 1, -1, -1, -1, -1, -1])
    np.testing.assert_array_equal(y[4, 0], [4, 0.5, 0.5, 0.5, 0.5, 0.5])
    named = dataset.map(lambda x, y: {"x": x, "y": y})
    first = next(named.padded_batch(3, padding_values={"x": 9, "y": 0}).as_numpy_iterator())
    np.testing.assert_array_equal(first["x"][0], [0, 9, 9])


def test_sequences_of_a_generator_train_a_model() -> None:
    model = ot.Sequential([ot.layers.Embedding(9, 3, mask_zero=True), ot.layers.GRU(4)])
    model.compile("sgd", "mse")
    dataset = Dataset.from_generator(sequences).map(lambda x, y: (x + 1, np.zeros(4, np.float32)))
    history = model.fit(dataset.padded_batch(2), epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]
    # For exact sizes, for any length, and for any batch, too.
    assert model.train_function.trace_count == 3


def test_a_signature_gives_dtypes_and_is_checked() -> None:
    spec = ot.TensorSpec
    signature = (spec((None,), "int64"), spec((2, None), "float16"))
    for x, y in Dataset.from_generator(sequences, output_signature=signature):
        assert (x.dtype, y.dtype) == (np.int64, np.float16)
    wrong = Dataset.from_generator(sequences, output_signature=(signature[0], spec((3, None))))
    with pytest.raises(ValueError, match=r"an array of shape \(2, 5\) where output_signature has"):
        values(wrong)
    with pytest.raises(ValueError, match=r"an element has \['\[0\]', '\[1\]'\], and output_sign"):
        values(Dataset.from_generator(sequences, output_signature=signature[0]))


def test_reduce() -> None:
    assert int(numbers(5).reduce(np.int64(10), lambda total, x: total + x)) == 20


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        (lambda: numbers(3).filter(3), TypeError, "filter needs a function, not 3"),
        (
            lambda: values(numbers(3).flat_map(lambda n: n)),
            TypeError,
            "the function gives a dataset",
        ),
        (lambda: numbers(3).shard(2, 2), ValueError, r"index is below num_shards \(2\), not 2"),
        (lambda: numbers(3).window, AttributeError, "timeseries_dataset_from_array"),
        (lambda: Dataset.list_files, AttributeError, "loop over files in a generator"),
        (lambda: ot.data.TFRecordDataset, AttributeError, "read files in a generator"),
        (
            lambda: values(Dataset.from_generator(sequences).padded_batch(2, ((1,), (2, 9)))),
            ValueError,
            r"an array of \(2,\) does not fit into \(1,\)",
        ),
        (
            lambda: values(Dataset.from_generator(sequences).padded_batch(2, ((1, 2), (2, 9)))),
            ValueError,
            r"the arrays at \[0\] have 1 dimensions, not 2",
        ),
        (
            lambda: values(Dataset.from_generator(sequences).padded_batch(2, None, {"x": 1})),
            ValueError,
            r"nothing is given for the elements' \[0\]",
        ),
    ],
)
def test_mistakes(attempt: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()
