"""Several callbacks as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtape import nest
from onnxtape.callbacks.callback import Callback, Logs
from onnxtape.callbacks.history import History
from onnxtape.callbacks.logs import as_numbers
from onnxtape.callbacks.progress import ProgbarLogger

_BATCH_HOOKS = tuple(
    f"on_{loop}_batch_{moment}"
    for loop in ("train", "test", "predict")
    for moment in ("begin", "end")
)
#: The older names of the hooks of training batches.
_SAME_AS = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class CallbackList(Callback):
    """Calls each of several callbacks, in their order.

    Args:
        callbacks: a callback, or a nested list of them.
        add_history: add a `History` if there is none.
        add_progbar: add a `ProgbarLogger` if there is none.
        model: passed to `set_model`.
        **params: passed to `set_params`.

    Raises:
        TypeError: something else is among the callbacks.
    """

    _keeps_arguments = True

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        given: list[Any] = [] if callbacks is None else nest.flatten(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):
                wrong = callback.__name__ if isinstance(callback, type) else repr(callback)
                raise TypeError(
                    f"callbacks are objects of ot.callbacks.Callback, not {wrong}; "
                    "LambdaCallback(on_epoch_end=function) makes one of a function"
                )
        self.callbacks: list[Callback] = given
        if add_history and not any(isinstance(c, History) for c in self.callbacks):
            self.callbacks.append(History())
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        # A hook that nobody has written costs nothing.
        self._listeners = {
            hook: [c for c in self.callbacks if _writes(c, hook)] for hook in _BATCH_HOOKS
        }
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for callback in self.callbacks:
            if isinstance(callback, History):
                model.history = callback
            callback.set_model(model)

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        if params:
            for callback in self.callbacks:
                callback.set_params(params)

    def append(self, callback: Callback) -> None:
        """Add one at the end."""
        self.callbacks.append(callback)
        for hook, listeners in self._listeners.items():
            if _writes(callback, hook):
                listeners.append(callback)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._listeners["on_train_batch_begin"]:
            callback.on_train_batch_begin(batch, {})

    def on_train_batch_end(self, batch: int, logs: Logs | Mapping[str, Any] | None = None) -> None:
        listeners = self._listeners["on_train_batch_end"]
        if listeners:
            numbers = self._numbers(listeners, batch, logs)
            for callback in listeners:
                callback.on_train_batch_end(batch, numbers)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._listeners["on_test_batch_begin"]:
            callback.on_test_batch_begin(batch, {})

    def on_test_batch_end(self, batch: int, logs: Logs | Mapping[str, Any] | None = None) -> None:
        listeners = self._listeners["on_test_batch_end"]
        if listeners:
            numbers = self._numbers(listeners, batch, logs)
            for callback in listeners:
                callback.on_test_batch_end(batch, numbers)

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._listeners["on_predict_batch_begin"]:
            callback.on_predict_batch_begin(batch, {})

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        for callback in self._listeners["on_predict_batch_end"]:
            callback.on_predict_batch_end(batch, logs)

    @staticmethod
    def _numbers(listeners: list[Callback], batch: int, logs: Any) -> Logs:
        """The logs of a batch, waited for if somebody looks at them."""
        if any(callback.needs_batch_logs(batch) for callback in listeners):
            return as_numbers(logs)
        return {}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("on_epoch_begin", epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._call("on_epoch_end", epoch, logs=logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._call("on_train_begin", logs=logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._call("on_train_end", logs=logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._call("on_test_begin", logs=logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._call("on_test_end", logs=logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._call("on_predict_begin", logs=logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._call("on_predict_end", logs=logs)

    def _call(self, hook: str, *args: Any, logs: Logs | None) -> None:
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            getattr(callback, hook)(*args, logs)


def _writes(callback: Callback, hook: str) -> bool:
    """Whether a callback has a hook of its own, from its class or set on the object."""
    hooks = [hook, _SAME_AS[hook]] if hook in _SAME_AS else [hook]
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name)
        for name in hooks
    )
