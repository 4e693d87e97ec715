"""`ot.data.Dataset` against plain Python loops over lists."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxtape import context
from onnxtape.data import (
    AUTOTUNE,
    INFINITE_CARDINALITY,
    UNKNOWN_CARDINALITY,
    Dataset,
    set_global_seed,
)
from onnxtape.tensor import Tensor


class Example(NamedTuple):
    image: Any
    label: Any


def values(dataset: Dataset) -> list[Any]:
    """The elements as nested Python lists, to compare with ==."""
    return [element.tolist() for element in dataset.as_numpy_iterator()]


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "onnxtape-prefetch"]


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    yield
    gc.collect()
    assert prefetch_threads() == []


# Chains of operations without chance, against a reference on lists

Operation = tuple[Callable[[Dataset], Dataset], Callable[[list[Any]], list[Any]]]


def grouped(items: list[Any], size: int, drop_remainder: bool) -> list[Any]:
    groups = [items[start : start + size] for start in range(0, len(items), size)]
    return [group for group in groups if len(group) == size or not drop_remainder]


def doubled(item: Any) -> Any:
    return [doubled(part) for part in item] if isinstance(item, list) else 2 * item


def repeat(count: int) -> Operation:
    return lambda dataset: dataset.repeat(count), lambda items: items * count


def take(count: int) -> Operation:
    return lambda dataset: dataset.take(count), lambda items: items[: None if count < 0 else count]


def skip(count: int) -> Operation:
    return lambda dataset: dataset.skip(count), lambda items: [] if count < 0 else items[count:]


def take_of_endless(count: int) -> Operation:
    return (
        lambda dataset: dataset.repeat().take(count),
        lambda items: list(itertools.islice(itertools.cycle(items), count)),
    )


def prefetch(size: int) -> Operation:
    return lambda dataset: dataset.prefetch(size), lambda items: items


def double() -> Operation:
    return (
        lambda dataset: dataset.map(lambda x: 2 * x.numpy()),
        lambda items: [doubled(item) for item in items],
    )


counts = st.integers(-1, 12)
operations = st.lists(
    st.one_of(
        st.builds(repeat, st.integers(0, 3)),
        st.builds(take, counts),
        st.builds(skip, counts),
        st.builds(take_of_endless, st.integers(0, 12)),
        st.builds(prefetch, st.integers(1, 3)),
        st.builds(double),
    ),
    max_size=4,
)


def apply(chain: list[Operation], dataset: Dataset, items: list[Any]) -> tuple[Dataset, list[Any]]:
    for on_dataset, on_list in chain:
        dataset, items = on_dataset(dataset), on_list(items)
    return dataset, items


@settings(deadline=None, max_examples=150)
@given(
    length=st.integers(0, 10),
    before=operations,
    size=st.integers(1, 7),
    drop_remainder=st.booleans(),
    after=operations,
    from_generator=st.booleans(),
)
def test_chains_match_lists(
    length: int,
    before: list[Operation],
    size: int,
    drop_remainder: bool,
    after: list[Operation],
    from_generator: bool,
) -> None:
    items = list(range(length))
    if from_generator:
        dataset = Dataset.from_generator(lambda: range(length))
    else:
        dataset = Dataset.from_tensor_slices(items)
    dataset, items = apply(before, dataset, items)
    dataset, items = apply(
        after, dataset.batch(size, drop_remainder), grouped(items, size, drop_remainder)
    )
    assert values(dataset) == items
    assert values(dataset) == items, "a second pass differs"
    if not from_generator:
        assert len(dataset) == len(items)
    else:  # a generator may have no elements to repeat
        assert dataset.cardinality() == UNKNOWN_CARDINALITY or len(dataset) >= len(items)


@settings(deadline=None)
@given(length=st.integers(0, 12), inner=st.integers(1, 4), outer=st.integers(1, 4))
def test_batches_of_batches(length: int, inner: int, outer: int) -> None:
    dataset = Dataset.range(length).batch(inner, drop_remainder=True).batch(outer)
    assert values(dataset) == grouped(grouped(list(range(length)), inner, True), outer, False)


# Elements


def test_iteration_yields_tensors() -> None:
    (batch,) = Dataset.from_tensor_slices((np.eye(3), {"label": [1, 2, 3]})).batch(3)
    images, rest = batch
    assert type(images) is Tensor
    assert type(rest["label"]) is Tensor
    np.testing.assert_array_equal(images.numpy(), np.eye(3))
    np.testing.assert_array_equal(rest["label"].numpy(), [1, 2, 3])


def test_nested_parts_stay_together() -> None:
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    y = np.arange(20)
    dataset = Dataset.from_tensor_slices({"pair": (x, Example(x + 100, y)), "y": y})
    for batch in dataset.shuffle(20).batch(6).as_numpy_iterator():
        rows = batch["y"]
        assert list(batch) == ["pair", "y"]
        assert type(batch["pair"][1]) is Example
        np.testing.assert_array_equal(batch["pair"][0], x[rows])
        np.testing.assert_array_equal(batch["pair"][1].image, x[rows] + 100)
        np.testing.assert_array_equal(batch["pair"][1].label, rows)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1, 2], "int32"),
        ([1, 2**40], "int64"),
        ([1.0, 2.0], "float32"),
        ([1, 2.5], "float32"),
        ([[1.0], [2.0]], "float32"),
        ([True, False], "bool"),
        ([np.float64(1.0), np.float64(2.0)], "float64"),
        ([np.zeros(2), np.zeros(2)], "float64"),
        (np.zeros(2), "float64"),
        (np.zeros(2, np.float16), "float16"),
        (np.zeros(2, np.int64), "int64"),
        (np.zeros(2, np.uint8), "uint8"),
        (range(2), "int32"),
    ],
)
def test_dtypes(data: Any, dtype: str) -> None:
    dataset = Dataset.from_tensor_slices(data)
    assert next(dataset.as_numpy_iterator()).dtype == dtype
    assert next(dataset.shuffle(2).batch(2).as_numpy_iterator()).dtype == dtype


@pytest.mark.parametrize(
    ("result", "dtype"),
    [(3, "int32"), (2.5, "float32"), (True, "bool"), (np.float64(1), "float64"), ((), None)],
)
def test_dtypes_of_map_results(result: Any, dtype: str | None) -> None:
    (element,) = Dataset.range(1).map(lambda _: result).as_numpy_iterator()
    if dtype is None:
        assert element == ()
    else:
        assert element.dtype == dtype
        assert element.shape == ()


def test_range_is_python_range() -> None:
    assert values(Dataset.range(2, 11, 3)) == [2, 5, 8]
    assert next(Dataset.range(2).as_numpy_iterator()).dtype == np.int64


def test_tensors_as_sources() -> None:
    dataset = Dataset.from_tensor_slices(Tensor(np.arange(6.0).reshape(3, 2)))
    assert values(dataset.batch(2)) == [[[0, 1], [2, 3]], [[4, 5]]]


def test_strided_sources() -> None:
    wide = np.arange(60).reshape(10, 6)
    for source in (wide[:, ::2], wide.T, wide[::-1]):
        (batch,) = Dataset.from_tensor_slices(source).shuffle(10).batch(99).as_numpy_iterator()
        assert sorted(batch.tolist()) == sorted(source.tolist())
        assert values(Dataset.from_tensor_slices(source)) == source.tolist()


def test_contiguous_batches_are_read_only_views_and_others_are_fresh() -> None:
    source = np.arange(12.0).reshape(6, 2)
    for batch in Dataset.from_tensor_slices(source).skip(1).batch(2).as_numpy_iterator():
        assert np.shares_memory(batch, source)
        with pytest.raises(ValueError, match="read-only"):
            batch[0] = 0
    (batch,) = Dataset.from_tensor_slices(source).shuffle(6).batch(6).as_numpy_iterator()
    batch[:] = -1
    assert source.flags.writeable
    np.testing.assert_array_equal(source, np.arange(12.0).reshape(6, 2))


def test_datasets_are_immutable() -> None:
    dataset = Dataset.range(4)
    dataset.skip(1).batch(2).map(lambda x: x).repeat()
    assert values(dataset) == [0, 1, 2, 3]


def test_iterators_are_independent() -> None:
    dataset = Dataset.range(3)
    pairs = [(int(a.numpy()), int(b.numpy())) for a in dataset for b in dataset]
    assert pairs == list(itertools.product(range(3), repeat=2))


# map


def test_map_spreads_tuples_only() -> None:
    def two(x: Tensor, y: Tensor) -> Any:
        assert isinstance(x, Tensor)
        return {"sum": x.numpy() + y.numpy(), "y": y}

    source = (np.arange(4), np.arange(4) * 10)
    mapped = Dataset.from_tensor_slices(source).batch(2).map(two)
    assert [e["sum"].tolist() for e in mapped.as_numpy_iterator()] == [[0, 11], [22, 33]]
    after_dict = mapped.map(lambda element: element["y"])
    assert values(after_dict) == [[0, 10], [20, 30]]
    named = Dataset.from_tensor_slices(Example(*source)).map(lambda example: example.label)
    assert values(named) == [0, 10, 20, 30]


def test_map_passes_tensors_through_unconverted() -> None:
    made = []

    def make(_: Tensor) -> Tensor:
        made.append(Tensor(np.ones(2)))
        return made[-1]

    assert [id(element) for element in Dataset.range(3).map(make)] == [id(t) for t in made]


def test_a_list_from_map_is_a_tuple_of_results() -> None:
    (element,) = Dataset.range(1).map(lambda x: [x, [1.0, 2.0]]).as_numpy_iterator()
    assert type(element) is tuple
    assert element[1].tolist() == [1.0, 2.0]


def test_map_is_lazy_and_take_asks_for_no_more() -> None:
    seen: list[int] = []

    def note(x: Tensor) -> Tensor:
        seen.append(int(x.numpy()))
        return x

    dataset = Dataset.range(100).map(note).batch(3).take(2)
    assert seen == []
    assert values(dataset) == [[0, 1, 2], [3, 4, 5]]
    assert seen == [0, 1, 2, 3, 4, 5]


def test_batch_aligns_dicts_by_key() -> None:
    elements = [{"a": 1, "b": 2}, {"b": 4, "a": 3}]
    (batch,) = Dataset.from_generator(lambda: elements).batch(2).as_numpy_iterator()
    assert {key: part.tolist() for key, part in batch.items()} == {"a": [1, 3], "b": [2, 4]}


def test_generators_may_reuse_their_array() -> None:
    def refill() -> Iterator[Any]:
        array = np.zeros(1)
        for number in range(3):
            array[0] = number
            yield array

    assert values(Dataset.from_generator(refill).batch(3)) == [[[0.0], [1.0], [2.0]]]


@pytest.mark.parametrize("trace", [True, False])
def test_map_runs_eagerly_inside_a_tape_or_trace(trace: bool) -> None:
    inside: list[Any] = []

    def look(x: Tensor) -> Tensor:
        inside.append((context.state.symbolic, list(context.state.tapes)))
        return x

    symbolic, tape = cast(Any, object()), cast(Any, object())
    with context.entered(symbolic if trace else None):
        context.state.tapes.append(tape)
        try:
            assert values(Dataset.range(2).map(look)) == [0, 1]
            assert context.state.tapes == [tape]
        finally:
            context.state.tapes.remove(tape)
    assert inside == [(None, [])] * 2


# Lengths


def test_cardinality() -> None:
    rows, generated = Dataset.range(10), Dataset.from_generator(lambda: range(10))
    assert rows.cardinality() == len(rows) == 10
    assert rows.repeat().cardinality() == INFINITE_CARDINALITY
    assert rows.repeat().batch(3).skip(2).cardinality() == INFINITE_CARDINALITY
    assert len(rows.repeat().take(25).batch(10)) == 3
    assert generated.cardinality() == UNKNOWN_CARDINALITY
    assert generated.batch(3).take(1).cardinality() == UNKNOWN_CARDINALITY
    assert generated.repeat().cardinality() == INFINITE_CARDINALITY
    assert len(generated.take(0)) == len(generated.repeat(0)) == 0
    assert len(rows.shuffle(3).map(lambda x: x).prefetch(1)) == 10
    assert repr(rows.repeat()) == "<Dataset cardinality=infinite>"
    assert repr(rows.batch(4)) == "<Dataset cardinality=3>"


def test_repeating_nothing_ends() -> None:
    assert values(Dataset.range(0).repeat()) == []
    assert values(Dataset.from_generator(lambda: []).repeat().batch(2)) == []
    assert len(Dataset.range(0).repeat()) == 0


def test_a_dataset_is_true_without_a_length() -> None:
    assert Dataset.range(3).repeat()
    assert Dataset.range(0)


# prefetch


def test_prefetch_runs_at_most_its_buffer_ahead() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            yield number

    iterator = Dataset.from_generator(count).prefetch(3).as_numpy_iterator()
    assert made == []
    for consumed in range(1, 6):
        assert next(iterator) == consumed - 1
        deadline = time.monotonic() + 5
        while len(made) < consumed + 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(made) == consumed + 3
    del iterator
    assert len(made) == 8


def test_prefetch_works_on_another_thread() -> None:
    threads = {
        int(x.numpy())
        for x in Dataset.range(4).map(lambda _: threading.get_ident()).prefetch(AUTOTUNE)
    }
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_prefetch_raises_the_error_with_its_traceback() -> None:
    def faulty_step(x: Tensor) -> Tensor:
        if int(x.numpy()) == 2:
            raise RuntimeError("no third element")
        return x

    iterator = Dataset.range(5).map(faulty_step).prefetch(2).prefetch(2).as_numpy_iterator()
    assert [int(next(iterator)), int(next(iterator))] == [0, 1]
    with pytest.raises(RuntimeError, match="no third element") as raised:
        next(iterator)
    assert "faulty_step" in [frame.name for frame in traceback.extract_tb(raised.tb)]
    assert list(iterator) == []


@pytest.mark.parametrize("stages", [1, 3])
def test_leaving_the_loop_ends_the_threads(stages: int) -> None:
    dataset = Dataset.range(10).repeat().shuffle(5).batch(2)
    for _ in range(stages):
        dataset = dataset.prefetch(2).map(lambda x: x)
    for _ in dataset:
        assert len(prefetch_threads()) == stages
        break
    deadline = time.monotonic() + 5
    while prefetch_threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert prefetch_threads() == []


def test_an_error_in_the_loop_ends_the_thread() -> None:
    def loop() -> None:
        for _ in Dataset.range(10).repeat().prefetch(2):
            raise KeyError("body")

    with pytest.raises(KeyError):
        loop()
    assert prefetch_threads() == []


def test_no_thread_starts_before_the_first_element() -> None:
    iterator = iter(Dataset.range(3).prefetch(1))
    assert prefetch_threads() == []
    assert len(list(iterator)) == 3
    assert prefetch_threads() == []


def test_passes_over_a_prefetched_dataset_restart() -> None:
    dataset = Dataset.range(5).prefetch(2).repeat(3).batch(4)
    assert values(dataset) == grouped([0, 1, 2, 3, 4] * 3, 4, False)


EXIT_WITH_LIVE_ITERATORS = """
import time
from onnxtape.data import Dataset

endless = Dataset.range(10).repeat().batch(2).prefetch(2).as_numpy_iterator()
next(endless)

def stuck():
    yield 1
    time.sleep(600)

waiting = Dataset.from_generator(stuck).prefetch(1).as_numpy_iterator()
next(waiting)
print("left")
"""


def test_the_interpreter_exits_while_threads_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT_WITH_LIVE_ITERATORS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")


# Errors


def ragged() -> Dataset:
    return Dataset.range(3).map(lambda x: {"text": np.zeros(2 + int(x.numpy()))}).batch(2)


def forgets_to_return(x: Tensor) -> None:
    x.numpy().sum()


@pytest.mark.parametrize(
    ("attempt", "error", "text"),
    [
        (
            lambda: Dataset.from_tensor_slices({"x": np.zeros((3, 2)), "y": ([1, 2], [1, 2, 3])}),
            ValueError,
            "from_tensor_slices: all parts need the same first dimension, "
            "but ['x'] has 3, ['y'][0] has 2, ['y'][1] has 3",
        ),
        (
            lambda: Dataset.from_tensor_slices((np.zeros(3), np.float32(5))),
            ValueError,
            "the scalar 5.0 at [1] has none",
        ),
        (lambda: Dataset.from_tensor_slices(5), ValueError, "the scalar 5 has none"),
        (lambda: Dataset.from_tensor_slices(()), ValueError, "there is no array in ()"),
        (
            lambda: Dataset.from_tensor_slices([[1, 2], [3]]),
            TypeError,
            "from_tensor_slices: cannot make a tensor of a ragged sequence",
        ),
        (
            lambda: Dataset.from_tensor_slices([{"a": 1}]),
            TypeError,
            "from_tensor_slices: cannot make a tensor of dtype object (from list)",
        ),
        (
            lambda: Dataset.from_tensor_slices(np.array([None, 1])),
            TypeError,
            "from_tensor_slices: cannot make a tensor of dtype object (from ndarray)",
        ),
        (
            lambda: Dataset.from_generator(iter([1])),  # type: ignore[arg-type]
            TypeError,
            "from_generator needs a function that returns a new iterator for each pass, not",
        ),
        (lambda: Dataset.range(3).batch(0), ValueError, "batch_size must be at least 1, not 0"),
        (lambda: Dataset.range(3).batch(-2), ValueError, "batch_size must be at least 1, not -2"),
        (
            lambda: Dataset.range(3).batch(1.5),  # type: ignore[arg-type]
            TypeError,
            "batch: batch_size must be an integer, not 1.5",
        ),
        (lambda: Dataset.range(3).shuffle(0), ValueError, "buffer_size must be at least 1, not 0"),
        (lambda: Dataset.range(3).shuffle(3, -1), ValueError, "seed must be at least 0, not -1"),
        (lambda: Dataset.range(3).repeat(-2), ValueError, "count must be at least -1, not -2"),
        (lambda: Dataset.range(3).take(-2), ValueError, "count must be at least -1, not -2"),
        (lambda: Dataset.range(3).skip(-2), ValueError, "count must be at least -1, not -2"),
        (
            lambda: Dataset.range(3).prefetch(0),
            ValueError,
            "prefetch: buffer_size must be at least 1, or AUTOTUNE, not 0",
        ),
        (lambda: Dataset.range(3).map(3), TypeError, "map needs a function, not 3"),  # type: ignore[arg-type]
        (lambda: set_global_seed(-1), ValueError, "the seed must be at least 0, not -1"),
        (lambda: len(Dataset.range(3).repeat()), TypeError, "len: the dataset is infinite"),
        (
            lambda: len(Dataset.from_generator(list)),
            TypeError,
            "len: how many elements a generator yields is unknown before it has run",
        ),
        (
            lambda: list(ragged()),
            ValueError,
            "batch: element 1 of the batch has shape (3,) at ['text'], "
            "but element 0 has shape (2,); bring them to one shape before batch()",
        ),
        (
            lambda: list(Dataset.range(3).batch(2).batch(2)),
            ValueError,
            "element 1 of the batch has shape (1,), but element 0 has shape (2,)",
        ),
        (
            lambda: list(Dataset.from_generator(lambda: [1, 2.5]).batch(2)),
            ValueError,
            "element 1 of the batch has dtype float32, but element 0 has dtype int32",
        ),
        (
            lambda: list(Dataset.from_generator(lambda: [(1, (1, 2)), (1, {"a": 1})]).batch(2)),
            ValueError,
            "element 1 of the batch is a dict with the keys ['a'] at [1], "
            "but element 0 is a tuple of 2",
        ),
        (
            lambda: list(Dataset.from_generator(lambda: [(1,), 1]).batch(2)),
            ValueError,
            "element 1 of the batch is an array, but element 0 is a tuple of 1",
        ),
        (
            lambda: list(Dataset.range(3).map(forgets_to_return)),
            TypeError,
            "test_data.py:LINE): cannot make a tensor of dtype object (from NoneType)",
        ),
    ],
)
def test_errors(attempt: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        attempt()
    line = forgets_to_return.__code__.co_firstlineno
    assert text.replace("LINE", str(line)) in str(raised.value)
