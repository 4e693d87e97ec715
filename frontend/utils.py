"""Small helpers around training, with the names that they have in `keras.utils`."""

from __future__ import annotations

import collections.abc
import gc
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxtape import missing
from onnxtape.data import Dataset
from onnxtape.drawing import plot_model
from onnxtape.naming import reset_names
from onnxtape.random import set_seed as set_random_seed
from onnxtape.saving.objects import (
    custom_object_scope,
    get_custom_objects,
    register_keras_serializable,
)
from onnxtape.tensor import Tensor
from onnxtape.training.arrays import packed as pack_x_y_sample_weight
from onnxtape.training.arrays import unpack_x_y_sample_weight

__all__ = [
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "clear_session",
    "custom_object_scope",
    "get_custom_objects",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "plot_model",
    "register_keras_serializable",
    "set_random_seed",
    "split_dataset",
    "standardize_dtype",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]


CustomObjectScope = custom_object_scope


def clear_session(free_memory: bool = True) -> None:
    """Count the names of layers, optimizers and metrics from the beginning again.

    There is no other global state: models and steps go when nobody holds them. `free_memory`
    collects those that hold each other.
    """
    reset_names()
    if free_memory:
        gc.collect()


def standardize_dtype(dtype: Any) -> str:
    """A dtype's name: of an array's or a tensor's dtype, a name, a Python type; None is float32."""
    named = {None: "float32", bool: "bool", int: "int32", "int": "int32", float: "float32"}
    return named[dtype] if dtype in named else np.dtype(dtype).name


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class indices (...) as one-hot vectors (..., num_classes), float64 as in Keras.

    Args:
        x: integers from 0; an array or a tensor, and the result is of the same kind. A last axis of
            size 1 is dropped.
        num_classes: by default the largest index and one.

    Raises:
        ValueError: an index that is no class.
    """
    if isinstance(x, Tensor):
        from onnxtape import ops

        return ops.one_hot(x, int(x.numpy().max()) + 1 if num_classes is None else num_classes)
    classes = np.asarray(x).astype(np.int64)
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    count = int(classes.max(initial=-1)) + 1 if num_classes is None else num_classes
    if classes.size and not 0 <= classes.min() <= classes.max() < count:
        raise ValueError(
            f"to_categorical: classes from {classes.min()} to {classes.max()} are not all among "
            f"{count} classes, which count from 0"
        )
    return np.eye(count)[classes]


def normalize(x: npt.ArrayLike, axis: int = -1, order: int = 2) -> npt.NDArray[Any]:
    """An array divided by its norm along an axis; zeros stay."""
    array = np.asarray(x)
    norm = np.atleast_1d(np.linalg.norm(array, order, axis))
    norm[norm == 0] = 1
    divided: npt.NDArray[Any] = array / np.expand_dims(norm, axis)
    return divided


def pad_sequences(
    sequences: collections.abc.Iterable[collections.abc.Sequence[Any]],
    maxlen: int | None = None,
    dtype: npt.DTypeLike = "int32",
    padding: Literal["pre", "post"] = "pre",
    truncating: Literal["pre", "post"] = "pre",
    value: Any = 0.0,
) -> npt.NDArray[Any]:
    """Sequences of different lengths as one array (sequences, maxlen, ...).

    Args:
        sequences: lists of numbers, or of arrays of one shape.
        maxlen: by default the longest sequence's length.
        padding: where `value` fills up.
        truncating: where longer sequences are cut.

    Raises:
        ValueError: elements of different shapes, or another word for where.
    """
    for name, word in (("padding", padding), ("truncating", truncating)):
        if word not in ("pre", "post"):
            raise ValueError(f"pad_sequences: {name} is 'pre' or 'post', not {word!r}")
    given = [np.asarray(sequence) for sequence in sequences]
    shapes = {array.shape[1:] for array in given if len(array)}
    if len(shapes) > 1:
        raise ValueError(f"pad_sequences: the elements have different shapes: {sorted(shapes)}")
    length = max(map(len, given), default=0) if maxlen is None else maxlen
    whole = np.full((len(given), length, *(shapes.pop() if shapes else ())), value, dtype)
    for row, array in zip(whole, given, strict=True):
        kept = array[max(0, len(array) - length) :] if truncating == "pre" else array[:length]
        if len(kept):
            row[-len(kept) if padding == "pre" else 0 :][: len(kept)] = kept
    return whole


def timeseries_dataset_from_array(
    data: npt.ArrayLike,
    targets: npt.ArrayLike | None,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> Dataset:
    """Batches of windows of a time series.

    Args:
        data: (steps, ...).
        targets: the i-th belongs to the window that begins at step i; None for none.
        sequence_length: steps of a window.
        sequence_stride: steps between the beginnings of two windows.
        sampling_rate: steps between two steps of a window.
        batch_size: None for single windows.
        shuffle: whether the windows come in random order.
        seed: of that order.
        start_index, end_index: steps before and from which nothing is used.

    Returns:
        A dataset of (windows, targets) or windows; windows are (batch, sequence_length, ...).

    Raises:
        ValueError: there is no window.
    """
    steps = np.asarray(data)[start_index:end_index]
    wanted = None if targets is None else np.asarray(targets)[start_index:end_index]
    reach = (sequence_length - 1) * sampling_rate + 1
    # A window needs its steps, and its target if there are any.
    last = len(steps) - reach + 1 if wanted is None else min(len(steps) - reach + 1, len(wanted))
    begins = np.arange(0, last, sequence_stride)
    if not len(begins):
        raise ValueError(
            f"timeseries_dataset_from_array: no window of {reach} steps fits into {len(steps)}"
        )
    offsets = np.arange(sequence_length) * sampling_rate

    def window(begin: Any) -> Any:
        at = begin.numpy()
        found = steps[at + offsets]
        return found if wanted is None else (found, wanted[at])

    dataset = Dataset.from_tensor_slices(begins)
    if shuffle:
        dataset = dataset.shuffle(len(begins), seed=seed)
    dataset = dataset.map(window)
    return dataset if batch_size is None else dataset.batch(batch_size)


def split_dataset(
    dataset: Any,
    left_size: int | float | None = None,
    right_size: int | float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Dataset, Dataset]:
    """A dataset, or arrays (nested in tuples and dicts), as two datasets of samples.

    Args:
        left_size, right_size: a share below 1, or a number of samples; one may be left out.
        shuffle: before splitting.
        seed: of that.

    Raises:
        ValueError: no sizes, or sizes that do not fit.
    """
    whole = dataset if isinstance(dataset, Dataset) else Dataset.from_tensor_slices(dataset)
    if shuffle:
        whole = whole.shuffle(len(whole), seed=seed, reshuffle_each_iteration=False)
    count = len(whole)

    def samples(size: int | float | None) -> int | None:
        if size is None or isinstance(size, int):
            return size
        return round(size * count)

    left, right = samples(left_size), samples(right_size)
    if left is None and right is None:
        raise ValueError("split_dataset needs left_size or right_size")
    left = count - right if left is None and right is not None else left
    assert left is not None
    right = count - left if right is None else right
    if left < 0 or right < 0 or left + right > count:
        raise ValueError(f"split_dataset: {left} and {right} samples of {count}")
    return whole.take(left), whole.skip(left).take(right)


class PyDataset:
    """Batches by their numbers: subclasses write `__len__` and `__getitem__(index)`.

    `fit` takes any object with these two; this is for programs that were written for Keras's. The
    arguments have no meaning here.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has no __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __getitem__")

    def on_epoch_end(self) -> None:
        """What to do between two epochs."""


#: Keras's older name for it.
Sequence = PyDataset

if not TYPE_CHECKING:
    __getattr__ = missing.in_module(__name__, __all__)
