"""Training and evaluating models: `compile`, `fit`, `evaluate`, `predict`, as in Keras."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxtape import nest
from onnxtape.constructing import checks_names
from onnxtape.saving.objects import deserialize, is_configuration, serialize
from onnxtape.training.arrays import class_weights
from onnxtape.training.batch_function import BatchFunction
from onnxtape.training.compilation import Compilation
from onnxtape.training.data_adapter import Epochs, make_batches
from onnxtape.training.fit_data import fit_data
from onnxtape.training.loops import evaluate_epochs, fit_epochs, predict_epochs
from onnxtape.training.steps import Steps
from onnxtape.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from onnxtape.callbacks import Callback, CallbackList, History

    Callbacks: TypeAlias = Sequence[Callback] | Callback | CallbackList | None


class Trainer(Steps):
    """What a model has for training.

    Each of its steps (see `Steps`) is one `ot.function`, metrics included.

    Attributes:
        history: of the last `fit`.
        stop_training: callbacks set it to end `fit` after the batch.
    """

    history: History | None = None
    stop_training = False
    stop_evaluating = False
    stop_predicting = False
    _predict_function: BatchFunction | None = None

    # Compiling ----------------------------------------------------------------------------------

    @checks_names
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str | None = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Say how the model is trained.

        Args:
            optimizer: a name, or an `Optimizer`.
            loss: a name, a function of targets and predictions, or a `Loss`; for several outputs
                one for all, or one each in a list or a dict by the outputs' names. None leaves it
                to `add_loss` or to your own `compute_loss`.
            loss_weights: factors of the outputs' losses.
            metrics: a list of names, functions and `Metric`s; for several outputs one such entry
                each. "accuracy" is the binary, categorical or sparse categorical one, by the
                shapes of targets and predictions.
            weighted_metrics: metrics that take sample weights into account.
            run_eagerly: run the steps as plain Python, to debug them.
            steps_per_execution: 1; a step is as fast alone.
            auto_scale_loss: under the policy "mixed_float16", put a `LossScaleOptimizer` around the
                optimizer.
            jit_compile: has no meaning here, since every step is compiled.

        Raises:
            ValueError: unknown names, or `steps_per_execution` is not 1.
        """
        if any(not isinstance(w, (int, float, type(None))) for w in nest.flatten(loss_weights)):
            raise ValueError(
                f"loss_weights are numbers, not {loss_weights!r}; write metrics=[...] by name, as "
                "loss_weights come before it"
            )
        if steps_per_execution not in (1, "auto"):
            raise ValueError(
                f"steps_per_execution={steps_per_execution} is not supported: several steps in "
                "one run are slower than one after the other here; leave it out"
            )
        self._compilation = Compilation(
            self,
            optimizer,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            run_eagerly,
            auto_scale_loss,
        )
        self._predict_function = self._compilation.predict_function
        self.optimizer = self._compilation.optimizer
        self.stop_training = False

    @property
    def compiled(self) -> bool:
        """Whether `compile` has been called."""
        return self._compilation is not None

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments that `compile` was given, as configurations; empty before it."""
        return {} if self._compilation is None else serialize(self._compilation.given)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """`compile` with the arguments that `get_compile_config` gave.

        Raises:
            ValueError: a class or function is not known.
        """
        if config:
            self.compile(**{name: _revived(value) for name, value in config.items()})

    @property
    def train_function(self) -> BatchFunction:
        """The compiled `train_step`: its `trace_count`, and its `function` for export."""
        return self._compiled_for("train_function").train_function

    @property
    def test_function(self) -> BatchFunction:
        """The compiled `test_step`."""
        return self._compiled_for("test_function").test_function

    @property
    def predict_function(self) -> BatchFunction:
        """The compiled `predict_step`, which needs no `compile`."""
        if self._predict_function is None:
            self._predict_function = BatchFunction(self, "predict_step")
        return self._predict_function

    # Loops --------------------------------------------------------------------------------------

    @checks_names
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Callbacks = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train for a number of epochs.

        Args:
            x: inputs: arrays, nested in dicts and lists; or an iterable of batches (x, y) or
                (x, y, sample_weight): an `ot.data.Dataset`, a PyTorch DataLoader, a tf.data
                dataset, a generator, an object with `__len__` and `__getitem__`.
            y: targets, if `x` is arrays.
            batch_size: of arrays; by default 32.
            epochs: the number of the epoch to stop at.
            verbose: 0 silent, 1 or "auto" a progress bar, 2 a line per epoch.
            callbacks: what to call on the way; see `ot.callbacks`.
            validation_split: the share of the arrays, from their end, that is kept to validate on.
            validation_data: (x, y) or (x, y, sample_weight), or an iterable of batches.
            shuffle: whether arrays (or the batches of an indexed object) come in a new order in
                each epoch.
            class_weight: a weight for each class of samples; 1 by default.
            sample_weight: a weight for each sample, if `x` is arrays.
            initial_epoch: the number of the epoch to begin with.
            steps_per_epoch: by default a pass over the data.
            validation_steps: by default all of `validation_data`.
            validation_batch_size: by default `batch_size`.
            validation_freq: validate at the end of every so many epochs, or of the epochs listed,
                counted from 1.

        Returns:
            The `History` of the logs at the ends of epochs.

        Raises:
            ValueError: the model is not compiled; data or arguments do not fit.
        """
        compilation = self._compiled_for("fit")
        data, validation = fit_data(
            x,
            y,
            sample_weight,
            class_weight=class_weight,
            batch_size=batch_size,
            steps=steps_per_epoch,
            shuffle=shuffle,
            floats=getattr(self, "dtype", "float32"),
            validation_split=validation_split,
            validation_data=validation_data,
            validation_batch_size=validation_batch_size,
            validation_steps=validation_steps,
        )
        return fit_epochs(
            self,
            compilation,
            data,
            validation,
            callbacks,
            verbose=verbose,
            epochs=range(initial_epoch, epochs),
            validation_freq=validation_freq,
        )

    @checks_names
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Callbacks = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics over data; see `fit` for the arguments.

        Returns:
            A number, or a list of numbers if there are metrics; with `return_dict` a dict by name.

        Raises:
            ValueError: the model is not compiled; data or arguments do not fit.
        """
        self._compiled_for("evaluate")
        floats = getattr(self, "dtype", "float32")
        batches = make_batches(
            x, y, sample_weight, batch_size=batch_size, steps=steps, floats=floats
        )
        logs = evaluate_epochs(self, Epochs(batches, steps), callbacks, verbose=verbose)
        return logs if return_dict else self._listed_logs(logs)

    @checks_names
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Callbacks = None,
    ) -> Any:
        """The model's outputs for data, as NumPy arrays; see `fit` for the arguments.

        Raises:
            ValueError: data or arguments do not fit; there is no data.
        """
        floats = getattr(self, "dtype", "float32")
        batches = make_batches(x, batch_size=batch_size, steps=steps, floats=floats)
        return predict_epochs(self, Epochs(batches, steps), callbacks, verbose=verbose)

    # One batch ----------------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Train on one batch; returns the loss and metrics of it, as `evaluate` does."""
        compilation = self._compiled_for("train_on_batch")
        if class_weight is not None:
            if sample_weight is not None:
                raise ValueError("give either class_weight or sample_weight, not both")
            sample_weight = class_weights(y, class_weight)
        return self._one_batch(compilation.train_function, x, y, sample_weight, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """The loss and metrics of one batch, as `evaluate` returns them."""
        compilation = self._compiled_for("test_on_batch")
        return self._one_batch(compilation.test_function, x, y, sample_weight, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The model's outputs for one batch, as NumPy arrays."""
        outputs = self.predict_function(next(iter(self._batch(x))))
        return nest.map_structure(lambda t: t.numpy().copy(), outputs)

    def _one_batch(
        self, step: BatchFunction, x: Any, y: Any, sample_weight: Any, return_dict: bool
    ) -> Any:
        from onnxtape.callbacks.logs import as_numbers

        self.reset_metrics()
        logs = as_numbers(step(next(iter(self._batch(x, y, sample_weight)))))
        return logs if return_dict else self._listed_logs(logs)

    def _batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        floats = getattr(self, "dtype", "float32")
        return make_batches(x, y, sample_weight, steps=1, floats=floats)

    def _listed_logs(self, logs: Mapping[str, float]) -> Any:
        """Logs as a list: in the order of the metrics, then of the names; one alone as itself."""
        names: list[str] = []
        for metric in self.metrics:
            names.extend(m.name for m in getattr(metric, "metrics", [metric]))
        listed = [logs[name] for name in dict.fromkeys(names) if name in logs]
        listed += [logs[name] for name in sorted(logs) if name not in names]
        return listed[0] if len(listed) == 1 else listed

    # Weights in files ---------------------------------------------------------------------------

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the weights to a safetensors file, under their variables' names.

        Raises:
            FileExistsError: the file is there and `overwrite` is False.
            ValueError: the model has no weights yet, or the file's name ends otherwise.
        """
        save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Assign the weights that `save_weights` wrote, or `save`; by name, else in their order.

        Args:
            skip_mismatch: leave weights as they are that the file has not, or in another shape.

        Raises:
            CheckpointError: they are those of another model; nothing is assigned.
            ValueError: the model has no weights yet.
        """
        load_weights(self, filepath, skip_mismatch)


def _revived(x: Any) -> Any:
    """An argument of `compile`: objects for configurations, alone or nested."""
    if is_configuration(x):
        return deserialize(x)
    if isinstance(x, Mapping):
        return {key: _revived(value) for key, value in x.items()}
    return type(x)(map(_revived, x)) if isinstance(x, (list, tuple)) else x
