"""Data in memory: checked, split, weighted, and cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import nest
from onnxtape.tensor import as_array


def to_arrays(tree: Any, what: str, floats: npt.DTypeLike) -> Any:
    """A nested structure of arrays, of whatever has `__array__`; None stays.

    Args:
        what: it is, for messages.
        floats: the dtype for NumPy's float64, which data has by default and rarely on purpose.

    Raises:
        TypeError: a part is no array.
        ValueError: a part has no first dimension.
    """

    def convert(path: str, leaf: Any) -> Any:
        if leaf is None:
            return None
        if isinstance(leaf, (bool, int, float, str)):
            raise TypeError(
                f"{path} is the {type(leaf).__name__} {leaf!r}: lists are lists of arrays, as for "
                "several inputs; write np.array([...])"
            )
        try:
            array = as_array(leaf)
        except TypeError as error:
            raise TypeError(f"{path}: {error}") from None
        if array.ndim == 0:
            raise ValueError(f"{path} is a scalar; data has samples along its first dimension")
        return array.astype(floats, copy=False) if array.dtype == np.float64 else array

    leaves = nest.flatten_with_paths(tree, what)
    return nest.pack_like(tree, [convert(path, leaf) for path, leaf in leaves])


def count_samples(**parts: Any) -> int:
    """The first dimension of all arrays.

    Raises:
        ValueError: they differ, or there is no array.
    """
    counts = {
        path: len(leaf)
        for name, tree in parts.items()
        for path, leaf in nest.flatten_with_paths(tree, name)
        if leaf is not None
    }
    if not counts:
        raise ValueError("there is no data: every part of it is None")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in counts.items())
        raise ValueError(f"all arrays need the same number of samples, but {listed}")
    found = next(iter(counts.values()))
    if found == 0:
        raise ValueError(f"{', '.join(counts)}: there are no samples in the data")
    return found


def split(
    x: Any, y: Any, sample_weight: Any, share: float
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """The first samples to train on, and the last `share` of them to validate on.

    Raises:
        ValueError: one of the two would be empty; `share` is not between 0 and 1.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"validation_split lies between 0 and 1, not at {share}")
    count = count_samples(x=x, y=y, sample_weight=sample_weight)
    at = math.floor(count * (1.0 - share))
    if at in (0, count):
        raise ValueError(
            f"validation_split={share} of {count} samples leaves {at} to train and {count - at} "
            "to validate on"
        )

    def part(keep: slice) -> tuple[Any, Any, Any]:
        def cut(leaf: Any) -> Any:
            return None if leaf is None else leaf[keep]

        taken: Any = nest.map_structure(cut, (x, y, sample_weight))
        return taken  # type: ignore[no-any-return]

    return part(slice(0, at)), part(slice(at, None))


def class_weights(y: Any, weights: Mapping[int, float]) -> npt.NDArray[np.float32]:
    """The weight of each sample's class; 1 for classes without one.

    Args:
        y: class indices of shape (batch,) or (batch, 1), or one-hot (batch, classes).

    Raises:
        ValueError: several outputs, or no targets.
    """
    if y is None or not nest.is_leaf(y):
        raise ValueError(
            "class_weight needs the targets of a single output; give sample_weight instead"
        )
    classes = np.asarray(y)
    if classes.ndim > 1:
        classes = classes.argmax(-1) if classes.shape[-1] != 1 else classes[..., 0]
    keys = np.round(classes).astype(np.int64)
    if keys.ndim > 1:
        raise ValueError(
            f"class_weight takes one target per sample, not shape {keys.shape}; give "
            "sample_weight instead"
        )
    found = np.ones(len(keys), np.float32)
    for key, weight in weights.items():
        found[keys == key] = weight
    return found


def packed(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """A batch as Keras packs it: x, (x,), (x, y) or (x, y, sample_weight)."""
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return x if nest.is_leaf(x) else (x,)


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """The parts of a batch, None for those that it has not.

    Raises:
        ValueError: more than three parts.
    """
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            f"a batch is x, (x, y) or (x, y, sample_weight), not {len(data)} parts; several "
            "inputs or targets are a list or dict: ([x1, x2], y). Or write your own train_step"
        )
    x, y, sample_weight = (*data, None, None)[:3]
    return x, y, sample_weight


class ArrayBatches:
    """Arrays, cut into batches of equal size, the last of which may be smaller.

    Args:
        x, y, sample_weight: nested structures of arrays, None where there is none.
        batch_size: by default 32.
        shuffle: whether each pass has a new order.
    """

    def __init__(
        self, x: Any, y: Any, sample_weight: Any, batch_size: int | None, shuffle: bool
    ) -> None:
        from onnxtape.data import Dataset

        self._tree = (x, y, sample_weight)
        leaves = nest.flatten(self._tree)
        self._given = [i for i, leaf in enumerate(leaves) if leaf is not None]
        self._count = len(leaves)
        samples = count_samples(x=x, y=y, sample_weight=sample_weight)
        size = 32 if batch_size is None else batch_size
        rows = Dataset.from_tensor_slices(tuple(leaves[i] for i in self._given))
        if shuffle:
            rows = rows.shuffle(samples)
        #: Whose position a backup keeps.
        self.dataset = rows.batch(size)
        self.num_batches: int | None = math.ceil(samples / size)
        self._whole = self._packer()

    def __iter__(self) -> Iterator[Any]:
        return map(self._whole, self.dataset)

    def on_epoch_end(self) -> None:
        """Nothing: each pass shuffles anew."""

    def _packer(self) -> Callable[[Any], Any]:
        """Puts the arrays of a batch where they were in the data."""
        x, y, _ = self._tree
        if self._given == [0, 1] and self._count == 3 and nest.is_leaf(x) and nest.is_leaf(y):
            # The common case: the batch is packed as it comes, x and y.
            return lambda batch: batch

        def pack(batch: Any) -> Any:
            leaves: list[Any] = [None] * self._count
            for place, array in zip(self._given, batch, strict=True):
                leaves[place] = array
            return packed(*nest.pack_like(self._tree, leaves))

        return pack
