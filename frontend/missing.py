"""Names of Keras's that are not here, or are elsewhere: what to write instead."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from onnxtape.naming import suggestion

_NO_DOWNLOADS = "nothing is downloaded here"
_STRINGS = (
    "there are no tensors of strings: turn text into integers in Python (in a Dataset's map, say), "
    "and give those to ot.layers.Embedding"
)
_FOLDERS = "make an ot.data.Dataset of what you have read, or give fit any iterable of batches"
_PICTURES = "use Pillow: numpy.asarray(PIL.Image.open(path)), and PIL.Image.fromarray"
_OTHERS = "export that model to ONNX and use ot.load_onnx, or ot.from_torch or ot.from_keras"
_PLAIN = "a configuration is what get_config() gives, a plain dict"

#: TensorFlow's names at the top of its package.
_TENSORFLOW: Mapping[str, str] = {
    **{f"reduce_{name}": f"it is ot.ops.{name}"
       for name in ("all", "any", "logsumexp", "max", "mean", "min", "prod", "sum")},
    **{name: f"it is ot.ops.{name}" for name in ("identity", "ones", "zeros")},
    "concat": "it is ot.ops.concatenate",
    "constant": "it is ot.convert_to_tensor",
    "gather": "it is ot.ops.take",
    "range": "it is ot.ops.arange",
    "rank": "it is ot.ops.ndim",
    "pow": "it is ot.ops.power",
    "newaxis": "write None",
    **dict.fromkeys(
        ("float16", "float32", "float64", "int32", "int64", "uint8", "bool"),
        "dtypes are written by name: 'float32'",
    ),
    "nn": "its functions are in ot.ops, and ot.activations",
    "math": "its functions are in ot.ops",
    "linalg": "it is ot.ops.linalg",
    "image": "it is ot.ops.image",
    "keras": "its modules are here: ot.layers, ot.losses, ot.Model",
    "Module": "there is ot.layers.Layer, with add_weight",
    "train": "there are ot.save_checkpoint and ot.restore_checkpoint",
    "name_scope": "operations are named after the layers that they are in",
    "print": "Python's print shows what a step returns; in a step there is no printing",
}  # fmt: skip

#: By module, then by name.
ADVICE: Mapping[str, Mapping[str, str]] = {
    "onnxtape": {
        **_TENSORFLOW,
        "applications": f"{_NO_DOWNLOADS}: {_OTHERS}",
        "backend": "its functions are in ot.ops; clear_session is in ot.utils",
        "config": "dtypes are set by ot.set_dtype_policy, the device by ot.set_default_device",
        "datasets": f"{_NO_DOWNLOADS}: numpy.load a file, or sklearn.datasets has small ones",
        "distribution": "a step runs on one device here; see ot.device",
        "distribute": "a step runs on one device here; see ot.device",
        "dtype_policies": "there is ot.DTypePolicy",
        "enable_eager_execution": "everything outside of an ot.function runs eagerly",
        "experimental": "Keras's experimental parts are not here",
        "KerasTensor": "ot.Input gives an ot.Tensor",
        "InputSpec": "build(input_shape) sees the shape, and call may check it",
        "preprocessing": "pad_sequences is in ot.utils, layers for images are in ot.layers",
        "quantizers": "an ONNX Runtime session quantizes by its own tools (save_onnx first)",
        "remat": "it is ot.recompute",
        "RematScope": "there is ot.recompute, and memory_budget of ot.function",
        "StatelessScope": "ot.function keeps the state of compiled steps",
        "tree": "nested structures are arguments as they are; ot.ops take tensors",
        "version": "it is ot.__version__",
        "visualization": "there are ot.plot_model and ot.plot_step",
        "wrappers": "there is no scikit-learn wrapper: fit and predict take NumPy arrays",
    },
    "onnxtape.data": {
        **dict.fromkeys(
            ("TFRecordDataset", "TextLineDataset", "FixedLengthRecordDataset"),
            "read files in a generator, for Dataset.from_generator",
        ),
    },
    "onnxtape.callbacks": {
        "TensorBoard": (
            "CSVLogger writes the logs of each epoch to a file, and LambdaCallback(on_epoch_end="
            "lambda epoch, logs: ...) hands them to any writer, TensorBoard's too"
        ),
        "RemoteMonitor": "LambdaCallback(on_epoch_end=...) can send the logs anywhere",
        "OrbaxCheckpoint": "there are ModelCheckpoint and BackupAndRestore",
    },
    "onnxtape.layers": {
        **dict.fromkeys(
            ("TextVectorization", "StringLookup", "IntegerLookup", "Hashing", "HashedCrossing"),
            _STRINGS,
        ),
        **dict.fromkeys(("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"), _OTHERS),
        "CuDNNLSTM": "it is LSTM",
        "CuDNNGRU": "it is GRU",
        "InputLayer": "it is ot.Input(shape)",
        "InputSpec": "build(input_shape) sees the shape, and call may check it",
    },
    "onnxtape.losses": {"serialize": _PLAIN},
    "onnxtape.metrics": {"serialize": _PLAIN},
    "onnxtape.initializers": {"serialize": _PLAIN},
    "onnxtape.regularizers": {"serialize": _PLAIN},
    "onnxtape.constraints": {"serialize": _PLAIN},
    "onnxtape.optimizers": {
        "legacy": "all optimizers are those of Keras 3",
        "experimental": "all optimizers are those of Keras 3",
    },
    "onnxtape.utils": {
        "FeatureSpace": _STRINGS,
        "Progbar": "fit shows its own; rich.progress has others",
        "get_file": f"{_NO_DOWNLOADS}: urllib.request.urlretrieve(url, path)",
        **dict.fromkeys(
            (
                "audio_dataset_from_directory",
                "image_dataset_from_directory",
                "text_dataset_from_directory",
            ),
            _FOLDERS,
        ),
        **dict.fromkeys(("load_img", "save_img", "img_to_array", "array_to_img"), _PICTURES),
        "serialize_keras_object": "it is ot.layers.serialize",
        "deserialize_keras_object": "it is ot.layers.deserialize",
        "model_to_dot": "plot_model draws SVG, without Graphviz",
        "multi_gpu_model": "a step runs on one device here; see ot.device",
    },
}


#: What `tf.function` takes, and `ot.function` does not.
_OF_FUNCTIONS: Mapping[str, str] = {
    **dict.fromkeys(
        ("autograph", "experimental_autograph_options"),
        "Python's `if` and `while` are never rewritten here: leave it out, and write ops.where, "
        "ot.cond or ot.while_loop where a condition is a tensor",
    ),
    "experimental_compile": "leave it out: every step is compiled",
    "experimental_follow_type_hints": "leave it out: numbers that change become inputs anyway",
    "experimental_relax_shapes": "leave it out: sizes that change become symbolic anyway",
}


def no_argument(name: str, known: Iterable[str]) -> TypeError:
    """The error of an argument that `ot.function` does not have."""
    advice = _OF_FUNCTIONS.get(name)
    end = f": {advice}" if advice else suggestion(name, known)
    return TypeError(f"ot.function has no argument '{name}'{end}")


class Missing:
    """An attribute that is not there and says what to use instead."""

    def __init__(self, advice: str) -> None:
        self._advice = advice

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__} has no attribute '{self._name}': {self._advice}")


def in_module(module: str, names: Iterable[str]) -> Callable[[str], NoReturn]:
    """A module's `__getattr__`: says what to use instead of a name that is not there.

    Args:
        module: its name.
        names: what it has.
    """
    known = list(names)

    def refuse(name: str) -> NoReturn:
        raise no_attribute(module, name, known)

    return refuse


def no_attribute(
    module: str, name: str, known: Iterable[str], others: Iterable[str] = ()
) -> AttributeError:
    """The error of a name that a module does not have.

    Args:
        known: the names that it has.
        others: modules of the package that may have it.
    """
    text = f"module '{module}' has no attribute '{name}'"
    # Python asks for each module that is imported from a package, before it looks for its file.
    if name.startswith("_") or _is_module(f"{module}.{name}"):
        return AttributeError(text)
    advice = ADVICE.get(module, {}).get(name) or _elsewhere(name, others)
    if not advice:
        close = suggestion(name, known).removeprefix("; ")
        advice = close if close.startswith("did you mean") else ""
    return AttributeError(f"{text}: {advice}" if advice else text)


def _is_module(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:  # in what is no package
        return False


def _elsewhere(name: str, modules: Iterable[str]) -> str:
    for module in modules:
        found = getattr(importlib.import_module(f"onnxtape.{module}"), name, None)
        if found is not None and not inspect.ismodule(found):
            return f"it is ot.{module}.{name}"
    return ""
