"""Whole models in files: layers, weights, what `compile` was given, and the optimizer's state.

A file is a zip archive (`archive.py`) of the configuration as JSON and the variables as
safetensors. Nothing in it is a program: reading one runs onnxtape's code, and the constructors and
calls of classes that the user has registered, handed over or imported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxtape import context, nest
from onnxtape.runtime.errors import CheckpointError
from onnxtape.saving.archive import (
    CONFIG,
    METADATA,
    STATE,
    SavedModel,
    opened_archive,
    write_archive,
)
from onnxtape.saving.encoding import decode, encode
from onnxtape.saving.objects import custom_object_scope, deserialize
from onnxtape.signature import TensorSpec

#: What the names of saved models end in.
SUFFIX = ".onnxtape"
_FORMAT, _VERSION = "onnxtape model", 1


def save_model(
    model: Any,
    filepath: str | os.PathLike[str],
    overwrite: bool = True,
    zipped: bool | None = None,
) -> None:
    """Write a whole model to one file, from which `load_model` makes it again.

    The file holds the configuration, the weights, and, of a compiled model, what `compile` was
    given and the optimizer's state: training goes on from it as if it had not been interrupted, but
    for random numbers, whose global stream `ot.save_checkpoint` keeps.

    Args:
        model: one that has weights, or has none to make.
        filepath: the file, which ends in ".onnxtape". It is replaced at once, when it is whole.
        overwrite: whether a file that is there may be replaced.
        zipped: None or True: it is one file.

    Raises:
        FileExistsError: the file is there and `overwrite` is False.
        ValueError: the file's name ends otherwise; the model is not built; or it holds what no file
            can hold, such as a lambda.
    """
    path = Path(check_model_suffix(filepath))
    if zipped is False:
        raise ValueError("a saved model is one file: leave zipped out")
    if not overwrite and path.exists():
        raise FileExistsError(f"'{path}' is there already, and overwrite is False")
    if not model.built:
        raise ValueError(
            f"model '{model.name}' has no weights yet: call it on data or build(input_shape) first"
        )
    what = f"model '{model.name}' cannot be saved: its"
    config = {
        "model": encode(model, f"{what} configuration"),
        "calls": encode(getattr(model, "_call_specs", None), f"{what} input"),
        "trainable": [layer._trainable for layer in model._flatten_layers()],
        "compile": _compile_config(model),
        "optimizer": None,
    }
    tree = {"model": model}
    if config["compile"] is not None and model.optimizer is not None:
        config["optimizer"] = _optimizer_config(model)
        tree["optimizer"] = model.optimizer
    metadata = {"format": _FORMAT, "version": _VERSION, "onnxtape": _version()}
    with tempfile.TemporaryDirectory() as folder:
        from onnxtape.state import write_variables

        state = Path(folder) / STATE
        write_variables(state, tree)
        write_archive(path, {METADATA: metadata, CONFIG: config}, state)


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """The model that `save_model` wrote.

    The file may come from anybody: none of it is run.

    Args:
        custom_objects: your classes and functions by name; those under
            `ot.saving.register_keras_serializable`, and classes of modules that are imported, are
            found without.
        compile: whether the model is compiled as it was, and the optimizer gets its state.
        safe_mode: as in Keras; there is nothing here that is not safe.

    Raises:
        ValueError: a class or function is not known.
        CheckpointError: the file is damaged, or none of this kind.
    """
    check_model_suffix(filepath)
    source = os.fspath(filepath)
    with custom_object_scope(custom_objects), opened_archive(filepath) as saved:
        _check_version(saved.json(METADATA), source)
        with _damage_named(source):
            config = decode(saved.json(CONFIG))
            with _weights_of_at_most(saved.state_size, source):
                model = _made_again(config)
            tree = {"model": model}
            if compile and config["compile"] is not None:
                model.compile_from_config(config["compile"])
                if model.optimizer is not None:
                    _build_optimizer(model, config["optimizer"])
                    tree["optimizer"] = model.optimizer
        _read(saved, tree, source)
    return model


def load_weights_of(model: Any, filepath: str | os.PathLike[str]) -> None:
    """Assign the weights of a saved model to another one like it.

    Raises:
        CheckpointError: they are those of another model; nothing is assigned.
    """
    with opened_archive(filepath) as saved:
        _check_version(saved.json(METADATA), os.fspath(filepath))
        _read(saved, {"model": model}, os.fspath(filepath))


def _read(saved: SavedModel, tree: dict[str, Any], source: str) -> None:
    from onnxtape.state import read_variables

    with saved.state() as state:
        # All of it, or the model alone.
        part = "" if len(tree) > 1 else "model/"
        read_variables(state, tree, (), source, part, by_order=True)


def check_model_suffix(filepath: str | os.PathLike[str]) -> str:
    """The name of a saved model.

    Raises:
        ValueError: it ends otherwise.
    """
    name = os.fspath(filepath)
    if not name.endswith(SUFFIX):
        stem = name
        for suffix in (".weights.h5", ".keras", ".h5", ".hdf5", ".onnx", ".safetensors", ".zip"):
            stem = stem.removesuffix(suffix)
        raise ValueError(
            f"a whole model is kept in a file '{stem}{SUFFIX}', not '{name}': Keras's own files "
            "hold HDF5, save_onnx writes .onnx, and save_weights .safetensors"
        )
    return name


def _version() -> str:
    import onnxtape

    return onnxtape.__version__


def _check_version(metadata: Any, source: str) -> None:
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{source} is not a saved model of onnxtape's.")
    version = metadata.get("version")
    if not isinstance(version, int) or version > _VERSION:
        raise CheckpointError(
            f"{source} was written by onnxtape {metadata.get('onnxtape')}, in version {version} of "
            f"its format; this one, {_version()}, reads {_VERSION}: update it."
        )


def _compile_config(model: Any) -> Any:
    """What `compile` was given; None where it was not called, or no file can hold it."""
    if not model.compiled:
        return None
    try:
        return encode(model.get_compile_config(), "what compile was given")
    except ValueError as error:
        context.warn_user(
            f"model '{model.name}' is saved as if it were not compiled, without its optimizer: "
            f"{error}"
        )
        return None


def _optimizer_config(model: Any) -> Any:
    """Which variables of the model the optimizer knows, and which it does not decay."""
    optimizer = model.optimizer
    if not optimizer.built:
        return None
    places = {id(v): i for i, v in enumerate(model.variables)}
    exempt = getattr(optimizer, "inner_optimizer", optimizer)._undecayed
    return {
        "variables": [places[id(v)] for v in optimizer._trainable if id(v) in places],
        "undecayed": [i for i, v in enumerate(model.variables) if v in exempt],
    }


def _build_optimizer(model: Any, config: Any) -> None:
    if config is None:
        return
    known, optimizer = model.variables, model.optimizer
    if config["undecayed"]:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner.exclude_from_weight_decay([known[i] for i in config["undecayed"]])
    with context.in_layer(optimizer.name):
        optimizer.build([known[i] for i in config["variables"]])


def _made_again(config: Mapping[str, Any]) -> Any:
    """The model of a configuration, with weights of its own."""
    from onnxtape.functional import Input
    from onnxtape.models.model import Model

    model = deserialize(config["model"])
    if not isinstance(model, Model):
        raise TypeError(f"it describes no model, but {model!r}")
    if not model.built and config["calls"] is not None:
        args, kwargs = nest.map_structure(
            lambda x: (
                Input(batch_shape=x.shape, dtype=x.dtype, name=x.name)
                if isinstance(x, TensorSpec)
                else x
            ),
            config["calls"],
        )
        model(*args, **kwargs)
    layers = list(model._flatten_layers())
    if len(layers) == len(config["trainable"]):
        for layer, trainable in zip(layers, config["trainable"], strict=True):
            layer._trainable = bool(trainable)
    return model


@contextmanager
def _weights_of_at_most(size: int, source: str) -> Iterator[None]:
    context.state.weight_budget = context.WeightBudget(size, source)
    try:
        yield
    finally:
        context.state.weight_budget = None


@contextmanager
def _damage_named(source: str) -> Iterator[None]:
    """Name the file where its configuration is none, or does not fit the classes it names."""
    try:
        yield
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        text = str(error) or type(error).__name__
        raise CheckpointError(
            f"the model in {source} cannot be made again from its configuration: {text}"
        ) from error
