"""Numbers as categories, and categories as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import ops
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.tensor import Tensor

_ENCODINGS = ("one_hot", "multi_hot", "count")


class CategoryEncoding(Layer):
    """Integers from 0 as vectors of `num_tokens` numbers.

    Args:
        num_tokens: how many categories there are.
        output_mode: "one_hot", a vector for each integer (a last axis of size 1 is dropped);
            "multi_hot", one for each row, with ones at the categories in it; or "count", with how
            often each is in it.

    Called with `count_weights`, of the inputs' shape, "count" adds those up.

    Raises:
        ValueError: another mode, or no `num_tokens`.
    """

    _takes_numbers = True

    def __init__(
        self, num_tokens: int | None = None, output_mode: str = "multi_hot", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_tokens is None or num_tokens < 1:
            raise ValueError(f"CategoryEncoding needs num_tokens of at least 1, not {num_tokens}")
        _check_mode("CategoryEncoding", output_mode, _ENCODINGS)
        self.num_tokens, self.output_mode = num_tokens, output_mode

    def call(self, inputs: Any, count_weights: Any = None) -> Tensor:
        if count_weights is not None and self.output_mode != "count":
            raise ValueError(
                "CategoryEncoding takes count_weights with output_mode='count', not "
                f"{self.output_mode!r}"
            )
        return _encoded(
            inputs, self.output_mode, self.num_tokens, self.compute_dtype, count_weights
        )


class Discretization(Layer):
    """The bin of each number, or vectors of them.

    Args:
        bin_boundaries: where bins end, ascending: bin i is from boundary i - 1 up to, not
            including, boundary i.
        num_bins: instead of them, how many bins `adapt(data)` makes, with about as many numbers in
            each.
        epsilon: how exact the shares of these are, at most.
        output_mode: "int", or a mode of `CategoryEncoding`.

    Raises:
        ValueError: neither boundaries nor a number of bins, or both; or another mode.
    """

    _takes_numbers = True

    def __init__(
        self,
        bin_boundaries: Sequence[float] | None = None,
        num_bins: int | None = None,
        epsilon: float = 0.01,
        output_mode: str = "int",
        *,
        dtype: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(dtype=dtype, name=name)
        if (bin_boundaries is None) == (num_bins is None):
            raise ValueError("Discretization takes either bin_boundaries or num_bins")
        _check_mode("Discretization", output_mode, ("int", *_ENCODINGS))
        self.bin_boundaries = None if bin_boundaries is None else list(bin_boundaries)
        self.num_bins, self.epsilon, self.output_mode = num_bins, epsilon, output_mode

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Find boundaries between which lie about as many numbers each, as Keras does.

        Args:
            data: an array, or an iterable of batches.
            steps: take no more batches than that.

        Raises:
            ValueError: the layer was given its boundaries; or there is no data.
        """
        if self.num_bins is None:
            raise ValueError(f"Discretization '{self.name}' was given its bin_boundaries")
        summary = np.zeros((2, 0), np.float32)
        for i, batch in enumerate([data] if isinstance(data, (np.ndarray, Tensor)) else data):
            if i == steps:
                break
            merged = np.concatenate([_summary(np.asarray(batch), self.epsilon), summary], axis=1)
            summary = _compressed(merged[:, np.argsort(merged[0])], self.epsilon)
        if not summary.size:
            raise ValueError(f"Discretization '{self.name}' cannot adapt to no data")
        self.bin_boundaries = _compressed(summary, 1.0 / self.num_bins)[0, :-1].tolist()

    def call(self, inputs: Any) -> Tensor:
        if self.bin_boundaries is None:
            raise ValueError(
                f"Discretization '{self.name}' has no boundaries yet: call adapt(data) first"
            )
        bins = ops.digitize(inputs, np.asarray(self.bin_boundaries, np.float32))
        if self.output_mode == "int":
            return bins
        depth = len(self.bin_boundaries) + 1
        return _encoded(bins, self.output_mode, depth, self.compute_dtype, None)

    def get_config(self) -> dict[str, Any]:
        # Of an adapted one both, which its constructor does not take.
        config = super().get_config()
        return {**config, "bin_boundaries": self.bin_boundaries, "num_bins": self.num_bins}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        boundaries = config.get("bin_boundaries")
        if boundaries is None or config.get("num_bins") is None:
            return super().from_config(config)
        made = super().from_config({**config, "bin_boundaries": None})
        made.bin_boundaries = list(boundaries)
        return made


def _check_mode(kind: str, mode: str, known: Sequence[str]) -> None:
    if mode not in known:
        raise ValueError(f"{kind}'s output_mode is {' or '.join(map(repr, known))}, not {mode!r}")


def _encoded(x: Any, mode: str, depth: int, dtype: Any, weights: Any) -> Tensor:
    classes = convert_to_tensor(x)
    rank = B.known_rank(classes, "CategoryEncoding")
    if rank == 0:
        classes, rank = ops.expand_dims(classes, -1), 1
    if mode == "one_hot":
        if rank > 1 and B.dim(classes, -1) == 1:
            classes = ops.squeeze(classes, -1)
        return ops.one_hot(classes, depth, dtype=dtype)
    if mode == "multi_hot":
        return ops.multi_hot(classes, depth, dtype=dtype)
    vectors = ops.one_hot(classes, depth, dtype=dtype)
    if weights is not None:
        vectors = ops.multiply(vectors, ops.expand_dims(ops.cast(weights, dtype), -1))
    return ops.sum(vectors, axis=min(rank - 1, 1))


def _summary(values: npt.NDArray[Any], epsilon: float) -> npt.NDArray[Any]:
    """About 1 / epsilon of the values, in order, and of how many each is the last."""
    ordered = np.sort(values.astype(np.float32).reshape(-1))
    step = max(ordered.size * epsilon, 1.0)
    kept = ordered[int(step - 1) :: int(step)]
    return np.stack([kept, np.ones_like(kept) * step])


def _compressed(summary: npt.NDArray[Any], epsilon: float) -> npt.NDArray[Any]:
    """A summary of 1 / epsilon values, by interpolation."""
    if summary.shape[1] * epsilon < 1:
        return summary
    shares = epsilon + np.arange(0.0, 1.0, epsilon)
    counts = summary[1].cumsum()
    values = np.interp(shares, counts / counts[-1], summary[0])
    below = np.interp(shares, counts / counts[-1], counts)
    weights = below - np.concatenate([[0], below[:-1]])
    return np.stack([values, weights]).astype(np.float32)
