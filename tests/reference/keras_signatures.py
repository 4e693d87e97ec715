"""How the arguments of Keras's public names differ from those of the same names here.

`keras_signatures.json`, which make_keras_parity.py writes, holds Keras's: names, kinds, defaults.
What is compared: every argument of Keras can be given by its name, has the same default, and what
can be given by its place here has the same place there.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.reference.keras_names_here import resolve

STORED = Path(__file__).with_name("keras_signatures.json")

#: Arguments that have no meaning here, wherever Keras has them, by the reason.
WITHOUT_MEANING = {
    "low-rank adapters are for imported models": ("lora_rank", "lora_alpha"),
    "an ONNX Runtime session quantizes by its own tools": (
        "quantization_config",
        "gptq_unpacked_column_size",
    ),
    "there are no sparse and ragged tensors": ("sparse", "ragged"),
    "is of distributed training": ("aggregation", "synchronization", "layout"),
    "is Keras's own machinery": ("autocast", "overwrite_with_gradient", "tensor", "optional"),
    "weights are one file": ("max_shard_size",),
}
_STEPS = ("train_step", "test_step", "predict_step")
#: Single differences, by the reason.
EXCEPTIONS = {
    **dict.fromkeys(
        (f"{m}.{step}" for m in ("Model", "Sequential") for step in _STEPS),
        "takes the batch alone; Keras on JAX passes its state, too",
    ),
    **dict.fromkeys(
        (f"{m}.compute_mask" for m in ("Model", "Sequential", "layers.Layer")),
        "the second argument is `mask`, as in all of Keras's layers that have it",
    ),
    "Sequential.compute_output_shape": "as every layer's: a shape for each argument of `call`",
    **dict.fromkeys(
        ("Model.export", "Sequential.export"), "writes ONNX alone, so that is the default"
    ),
    **dict.fromkeys(
        ("Model.add_weight", "Sequential.add_weight", "layers.Layer.add_weight"),
        "a shape is a scalar's by default; Keras takes None for that",
    ),
    "metrics.Metric.add_weight": "the initializer is zeros by default; Keras takes None for that",
    "metrics.Metric.add_variable": "has no `aggregation`, which is of distributed training",
    "optimizers.Optimizer.add_variable": "has no `aggregation`, which is of distributed training",
    **dict.fromkeys(
        ("layers.Conv3DTranspose", "layers.Convolution3DTranspose"),
        "`output_padding` stands where Conv2DTranspose has it",
    ),
    "ops.multi_hot": "`num_classes` must be given; Keras's default None is refused there, too",
    "utils.plot_model": "draws SVG, without Graphviz and its options",
    "utils.split_dataset": "there is one kind of dataset, and no `preferred_backend`",
    "utils.timeseries_dataset_from_array": "there is one kind of dataset, and no `format`",
    "Variable": "the value comes first: `ot.Variable(value, trainable, name, dtype)`, as in TF",
}


def stored() -> dict[str, list[list[Any]]]:
    """Keras's signatures, by name."""
    found: dict[str, list[list[Any]]] = json.loads(STORED.read_text("utf-8"))["signatures"]
    return found


def accepted(thing: Any) -> dict[str, inspect.Parameter]:
    """All parameters that can be given by name, those of bases behind `**kwargs` included."""
    parameters = inspect.signature(thing).parameters
    found = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not inspect.isclass(thing) or len(found) == len(parameters):
        return found
    for base in thing.__mro__[1:]:
        own = vars(base).get("__init__")
        if not inspect.isfunction(own):
            continue
        further = inspect.signature(own).parameters
        found = {**{n: p for n, p in further.items() if n != "self"}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in further.values()):
            break
    return found


def placed(thing: Callable[..., Any]) -> list[str]:
    """The parameters that can be given by their place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [n for n, p in inspect.signature(thing).parameters.items() if p.kind in kinds]


def same_default(theirs: str | None, own: inspect.Parameter) -> bool:
    """Whether two defaults mean the same: 2 and (2, 2), 0 and 0.0."""
    ours = None if own.default is own.empty else repr(own.default)
    if theirs is None or ours is None:
        return theirs is None
    return theirs == ours or _value(theirs) == _value(ours)


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    while isinstance(value, tuple) and value and all(part == value[0] for part in value):
        value = value[0]
    return value


def differences(name: str, keras: list[list[Any]]) -> Iterator[str]:
    """What differs in the arguments of a name, in words."""
    thing = resolve(name)
    own, places = accepted(thing), placed(thing)
    ignored = {argument for names in WITHOUT_MEANING.values() for argument in names}
    by_place = [n for n, kind, _ in keras if kind in ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")]
    for argument, kind, default in keras:
        if kind.startswith("VAR_") or argument in ignored:
            continue
        if argument not in own:
            yield f"no argument {argument}"
        elif not same_default(default, own[argument]):
            yield f"{argument}={own[argument].default!r}, not {default}"
    # Keras has *args where it wants everything by name.
    if not any(kind == "VAR_POSITIONAL" for _, kind, _ in keras):
        shared = list(zip(by_place, places, strict=False))
        if wrong := next((pair for pair in shared if pair[0] != pair[1]), None):
            yield f"{wrong[1]} stands where Keras has {wrong[0]}"


def all_differences() -> dict[str, list[str]]:
    """The differences by name, of the names that are here."""
    found = {}
    for name, keras in stored().items():
        if name in EXCEPTIONS or resolve(name) is None:
            continue
        if listed := list(differences(name, keras)):
            found[name] = listed
    return found
