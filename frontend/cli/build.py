"""`onnxtape build`: an ONNX model, a loss and an optimizer become a training artifact."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtape.cli.output import UsageError, positive, readable_size, shown_shape, whole_number

if TYPE_CHECKING:
    from onnxtape.interop import OnnxModel
    from onnxtape.metrics import Metric
    from onnxtape.signature import TensorSpec
    from onnxtape.tensor import Tensor

_DESCRIPTION = """\
Compile a training step for an ONNX model, and write it as an artifact: a folder with the step, an
evaluation step and the inference graph as plain ONNX, and the state. `onnxtape train` trains with
it, and so does any program that opens ONNX Runtime sessions.

The step takes the model's inputs by their names, and `target`; it gives the loss and the metrics.
"""

_LOSSES = """\
cross_entropy (targets are class numbers), categorical_cross_entropy (targets are distributions),
bce (binary cross-entropy), mse, mae, huber, or another name in onnxtape.losses; the
cross-entropies take logits: what goes into Softmax or Sigmoid, where the output is made by those"""

_CROSS_ENTROPIES = {
    "cross_entropy": "SparseCategoricalCrossentropy",
    "categorical_cross_entropy": "CategoricalCrossentropy",
    "bce": "BinaryCrossentropy",
    "binary_cross_entropy": "BinaryCrossentropy",
}
_BINARY = ("bce", "binary_cross_entropy")


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "build",
        help="make a training artifact of an ONNX model",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", help="the model to train")
    add("-o", "--artifact", metavar="FOLDER", required=True, help="the folder to write")
    add("--force", action="store_true", help="replace an artifact that is there")
    add("--loss", required=True, metavar="NAME", help=_LOSSES)
    add("--optimizer", default="adamw", metavar="NAME", help="adamw (default), adam, sgd, ...")
    add("--learning-rate", type=positive, metavar="RATE", help="default: the optimizer's")
    add("--weight-decay", type=positive, metavar="SHARE", help="default: the optimizer's")
    add("--momentum", type=positive, metavar="SHARE", help="of sgd and rmsprop")
    add("--clip-norm", type=positive, metavar="NORM", help="largest norm of all gradients together")
    add(
        "--accumulate",
        type=whole_number(2),
        metavar="N",
        help="update by the mean gradient of N batches",
    )
    add(
        "--trainable",
        action="extend",
        nargs="+",
        metavar="PATTERN",
        help="train only these weights, e.g. 'classifier.*'; default: all that a gradient reaches",
    )
    add(
        "--lora",
        action="extend",
        nargs="+",
        metavar="PATTERN",
        help="train low-rank adapters of these weights instead; see also --trainable",
    )
    add("--lora-rank", type=whole_number(1), default=8, metavar="N", help="default: 8")
    add("--lora-alpha", type=positive, default=16.0, metavar="A", help="default: 16")
    add("--output", metavar="NAME", help="the output to train, where the model has several")
    add("--target", default="target", metavar="NAME", help="what to call the targets")
    add("--metrics", action="extend", nargs="+", default=[], metavar="NAME", help="e.g. accuracy")
    add("--batch-size", type=whole_number(1), metavar="N", help="default: any")
    add(
        "--training-mode",
        action="store_true",
        help="let dropout drop and batch normalization use the batch's statistics while training",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Build the artifact and say what it holds."""
    import onnxtape as ot
    from onnxtape.export import export_step

    _require_free(options)
    model = ot.load_onnx(options.model)
    if options.lora is not None:
        model.add_lora(options.lora, options.lora_rank, options.lora_alpha)
    if options.trainable is not None:
        model.set_trainable(options.trainable)
    output = _chosen_output(model, options.output)
    trunk, trained_output, from_logits = _before_probabilities(model, output, options.loss)
    inputs = _input_specs(trunk, options.batch_size, options.target)
    loss = _loss(options.loss, from_logits)
    target = _target_spec(trunk, inputs, trained_output, options.loss, options.target)
    if not trunk.trainable_variables:
        raise UsageError("no weight of the model is trained: choose others with --trainable")
    steps = _Steps(trunk, trained_output, loss, _optimizer(options), options, from_logits)
    train = ot.function(steps.train_step, input_signature=[inputs, target], fallback="error")
    evaluate = ot.function(
        steps.evaluation_step, input_signature=[inputs, target], fallback="error"
    )
    # As declared: `export` itself would leave the batch open.
    concrete = train.get_concrete_function()
    path = export_step(concrete, options.artifact, model, evaluate.get_concrete_function())

    trained = sum(v.size for v in model.trainable_variables)
    frozen = sum(v.size for v in model.non_trainable_variables)
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path}: {readable_size(size)}, trains {trained:,} parameters ({frozen:,} are frozen)")
    print(
        "batch: " + ", ".join(f"{s.name} {s.dtype}{shown_shape(s.shape)}" for s in concrete.inputs)
    )
    print(f"results: {', '.join(concrete.output_names)}")
    if options.loss in _CROSS_ENTROPIES:
        kind = "logits" if from_logits else "probabilities"
        print(f"{options.loss} takes '{trained_output}' as {kind}")
    return 0


def _require_free(options: argparse.Namespace) -> None:
    """A state that `onnxtape train` has saved belongs to the artifact that is there."""
    from onnxtape.runtime.errors import ArtifactError

    if not options.force and (Path(options.artifact) / "manifest.json").exists():
        raise ArtifactError(
            f"{options.artifact} holds an artifact already: --force replaces it, -o chooses "
            "another folder"
        )


class _Steps:
    """The steps to compile."""

    def __init__(
        self,
        model: OnnxModel,
        output: str,
        loss: Callable[[Any, Any], Tensor],
        optimizer: Any,
        options: argparse.Namespace,
        from_logits: bool,
    ) -> None:
        self._model = model
        self._output = output
        self._loss = loss
        self._optimizer = optimizer
        self._training_mode: bool = options.training_mode
        self._wanted: list[str] = options.metrics
        self._logits_of = options.loss if from_logits else None
        self._metrics: dict[str, Metric] = {}

    def train_step(self, inputs: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        import onnxtape as ot

        with ot.GradientTape() as tape:
            predicted = predict(self._model, inputs, self._output, self._training_mode)
            loss = self._loss(target, predicted)
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss, **self._measured(target, predicted)}

    def evaluation_step(self, inputs: list[Tensor], target: Tensor) -> dict[str, Tensor]:
        predicted = predict(self._model, inputs, self._output, training=False)
        return {"loss": self._loss(target, predicted), **self._measured(target, predicted)}

    def _measured(self, target: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        from onnxtape import ops
        from onnxtape.training.metrics import get_metric

        results = {}
        for name in self._wanted:
            if name not in self._metrics:
                self._metrics[name] = get_metric(name, target, predicted)
            measured = predicted
            # Metrics look at probabilities.
            if self._logits_of in _BINARY:
                measured = ops.sigmoid(predicted)
            elif self._logits_of in _CROSS_ENTROPIES and "accuracy" not in name:
                measured = ops.softmax(predicted)
            self._metrics[name].update_state(target, measured)
            results[name] = self._metrics[name].result()
        return results


def predict(model: OnnxModel, inputs: Sequence[Any], output: str, training: bool) -> Tensor:
    """The value of one output."""
    values = model(*inputs, training=training)
    tensor: Tensor = values[output] if len(model.output_names) > 1 else values
    return tensor


def _chosen_output(model: OnnxModel, wanted: str | None) -> str:
    names = model.output_names
    if wanted is None and len(names) > 1:
        raise UsageError(
            f"the model has several outputs: choose one with --output, of {_all(names)}"
        )
    if wanted is not None and wanted not in names:
        raise UsageError(f"the model has no output {wanted!r}; it has {_all(names)}")
    return wanted or names[0]


def _before_probabilities(model: OnnxModel, output: str, loss: str) -> tuple[OnnxModel, str, bool]:
    """What to compute the loss of, and whether that is logits.

    Where the output is made by Softmax or Sigmoid, a cross-entropy of what goes into that is exact
    where probabilities round to 0 or 1.
    """
    node = next(node for node in model._nodes if output in node.outputs)
    if node.op_type not in ("Softmax", "Sigmoid") or loss not in _CROSS_ENTROPIES:
        return model, output, True
    binary = loss in _BINARY
    last = binary or node.attributes.get("axis", -1) == -1
    (logits,) = node.inputs
    known = any(logits in other.outputs for other in model._nodes)
    if binary != (node.op_type == "Sigmoid") or not last or not known:
        return model, output, False
    return model.truncate(logits), logits, True


def _input_specs(model: OnnxModel, batch_size: int | None, target: str) -> list[TensorSpec]:
    """The model's inputs, all dimensions named; the leading open one is the batch."""
    from onnxtape.signature import TensorSpec, resolve_spec

    specs = model.input_specs
    specs = specs if isinstance(specs, list) else [specs]
    names = [spec.name or "" for spec in specs]
    if target in names:
        raise UsageError(
            f"the model has an input {target!r}: choose another name for the targets with --target"
        )
    if batch_size is not None:
        specs = [
            TensorSpec((batch_size, *s.shape[1:]), s.dtype, s.name)
            if s.shape and s.shape[0] is None
            else s
            for s in specs
        ]
    shapes = resolve_spec(names, specs)
    return [TensorSpec(d, s.dtype, s.name) for d, s in zip(shapes, specs, strict=True)]


def _target_spec(
    model: OnnxModel, inputs: list[TensorSpec], output: str, loss: str, name: str
) -> TensorSpec:
    """What the targets are, by the output that they belong to."""
    from onnxtape import context
    from onnxtape.engine import B
    from onnxtape.signature import TensorSpec
    from onnxtape.tracing import InputSpec, trace

    found: list[Any] = []

    def call(tensors: Sequence[Tensor]) -> Tensor:
        predicted = predict(model, tensors, output, training=False)
        found.extend((B.shape(predicted), predicted.dtype))
        return predicted

    specs = [InputSpec(s.name or "", s.dtype, s.shape) for s in inputs]
    with context.eagerly():
        trace("target", specs, call, may_create=False)
    shape, dtype = found
    if shape is None:
        raise ValueError(
            f"the shape of the output '{output}' is not known: compile the step in Python instead"
        )
    if loss == "cross_entropy" or loss.replace("_", "").lower().startswith("sparse"):
        if not shape:
            raise ValueError(f"{loss} needs scores of classes, but '{output}' is a single number")
        return TensorSpec(shape[:-1], "int64", name)
    return TensorSpec(shape, dtype, name)


def _loss(name: str, from_logits: bool) -> Callable[[Any, Any], Tensor]:
    from onnxtape import losses, ops

    if name in _CROSS_ENTROPIES:
        made: Callable[[Any, Any], Tensor] = getattr(losses, _CROSS_ENTROPIES[name])(
            from_logits=from_logits
        )
        return made
    try:
        loss = losses.get(name)
    except ValueError as error:
        raise UsageError(f"{error}, and {', '.join(_CROSS_ENTROPIES)}") from None
    if isinstance(loss, losses.Loss):
        return loss
    return lambda target, predicted: ops.mean(loss(target, predicted))


def _optimizer(options: argparse.Namespace) -> Any:
    from onnxtape import optimizers

    given = {
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "momentum": options.momentum,
        "global_clipnorm": options.clip_norm,
        "gradient_accumulation_steps": options.accumulate,
    }
    config = {name: value for name, value in given.items() if value is not None}
    try:
        return optimizers.get({"class_name": options.optimizer, "config": config})
    except TypeError:
        raise UsageError(f"{options.optimizer} does not take all of {', '.join(config)}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _all(names: Sequence[str]) -> str:
    return ", ".join(names)
