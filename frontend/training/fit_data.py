"""The data that `fit` trains and validates on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtape.training.arrays import split, unpack_x_y_sample_weight
from onnxtape.training.data_adapter import Epochs, is_array_data, make_batches


def fit_data(
    x: Any,
    y: Any,
    sample_weight: Any,
    *,
    class_weight: Mapping[int, float] | None,
    batch_size: int | None,
    steps: int | None,
    shuffle: bool,
    floats: Any,
    validation_split: float,
    validation_data: Any,
    validation_batch_size: int | None,
    validation_steps: int | None,
) -> tuple[Epochs, Epochs | None]:
    """Batches to train on, and to validate on, if any; see `Trainer.fit` for the arguments.

    Raises:
        ValueError: data and arguments do not fit.
    """
    if validation_split and validation_data is None:
        if not is_array_data(x):
            raise ValueError(
                f"validation_split needs arrays, not a {type(x).__name__}: split the data "
                "yourself, with take(n) and skip(n) of a dataset, and give validation_data"
            )
        if class_weight is not None and sample_weight is not None:
            raise ValueError("give either class_weight or sample_weight, not both")
        training, validation_data = split(x, y, sample_weight, validation_split)
        x, y, sample_weight = training
    batches = make_batches(
        x,
        y,
        sample_weight,
        batch_size=batch_size,
        steps=steps,
        shuffle=shuffle,
        class_weight=class_weight,
        floats=floats,
    )
    if validation_data is None:
        return Epochs(batches, steps), None
    val_x, val_y, val_weight = validation_data, None, None
    if isinstance(validation_data, (tuple, list)):
        val_x, val_y, val_weight = unpack_x_y_sample_weight(validation_data)
    inherited = batch_size if is_array_data(val_x) else None
    validation = make_batches(
        val_x,
        val_y,
        val_weight,
        batch_size=validation_batch_size or inherited,
        steps=validation_steps,
        floats=floats,
    )
    return Epochs(batches, steps), Epochs(validation, validation_steps)
