"""Data of any kind as batches: arrays, datasets, iterables, generators, indexable sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxtape import context, nest
from onnxtape.data import Dataset
from onnxtape.data.stages import INFINITE_CARDINALITY
from onnxtape.tensor import Tensor
from onnxtape.training.arrays import (
    ArrayBatches,
    class_weights,
    count_samples,
    packed,
    to_arrays,
    unpack_x_y_sample_weight,
)


class Batches(Protocol):
    """Where batches come from; each iteration is a pass over them."""

    #: How many a pass has; None if that is not known, or there is no end.
    num_batches: int | None

    @property
    def dataset(self) -> Dataset | None:
        """What is looped over, if that has a position to go on from."""

    def __iter__(self) -> Iterator[Any]: ...

    def on_epoch_end(self) -> None: ...


class IterableBatches:
    """What yields batches itself: a dataset, a data loader, a generator.

    Args:
        source: any iterable. An iterator goes on where it stopped, everything else starts anew.
    """

    def __init__(self, source: Any, change: Callable[[Any], Any]) -> None:
        self._source = source
        self._change = change
        self.num_batches: int | None = None
        self.dataset: Dataset | None = source if isinstance(source, Dataset) else None
        if isinstance(source, Dataset):
            count = source.cardinality()
            self.is_endless = count == INFINITE_CARDINALITY
            self.num_batches = count if count >= 0 else None
        else:
            self.is_endless = False
            self.num_batches = _length(source)

    def __iter__(self) -> Iterator[Any]:
        return map(self._change, self._source)

    def on_epoch_end(self) -> None:
        """Tell the source, if it wants to know (as Keras's PyDataset does)."""
        hook = getattr(self._source, "on_epoch_end", None)
        if callable(hook):
            hook()


class IndexedBatches(IterableBatches):
    """An object with `__len__` and `__getitem__`, such as a Keras PyDataset.

    Args:
        source: `source[i]` is the i-th of `len(source)` batches.
        shuffle: whether each pass takes the batches in another order.
    """

    def __init__(self, source: Any, change: Callable[[Any], Any], shuffle: bool) -> None:
        super().__init__(source, change)
        count = self.num_batches or 0
        order = Dataset.range(count)
        self.dataset = order.shuffle(count) if shuffle and count else order

    def __iter__(self) -> Iterator[Any]:
        return (self._change(self._source[int(i)]) for i in self.dataset or ())


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except TypeError:
        return None


def make_batches(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool = False,
    class_weight: Mapping[int, float] | None = None,
    floats: npt.DTypeLike = "float32",
) -> Batches:
    """The batches of what `fit`, `evaluate` or `predict` was given.

    Args:
        x: arrays in nested dicts and lists; or what makes batches itself.
        steps: how many a pass is to have, which tells a batch size for arrays if none is given.
        floats: what float64 arrays become.

    Raises:
        TypeError: `x` is no data.
        ValueError: arguments that do not fit the data, or each other.
    """
    if sample_weight is not None and class_weight is not None:
        raise ValueError("give either class_weight or sample_weight, not both")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    if not isinstance(shuffle, (bool, np.bool_)):
        raise ValueError(f"shuffle is True or False, not {shuffle!r}")
    if is_array_data(x):
        x = to_arrays(x, "x", floats)
        y = to_arrays(y, "y", floats)
        sample_weight = to_arrays(sample_weight, "sample_weight", floats)
        samples = count_samples(x=x, y=y, sample_weight=sample_weight)
        if class_weight is not None:
            sample_weight = class_weights(y, class_weight)
        if batch_size is None and steps is not None:
            batch_size = math.ceil(samples / steps)
        return ArrayBatches(x, y, sample_weight, batch_size, shuffle)
    kind = type(x).__name__
    if not hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        raise TypeError(
            f"data is arrays, an ot.data.Dataset or another iterable of batches, not {kind}"
        )
    makes = (
        f"was given beside a {kind}, which makes its own batches (x, y) or (x, y, sample_weight)"
    )
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        if given is not None:
            raise ValueError(f"{name} {makes}")
    if batch_size is not None:
        # Programs for Keras, which says nothing, do this.
        context.warn_user(f"batch_size {makes}: it has no meaning")

    def change(batch: Any) -> Any:
        batch = _as_batch(batch)
        if class_weight is None:
            return batch
        features, targets, weights = unpack_x_y_sample_weight(batch)
        if weights is not None:
            raise ValueError("class_weight was given for batches that have a sample_weight already")
        return packed(features, targets, class_weights(targets, class_weight))

    # Whoever has both is indexed: iterating may not end, as with Python's old protocol.
    indexed = hasattr(x, "__getitem__") and _length(x) is not None
    if indexed and not isinstance(x, Dataset):
        return IndexedBatches(x, change, shuffle)
    batches = IterableBatches(x, change)
    if batches.is_endless and steps is None:
        raise ValueError(
            "the dataset has no end: give steps_per_epoch (in evaluate and predict: steps), or "
            "end it with take(count)"
        )
    return batches


def is_array_data(x: Any) -> bool:
    """Whether this is arrays, to be cut into batches."""
    if x is None:
        raise ValueError("x is missing: give arrays, or an iterable of batches")
    if isinstance(x, Dataset):
        return False
    return not nest.is_leaf(x) or isinstance(x, Tensor) or _is_array(x)


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array__") or hasattr(x, "__dlpack__")


def _as_batch(batch: Any) -> Any:
    """A batch whose leaves are arrays and tensors, nested in a tuple and what is in that."""
    if isinstance(batch, list):
        batch = tuple(batch)
    if isinstance(batch, tuple) and all(
        type(part) is Tensor or type(part) is np.ndarray for part in batch
    ):
        return batch
    return nest.map_structure(_as_leaf, batch)


def _as_leaf(leaf: Any) -> Any:
    if leaf is None or isinstance(leaf, (Tensor, np.ndarray)):
        return leaf
    if isinstance(leaf, (bool, int, float, np.generic)):
        return Tensor(leaf)
    if hasattr(leaf, "__array__"):
        return np.asarray(leaf)
    if hasattr(leaf, "__dlpack__"):
        return np.from_dlpack(leaf)
    raise TypeError(f"a batch holds arrays, not {type(leaf).__name__}")


class Epochs:
    """Batches, as many per epoch as wanted.

    Args:
        batches: where they come from.
        steps: per epoch; by default one pass each. With `steps`, an epoch goes on where the last
            one stopped.
    """

    def __init__(self, batches: Batches, steps: int | None) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"the number of steps is at least 1, not {steps}")
        self._batches = batches
        self._steps = steps
        self._current: Iterator[Any] | None = None
        self._seen = 0

    def restart(self) -> None:
        """Let the next epoch begin anew; an iterator goes on."""
        self._current = None

    @property
    def dataset(self) -> Dataset | None:
        """What is looped over, if that has a position to go on from."""
        return self._batches.dataset

    @property
    def num_batches(self) -> int | None:
        """How many an epoch has, as far as that is known."""
        return self._steps or self._batches.num_batches

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch."""
        if self._steps is None:
            self._seen = 0
            for batch in self._batches:
                self._seen += 1
                yield batch
            if self._seen == 0:
                self._warn("it yielded no batch at all (a generator yields its batches only once)")
        else:
            yield from self._some(self._steps)
        self._batches.on_epoch_end()

    def _some(self, steps: int) -> Iterator[Any]:
        if self._current is None:
            self._current, self._seen = iter(self._batches), 0
        for step in range(steps):
            batch = next(self._current, _END)
            if batch is _END:
                self._current = None
                self._warn(f"it ended after {step} of {steps} steps")
                return
            self._seen += 1
            yield batch
        if self._seen == self._batches.num_batches:
            self._current = None

    @staticmethod
    def _warn(what: str) -> None:
        context.warn_user(
            f"the data ran out: {what}. It needs steps_per_epoch * epochs batches; repeat() a "
            "dataset that has fewer"
        )


_END = object()
