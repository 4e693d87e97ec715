"""The loops over epochs and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtape import nest
from onnxtape.training.data_adapter import Epochs

if TYPE_CHECKING:
    from onnxtape.callbacks import CallbackList, History
    from onnxtape.training.compilation import Compilation


def fit_epochs(
    model: Any,
    compilation: Compilation,
    data: Epochs,
    validation: Epochs | None,
    callbacks: Any,
    *,
    verbose: int | str,
    epochs: range,
    validation_freq: int | Sequence[int],
) -> History:
    """Train; see `Trainer.fit`."""
    from onnxtape.callbacks.logs import as_numbers

    callbacks = _listed(callbacks, model, data, verbose, add_history=True, epochs=epochs.stop)
    model.stop_training = False
    model._first_epoch = epochs.start
    model._fitted_dataset = data.dataset
    callbacks.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in range(max(epochs.start, model._first_epoch), epochs.stop):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        latest: Mapping[str, Any] = {}
        step = compilation.train_function
        for batch, values in enumerate(data):
            callbacks.on_train_batch_begin(batch)
            latest = _checked(step(values), "train_step")
            callbacks.on_train_batch_end(batch, latest)
            if model.stop_training:
                break
        logs = as_numbers(latest)
        if validation is not None and _is_due(epoch + 1, validation_freq):
            found = evaluate_epochs(model, validation, callbacks, verbose=0)
            logs.update({f"val_{name}": value for name, value in found.items()})
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if epochs.stop > 0 and model.optimizer is not None and model.optimizer.built:
        model.optimizer.finalize_variable_values(model.trainable_variables)
    callbacks.on_train_end(logs)
    history: History = model.history
    return history


def evaluate_epochs(
    model: Any, data: Epochs, callbacks: Any, *, verbose: int | str
) -> dict[str, Any]:
    """Evaluate; see `Trainer.evaluate`."""
    from onnxtape.callbacks.logs import as_numbers

    callbacks = _listed(callbacks, model, data, verbose)
    model.stop_evaluating = False
    callbacks.on_test_begin()
    model.reset_metrics()
    # The same data each time, as in Keras.
    data.restart()
    latest: Mapping[str, Any] = {}
    step = model.test_function
    for batch, values in enumerate(data):
        callbacks.on_test_batch_begin(batch)
        latest = _checked(step(values), "test_step")
        callbacks.on_test_batch_end(batch, latest)
        if model.stop_evaluating:
            break
    logs = as_numbers(latest)
    callbacks.on_test_end(logs)
    return logs


def predict_epochs(model: Any, data: Epochs, callbacks: Any, *, verbose: int | str) -> Any:
    """Predict; see `Trainer.predict`."""
    callbacks = _listed(callbacks, model, data, verbose)
    model.stop_predicting = False
    callbacks.on_predict_begin()
    step = model.predict_function
    outputs: Any = None
    parts: list[list[Any]] = []
    for batch, values in enumerate(data):
        callbacks.on_predict_batch_begin(batch)
        outputs = step(values)
        parts.append(nest.flatten(outputs))
        callbacks.on_predict_batch_end(batch, {"outputs": outputs})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    if not parts:
        raise ValueError("there is nothing to predict: the data had no batch")
    columns = zip(*parts, strict=True)
    return nest.pack_like(outputs, [np.concatenate([t.numpy() for t in c]) for c in columns])


def _listed(
    callbacks: Any,
    model: Any,
    data: Epochs,
    verbose: int | str,
    *,
    add_history: bool = False,
    epochs: int = 1,
) -> CallbackList:
    """The callbacks as one, unless they are already."""
    from onnxtape.callbacks import CallbackList

    if isinstance(callbacks, CallbackList):
        return callbacks
    return CallbackList(
        callbacks,
        add_history=add_history,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=data.num_batches,
    )


def _checked(logs: Any, method: str) -> Mapping[str, Any]:
    if not isinstance(logs, Mapping):
        raise TypeError(
            f"{method} returned a {type(logs).__name__}; it returns a dict of what to log, such "
            "as {'loss': loss}"
        )
    return logs


def _is_due(epoch: int, frequency: int | Sequence[int]) -> bool:
    """Whether to validate after this epoch, counted from 1."""
    if isinstance(frequency, int) and frequency > 0:
        return epoch % frequency == 0
    if isinstance(frequency, (list, tuple, set, range)):
        return epoch in frequency
    raise ValueError(
        f"validation_freq is a number of epochs or a list of epochs, not {frequency!r}"
    )
