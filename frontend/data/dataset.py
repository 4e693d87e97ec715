"""`Dataset`: the public face of an input pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from onnxtape import missing
from onnxtape.data.arguments import integer, sliceable
from onnxtape.data.further_stages import (
    Concatenate,
    Enumerate,
    Every,
    Filter,
    FlatMap,
    PaddedBatch,
    conforming,
)
from onnxtape.data.position import Position
from onnxtape.data.prefetching import Prefetch
from onnxtape.data.shuffling import Shuffle
from onnxtape.data.stages import (
    INFINITE_CARDINALITY,
    UNKNOWN_CARDINALITY,
    Batch,
    Cache,
    Gather,
    Generate,
    Map,
    Repeat,
    Rows,
    Skip,
    Stage,
    Take,
    Zip,
)
from onnxtape.data.structure import Structure, map_structure, to_arrays, to_numpy, to_tensors

AUTOTUNE = -1
_AUTOTUNED_BUFFER = 2


class Dataset:
    """A lazy, immutable sequence of elements, with the names and meanings of `tf.data.Dataset`.

        batches = (
            ot.data.Dataset.from_tensor_slices((images, labels))
            .shuffle(60000, seed=0)
            .batch(64)
            .map(lambda x, y: (x / 255.0, y))
            .prefetch(ot.data.AUTOTUNE)
        )
        for x, y in batches:
            step(x, y)

    An element is a `Tensor`, or tensors nested in tuples, named tuples and dicts. Each method
    returns a new dataset; each `for` loop starts from the beginning, in a new order where there is
    a shuffle.

    Shuffling and batching arrays in memory is fast: only row numbers are shuffled, and each batch
    is copied out of the arrays at once. `map` ends this, because what follows it works on the
    elements that it made. So call `map` after `batch`, on whole batches, where you can.

    A dataset can be a part of a checkpoint, beside the model and the optimizer; it is the dataset
    that you loop over which knows how far the loop has come:

        ot.save_checkpoint(path, {"model": model, "optimizer": optimizer, "batches": batches})

    Restored, in another process too, the following passes have the orders that they would have
    had, with and without a seed. Saved within a loop, the next loop yields what was left of that
    pass. Batches already seen are passed over without being made, except before a `shuffle` or
    `cache` of mapped or generated elements. The elements themselves are not saved, nor is
    what `cache` keeps: it is made again.
    """

    # Of tf.data's, for those who look for them.
    window = missing.Missing("flat_map, or ot.utils.timeseries_dataset_from_array, makes windows")
    interleave = missing.Missing("flat_map takes one dataset after the other")
    list_files = missing.Missing("from_tensor_slices takes numbers; loop over files in a generator")
    bucket_by_sequence_length = missing.Missing("padded_batch fills each batch up to its longest")
    save = missing.Missing("numpy.savez keeps arrays; ot.save_checkpoint, how far the loop is")

    def __init__(self, stage: Stage, arrays: Structure = None, *, batched: bool = False) -> None:
        """Not for users: see `from_tensor_slices`, `from_generator` and `range`.

        With `arrays`, the stage yields row numbers of these, or batches of them if `batched`;
        without, it yields elements.
        """
        self._stage = stage
        self._arrays = arrays
        self._batched = batched
        self._position = Position(self._elements())

    @property
    def position(self) -> Position:
        """How far the loop over this dataset has come, for `ot.save_checkpoint`."""
        return self._position

    @staticmethod
    def from_tensor_slices(tensors: Structure) -> Dataset:
        """A dataset of the slices of arrays along their first dimension.

        Args:
            tensors: an array, tensor or list of numbers of shape (n, ...), or several of the same
                n nested in tuples and dicts. NumPy dtypes are kept; Python numbers become float32
                and int32. C-contiguous arrays are not copied, so do not change them while the
                dataset is in use. Batches that need no copy are read-only views into them.

        Raises:
            ValueError: there is no array, one is a scalar, or the first dimensions differ.
            TypeError: a part is no array.
        """
        arrays, length = sliceable(tensors)
        return Dataset(Rows(length), arrays)

    @staticmethod
    def from_generator(
        generator: Callable[..., Iterable[Structure]],
        output_signature: Structure = None,
        args: Sequence[Any] = (),
    ) -> Dataset:
        """A dataset of what `generator(*args)` yields: it is called anew for each pass.

        Elements are arrays, tensors, numbers or lists of them, nested in tuples and dicts. Arrays
        are copied.

        Args:
            output_signature: `ot.TensorSpec`s, nested as the elements, which get their dtypes.
            args: for the generator.

        Raises:
            TypeError: `generator` cannot be called (pass the function, not its result).
            ValueError: while iterating, if an element does not fit the signature.
        """
        if not callable(generator):
            raise TypeError(
                "from_generator needs a function that returns a new iterator for each pass, not "
                f"{generator!r}; pass the generator function without calling it"
            )
        made = Dataset(Generate(functools.partial(generator, *args) if args else generator))
        return (
            made
            if output_signature is None
            else Dataset(conforming(made._elements(), output_signature))
        )

    @staticmethod
    def from_tensors(tensors: Structure) -> Dataset:
        """A dataset of one element."""
        arrays = to_numpy(to_arrays(tensors, "from_tensors"))
        return Dataset.from_tensor_slices(map_structure(lambda array: array[None], arrays))

    @staticmethod
    def range(*bounds: int) -> Dataset:
        """The int64 scalars of Python's `range(*bounds)`."""
        return Dataset.from_tensor_slices(np.arange(*bounds, dtype=np.int64))

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> Dataset:
        """Draw each element at random from the next `buffer_size` ones.

        A `buffer_size` of at least the dataset's length is a uniform shuffle of the whole.
        Before `repeat` every epoch holds each element once; after it, epochs mix.

        Args:
            buffer_size: at least 1.
            seed: at least 0; the order then depends on nothing else. None: on `ot.set_seed` if
                it was called before, else on chance.
            reshuffle_each_iteration: whether each pass has a new order.

        Raises:
            ValueError: `buffer_size` < 1 or `seed` < 0.
        """
        size = integer("shuffle", "buffer_size", buffer_size, least=1)
        if seed is not None:
            seed = integer("shuffle", "seed", seed, least=0)
        return self._on_items(Shuffle(self._stage, size, seed, reshuffle_each_iteration))

    def batch(self, batch_size: int, drop_remainder: bool = False) -> Dataset:
        """Stack groups of consecutive elements along a new first axis.

        Args:
            batch_size: at least 1.
            drop_remainder: leave out a last batch that is smaller.

        Raises:
            ValueError: `batch_size` < 1; while iterating, if the elements of a batch differ in
                structure, shape or dtype.
        """
        size = integer("batch", "batch_size", batch_size, least=1)
        if self._arrays is None or self._batched:
            return Dataset(Batch(self._elements(), size, drop_remainder))
        return Dataset(Batch(self._stage, size, drop_remainder), self._arrays, batched=True)

    def padded_batch(
        self,
        batch_size: int,
        padded_shapes: Structure = None,
        padding_values: Structure = None,
        drop_remainder: bool = False,
    ) -> Dataset:
        """`batch`, of elements whose arrays differ in size: they are filled up at their ends.

        Args:
            padded_shapes: the shape for each array, nested as the elements, or one for all; None,
                for a shape or in it, is the largest of the batch.
            padding_values: what is filled up with, in the same way; 0 by default.

        Raises:
            ValueError: `batch_size` < 1; while iterating, if an array is larger than its shape.
        """
        size = integer("padded_batch", "batch_size", batch_size, least=1)
        elements = self._elements()
        return Dataset(PaddedBatch(elements, size, drop_remainder, padded_shapes, padding_values))

    def unbatch(self) -> Dataset:
        """The slices of each element along the first dimension: what `batch` put together."""
        return Dataset(FlatMap(self._elements(), lambda e: self.from_tensor_slices(e)._elements()))

    def flat_map(self, map_func: Callable[..., Dataset]) -> Dataset:
        """The elements of the datasets that `map_func` makes of each element, as `map` does."""

        def stage(element: Structure) -> Stage:
            given = to_tensors(element)
            made = map_func(*given) if type(given) is tuple else map_func(given)
            if not isinstance(made, Dataset):
                raise TypeError(f"flat_map: the function gives a dataset, not {made!r}")
            return made._elements()

        return Dataset(FlatMap(self._elements(), stage))

    def filter(self, predicate: Callable[..., Any]) -> Dataset:
        """The elements for which `predicate` is true, called as `map` calls its function."""
        if not callable(predicate):
            raise TypeError(f"filter needs a function, not {predicate!r}")
        return Dataset(Filter(self._elements(), predicate))

    def concatenate(self, dataset: Dataset) -> Dataset:
        """The elements of this dataset, then those of another one."""
        return Dataset(Concatenate((self._elements(), dataset._elements())))

    def enumerate(self, start: int = 0) -> Dataset:
        """Pairs (number, element), counted from `start`."""
        return Dataset(Enumerate(self._elements(), integer("enumerate", "start", start, least=0)))

    def shard(self, num_shards: int, index: int) -> Dataset:
        """Each `num_shards`-th element, from the one at `index`.

        Raises:
            ValueError: `index` is not below `num_shards`.
        """
        count = integer("shard", "num_shards", num_shards, least=1)
        first = integer("shard", "index", index, least=0)
        if first >= count:
            raise ValueError(f"shard: index is below num_shards ({count}), not {first}")
        return self._on_items(Every(self._stage, count, first))

    def apply(self, transformation_func: Callable[[Dataset], Dataset]) -> Dataset:
        """What the function makes of this dataset."""
        return transformation_func(self)

    def reduce(self, initial_state: Any, reduce_func: Callable[[Any, Structure], Any]) -> Any:
        """`reduce_func(state, element)` for each element, from the initial state on."""
        return functools.reduce(reduce_func, self, initial_state)

    @staticmethod
    def zip(*datasets: Any) -> Dataset:
        """Tuples of the elements of several datasets, as long as all have one.

        Args:
            datasets: several, or one tuple or list of them.
        """
        parts = datasets[0] if len(datasets) == 1 else datasets
        if not isinstance(parts, (tuple, list)) or not all(isinstance(d, Dataset) for d in parts):
            raise TypeError("zip takes datasets: Dataset.zip(a, b)")
        return Dataset(Zip(tuple(part._elements() for part in parts)))

    def map(
        self,
        function: Callable[..., Any],
        num_parallel_calls: int | None = None,
        deterministic: bool | None = None,
    ) -> Dataset:
        """Replace each element by `function(element)`; a tuple is passed as several arguments.

        `function` gets tensors, and runs eagerly. It may return tensors, arrays, numbers or lists
        of numbers, nested in tuples and dicts; a list at the top is a tuple of results. Arrays are
        not copied, so return a new one each time. tf.data's further arguments have no meaning here.

        Raises:
            TypeError: while iterating, if a result holds None or is no array.
        """
        if not callable(function):
            raise TypeError(f"map needs a function, not {function!r}")
        return Dataset(Map(self._elements(), function))

    def prefetch(self, buffer_size: int) -> Dataset:
        """Make up to `buffer_size` elements ahead, on a background thread.

        An exception there is raised by the loop over the dataset, with its traceback. The thread
        ends with the loop, also when that is left early.

        Args:
            buffer_size: at least 1, or `AUTOTUNE`.

        Raises:
            ValueError: `buffer_size` is neither.
        """
        if buffer_size == AUTOTUNE:
            buffer_size = _AUTOTUNED_BUFFER
        size = integer("prefetch", "buffer_size", buffer_size, least=1, special="AUTOTUNE")
        return Dataset(Prefetch(self._elements(), size))

    def cache(self) -> Dataset:
        """The dataset; the elements of the first whole pass are kept for all later ones."""
        return Dataset(Cache(self._elements()))

    def repeat(self, count: int | None = None) -> Dataset:
        """Go through the dataset `count` times; None or -1: without end.

        Raises:
            ValueError: `count` < -1.
        """
        if count is not None:
            count = integer("repeat", "count", count, least=-1)
        return self._on_items(Repeat(self._stage, None if count == -1 else count))

    def take(self, count: int) -> Dataset:
        """At most the first `count` elements; -1: all.

        Raises:
            ValueError: `count` < -1.
        """
        count = integer("take", "count", count, least=-1)
        return self if count == -1 else self._on_items(Take(self._stage, count))

    def skip(self, count: int) -> Dataset:
        """All but the first `count` elements; -1: none.

        Raises:
            ValueError: `count` < -1.
        """
        count = integer("skip", "count", count, least=-1)
        return self.take(0) if count == -1 else self._on_items(Skip(self._stage, count))

    def cardinality(self) -> int:
        """The number of elements, `INFINITE_CARDINALITY` (-1) or `UNKNOWN_CARDINALITY` (-2).

        The length of a generator is unknown. Repeated without end it counts as infinite, as in
        `tf.data`, although it may turn out to be empty.
        """
        return self._stage.cardinality()

    def as_numpy_iterator(self) -> Iterator[Structure]:
        """Iterate with NumPy arrays instead of tensors. Some are read-only views of the source."""
        return map(to_numpy, self._position.walk())

    def __iter__(self) -> Iterator[Structure]:
        return map(to_tensors, self._position.walk())

    def __len__(self) -> int:
        """The number of elements.

        Raises:
            TypeError: the dataset is infinite, or its length is unknown.
        """
        count = self.cardinality()
        if count == INFINITE_CARDINALITY:
            raise TypeError(
                "len: the dataset is infinite, because of repeat() without a count; "
                "give a count, or limit it with take()"
            )
        if count == UNKNOWN_CARDINALITY:
            raise TypeError(
                "len: how many elements a generator yields is unknown before it has run; "
                "count them with sum(1 for _ in dataset)"
            )
        return count

    def __bool__(self) -> bool:
        return True  # `if dataset:` asks whether there is one, and an infinite one has no len

    def __repr__(self) -> str:
        count = self.cardinality()
        names = {INFINITE_CARDINALITY: "infinite", UNKNOWN_CARDINALITY: "unknown"}
        return f"<Dataset cardinality={names.get(count, count)}>"

    def _on_items(self, stage: Stage) -> Dataset:
        return Dataset(stage, self._arrays, batched=self._batched)

    def _elements(self) -> Stage:
        return self._stage if self._arrays is None else Gather(self._stage, self._arrays)
