"""Writes docs/keras-parity.md: which of Keras's public names onnxtape has.

    python -m tests.reference.keras_parity

Needs onnxtape, and keras_names.json, which make_keras_parity.py writes. A test fails when the
document does not say what is.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.reference.keras_names_here import resolve
from tests.reference.keras_signatures import EXCEPTIONS, WITHOUT_MEANING

DOCUMENT = Path(__file__).parents[2] / "docs" / "keras-parity.md"
COMMAND = "python -m tests.reference.keras_parity"

#: What has another name here. Each of these is looked up, too.
ELSEWHERE = {
    **{
        f"{module}.{name}": f"ot.{module}.get"
        for module in ("losses", "metrics", "optimizers", "initializers", "regularizers")
        for name in ("deserialize",)
    },
    "constraints.deserialize": "ot.constraints.get",
    "models.Model": "ot.Model",
    "models.Sequential": "ot.Sequential",
    "utils.set_random_seed": "ot.set_seed",
}

_SAVING = "`model.save`, `ot.save_checkpoint` and BackupAndRestore keep all variables"
_CONFIGS = "configurations are plain: `get_config()` of the object"
_STATES = "the state of compiled steps is kept by `ot.function`"
_DATA = "datasets are `ot.data`'s, or whatever iterates"
_TORCH_LIKE = "Keras keeps one policy of dtypes; layers here have the dtype of their weights"

#: What there is a reason to leave out, by the reason.
LEFT_OUT = {
    "tensors hold no complex numbers": ["ops.polar", "ops.view_as_complex", "ops.view_as_real"],
    "needs complex numbers, in general": ["ops.eig", "ops.linalg.eig"],
    "standard operators do not reinterpret bits (before opset 26)": ["ops.nextafter", "ops.view"],
    "calls NumPy-style functions by signature; use `ops.vectorized_map`": ["ops.vectorize"],
    "runs another framework inside": [
        *("layers.FlaxLayer", "layers.JaxLayer", "layers.TFSMLayer", "layers.TorchModuleWrapper"),
    ],
    "works on strings or hashes, for which there are no tensors": [
        *("layers.HashedCrossing", "layers.Hashing", "layers.StringLookup"),
        *("layers.TextVectorization", "layers.IntegerLookup", "utils.FeatureSpace"),
    ],
    _SAVING: [
        *("Model.load_own_variables", "Model.save_own_variables"),
        *("layers.Layer.load_own_variables", "layers.Layer.save_own_variables"),
        *("optimizers.Optimizer.load_own_variables", "optimizers.Optimizer.save_own_variables"),
        "callbacks.OrbaxCheckpoint",
    ],
    _CONFIGS: [
        *(f"{m}.serialize" for m in ("losses", "metrics", "initializers", "regularizers")),
        "constraints.serialize",
        *("optimizers.schedules.deserialize", "utils.get_registered_name"),
        "utils.get_registered_object",
        *("utils.serialize_keras_object", "utils.deserialize_keras_object", "utils.Config"),
        *("Model.build_from_config", "Model.get_build_config", "layers.Layer.build_from_config"),
        "layers.Layer.get_build_config",
    ],
    _STATES: [
        *("Model.get_state_tree", "Model.set_state_tree", "Model.stateless_call"),
        *("Model.stateless_compute_loss", "Model.compute_loss_and_updates"),
        *("Model.jax_state_sync", "layers.Layer.stateless_call"),
        *("optimizers.Optimizer.stateless_apply", "optimizers.Optimizer.assign"),
        *("optimizers.Optimizer.assign_add", "optimizers.Optimizer.assign_sub"),
    ],
    "steps are compiled once by `ot.function`": [
        *("Model.jit_compile", "Model.run_eagerly", "Model.make_predict_function"),
        *("Model.make_test_function", "Model.make_train_function"),
    ],
    "is Keras's own machinery": [
        *(
            f"{owner}.{name}"
            for owner in ("Model", "layers.Layer")
            for name in (
                *("symbolic_call", "compute_output_spec", "quantized_build", "quantized_call"),
                *("rematerialized_call", "input_spec", "add_metric"),
            )
        ),
        *("layers.InputSpec", "utils.get_source_inputs", "utils.is_keras_tensor"),
    ],
    "an ONNX Runtime session quantizes by its own tools": [
        *("Model.quantize", "Model.quantization_mode", "layers.Layer.quantize"),
        *("layers.Layer.quantization_mode", "Model.get_quantization_layer_structure"),
    ],
    _TORCH_LIKE: [
        *(
            f"{owner}.{name}"
            for owner in ("Model", "layers.Layer")
            for name in ("compute_dtype", "dtype_policy", "input_dtype", "variable_dtype")
        ),
    ],
    _DATA: [
        *("utils.audio_dataset_from_directory", "utils.image_dataset_from_directory"),
        *("utils.text_dataset_from_directory", "utils.timeseries_dataset_from_array"),
    ],
    "nothing is downloaded": ["utils.get_file", "callbacks.RemoteMonitor"],
    "is for notebooks of Keras's": [
        *("utils.disable_interactive_logging", "utils.enable_interactive_logging"),
        *("utils.is_interactive_logging_enabled", "utils.Progbar"),
    ],
}
REASONS = {name: reason for reason, names in LEFT_OUT.items() for name in names}

ARGUMENTS = """\
## Arguments

Whatever is here takes Keras's arguments by their names, with Keras's defaults and in Keras's order;
some stand behind `**kwargs`. A test compares them all. Left out are, wherever Keras has them:"""

BEHAVIOUR = """\
## Behaviour

What Keras 3.15 does, and onnxtape does not:

- A layer that was called with `training=` in the functional API keeps that, as Keras's guides to
  transfer learning and to Monte Carlo dropout have it. In Keras, `fit`, `predict` and `model(x,
  training=...)` put their own in its place.
- `compile` without a loss or metrics forgets those of the `compile` before; Keras keeps them.
- `sparsemax` is the paper's, whose rows sum to 1; Keras's do not where more than one number stays.
- Rows of an embedding that a batch reads twice: gradients are added up before the optimizer
  squares them, as in Keras on PyTorch and JAX. On TensorFlow, Keras squares them one by one.
- The losses of single outputs in the logs of `fit` are means weighted by the batches' sizes, as in
  Keras on PyTorch and JAX. On TensorFlow, they are not where sizes differ.

What Keras does, and may surprise: `fit` calls a model whose `call` has no argument `training`
without it, so that dropout and batch normalization in it do what they do in inference. onnxtape
does the same, and warns."""

TITLES = {
    "Model": "Methods and properties of `Model`",
    "layers.Layer": "Methods and properties of `layers.Layer`",
    "optimizers.Optimizer": "Methods and properties of `optimizers.Optimizer`",
}


def here(module: str, name: str) -> bool:
    """Whether onnxtape has the name, there or elsewhere."""
    other = ELSEWHERE.get(f"{module}.{name}")
    if other is not None:
        return resolve(other.removeprefix("ot.")) is not None
    return hasattr(resolve(module), name)


def listing(names: list[str]) -> str:
    return textwrap.fill(", ".join(f"`{n}`" for n in names), 100, break_on_hyphens=False)


def section(module: str, names: list[str]) -> list[str]:
    found = [name for name in names if here(module, name)]
    missing = [name for name in names if name not in found]
    open_ = [name for name in missing if f"{module}.{name}" not in REASONS]
    title = TITLES.get(module, f"`{module}`")
    lines = [f"## {title}", "", f"{len(found)} of {len(names)} are here."]
    if found:
        lines += ["", "Here:", "", listing(found)]
    renamed = [(n, ELSEWHERE[f"{module}.{n}"]) for n in found if f"{module}.{n}" in ELSEWHERE]
    if renamed:
        lines += ["", *(f"- `{name}` is `{other}`" for name, other in renamed)]
    if open_:
        lines += ["", "Not here:", "", listing(open_)]
    by_reason: dict[str, list[str]] = {}
    for name in missing:
        if name not in open_:
            by_reason.setdefault(REASONS[f"{module}.{name}"], []).append(name)
    if by_reason:
        lines += ["", "Left out:", ""]
        for reason, left in by_reason.items():
            bullet = f"- {', '.join(f'`{n}`' for n in left)}: {reason}"
            lines.append(textwrap.fill(bullet, 100, subsequent_indent="  ", break_on_hyphens=False))
    return [*lines, ""]


def render() -> str:
    """The whole document."""
    stored = json.loads(Path(__file__).with_name("keras_names.json").read_text("utf-8"))
    names: dict[str, list[str]] = stored["names"]
    rows, sections, totals = [], [], [0, 0, 0]
    for module, members in names.items():
        found = sum(here(module, name) for name in members)
        left_out = sum(f"{module}.{name}" in REASONS and not here(module, name) for name in members)
        totals = [a + b for a, b in zip(totals, (found, left_out, len(members)), strict=True)]
        title = TITLES.get(module, f"`{module}`")
        rows.append(f"| {title} | {len(members)} | {found} | {left_out} |")
        sections += section(module, members)
    arguments = [
        *(f"- {_listed(names)}: {reason}" for reason, names in WITHOUT_MEANING.items()),
        *(f"- {_listed(names)}: {reason}" for reason, names in _by_reason(EXCEPTIONS).items()),
    ]
    head = f"""\
# Keras's names here

The public names of Keras {stored["version"]}, and which of them onnxtape has. Names are compared
here; the numbers behind them are compared by the tests (`tests/reference`).
`{COMMAND}` writes this document.

| module | names | here | left out, with a reason |
|---|---:|---:|---:|
"""
    total = f"| all | {totals[2]} | {totals[0]} | {totals[1]} |"
    wrapped = [textwrap.fill(line, 100, subsequent_indent="  ") for line in arguments]
    parts = [
        *rows,
        total,
        "",
        *BEHAVIOUR.splitlines(),
        "",
        *ARGUMENTS.splitlines(),
        "",
        *wrapped,
        "",
        *sections,
    ]
    return head + "\n".join(parts).rstrip() + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return found


def main() -> None:
    DOCUMENT.write_text(render(), encoding="utf-8")
    print(f"wrote {DOCUMENT.name}")


if __name__ == "__main__":
    main()
