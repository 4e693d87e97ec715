"""The outputs of a model, and what belongs to each: targets, losses, metrics, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxtape import nest
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor


def output_names(model: Any, predictions: Any) -> list[str | None]:
    """What the leaves of a model's predictions are called.

    As in Keras: by their keys, where the predictions are a dict; otherwise after the layers that
    made them, if the model is a functional one.
    """
    leaves = nest.flatten_with_paths(predictions)
    if isinstance(predictions, Mapping) or any(
        not nest.is_leaf(part) for _, part in nest.children(predictions)
    ):
        return [path.replace(".", "/") for path, _ in leaves]
    named = getattr(model, "output_names", None)
    if named is not None and len(named) == len(leaves):
        return list(named)
    return [None] * len(leaves)


def by_output(
    given: Any, names: Sequence[str | None], predictions: Any, what: str, *, optional: bool = False
) -> list[Any]:
    """One entry of `given` for each output.

    Args:
        given: a list with an entry per output, a dict by the outputs' names, the structure of the
            predictions; or, for one output, its entry.
        names: of the outputs.
        predictions: what the model returned.
        what: `given` is, for messages.
        optional: whether a dict may leave out outputs, whose entries are None then.

    Raises:
        ValueError: it does not fit the outputs.
    """
    count = len(names)
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in names]:
            paths = dict(nest.flatten_with_paths(given))
            if list(paths) == [path for path, _ in nest.flatten_with_paths(predictions)]:
                return list(paths.values())
            raise ValueError(
                f"{what} has an entry {unknown[0]!r}, but {_listed(names)}; its keys are the "
                "outputs' names"
            )
        if not optional and (missing := [name for name in names if name not in given]):
            raise ValueError(f"{what} has no entry for the output {missing[0]!r}")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) == count:
            return list(given)
        if nest.structure(given) == nest.structure(predictions):
            return nest.flatten(given)
        raise ValueError(
            f"{what} has {len(given)} entries, but {_listed(names)}: give one for each"
        )
    if count == 1:
        return [given]
    raise ValueError(f"{what} is a single one, but {_listed(names)}: give one for each")


def _listed(names: Sequence[str | None]) -> str:
    if len(names) == 1:
        return "the model has one output" + (f" ({names[0]!r})" if names[0] else "")
    known = [repr(name) for name in names if name is not None]
    return f"the model has {len(names)} outputs" + (f" ({', '.join(known)})" if known else "")


def kind_of_targets(y_true: Any, y_pred: Any) -> str:
    """Whether targets are "binary", "sparse_categorical" or "categorical", by the shapes.

    One prediction per sample is binary; a target of a lower rank, or with one number for several
    predictions, is the index of a class. As Keras has it.
    """
    true = B.shape(convert_to_tensor(y_true)) or ()
    pred = B.shape(convert_to_tensor(y_pred)) or ()
    if pred[-1:] == (1,):
        return "binary"
    if len(true) < len(pred) or (true[-1:] == (1,) and pred and pred[-1] != 1):
        return "sparse_categorical"
    return "categorical"


def describe(tree: Any) -> str:
    """The shapes of a nested structure, for messages."""
    shapes = [
        f"{path or 'it'}: {format_shape(B.shape(leaf))}"
        for path, leaf in nest.flatten_with_paths(tree)
        if isinstance(leaf, Tensor)
    ]
    return ", ".join(shapes)
