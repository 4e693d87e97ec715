"""Small callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnxtape.callbacks.callback import Callback, Logs
from onnxtape.callbacks.logs import is_bad


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        on_epoch_begin, on_epoch_end, ...: functions that take what the hooks of those names take:
            (epoch, logs), (batch, logs) or (logs).

    Raises:
        TypeError: there is no such hook.
    """

    _keeps_arguments = True

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **hooks: Callable[..., Any],
    ) -> None:
        super().__init__()
        named = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **hooks,
        }
        for name, function in named.items():
            if function is None:
                continue
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise TypeError(f"LambdaCallback: callbacks have no hook '{name}'")
            setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Stop when a batch's loss is NaN or infinite.

    Args:
        raise_error: raise a RuntimeError instead.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or not is_bad(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"the loss of batch {batch} is {loss}; debugging.enable_check_numerics() finds the "
                "operator that made it"
            )
        print(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True
