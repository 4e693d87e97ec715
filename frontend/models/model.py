"""Model: a layer that can be summarized, from tensors (functional) or from a subclass."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from onnxtape import missing
from onnxtape.constructing import mistaken
from onnxtape.layers.layer import Layer
from onnxtape.models.summary import print_summary
from onnxtape.saving.models import save_model
from onnxtape.saving.objects import custom_object_scope, serialize
from onnxtape.training import Trainer

#: What a subclass of `Model` may hand on to it.
_OWN_ARGUMENTS = ("name", "trainable", "dtype", "activity_regularizer")


class Model(Trainer, Layer):
    """A model, which `compile` and `fit` train, or any step of one's own.

    `Model(inputs, outputs)` makes a functional one of tensors that began with `ot.Input`.
    Subclasses write `__init__` and `call(inputs, training=False)` instead.

    Args:
        inputs: a tensor, or a nested structure of them.
        outputs: what is computed from them.
    """

    #: The layers inside see to masks.
    supports_masking = True
    # For graphs that are written later, with the sizes that have varied free.
    _notes_every_call = True

    # Of Keras's, for those who look for them.
    fit_generator = missing.Missing("fit takes generators")
    evaluate_generator = missing.Missing("evaluate takes generators")
    predict_generator = missing.Missing("predict takes generators")
    predict_classes = missing.Missing("predict(x).argmax(-1) gives the most likely classes")
    predict_proba = missing.Missing("it is predict")
    add_metric = missing.Missing("give metrics to compile, or update those of your own in call")
    quantize = missing.Missing("quantize what save_onnx writes, by ONNX Runtime's tools")
    run_eagerly = missing.Missing("compile has it, and there is ot.run_functions_eagerly(True)")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        from onnxtape.models.functional import Functional

        if cls is Model and (args or "inputs" in kwargs):
            made = super().__new__(Functional, *args, **kwargs)
            return cast("Self", made)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not args and "inputs" not in kwargs:
            if wrong := [name for name in kwargs if name not in _OWN_ARGUMENTS]:
                raise mistaken(type(self), wrong[0], _OWN_ARGUMENTS)
            super().__init__(**kwargs)
            return
        from onnxtape.models.functional import Functional, functional_class

        # A subclass that was given inputs and outputs, or made them itself, is a functional model.
        if not isinstance(self, Functional):
            self.__class__ = functional_class(cast("Any", type(self)))
        Functional.__init__(cast("Functional", self), *args, **kwargs)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A model made of what `get_config` gave, with weights of its own.

        Args:
            custom_objects: your classes by name.

        Raises:
            ValueError: a layer's class is not known.
        """
        from onnxtape.models.configuration import from_functional_config

        if cls is Model and "input_layers" not in config:
            raise ValueError(
                "Model.from_config takes what get_config() of a functional model gave (a dict of "
                "'layers', 'input_layers', 'output_layers'), not one of "
                f"{', '.join(map(repr, config))}: use from_config of the class whose configuration "
                "it is, or ot.layers.deserialize, which finds the class"
            )
        with custom_object_scope(custom_objects):
            if "input_layers" in config:
                return from_functional_config(config, cls)
            return super().from_config(config)

    def to_json(self, **kwargs: Any) -> str:
        """The configuration as JSON, for `ot.models.model_from_json`.

        Args:
            kwargs: for `json.dumps`.

        Raises:
            TypeError: it holds a function of the user's own, such as an activation.
        """
        return json.dumps(serialize(self), **kwargs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """None: the outputs carry the masks of the layers that made them."""

    def build(self, input_shape: Any) -> None:
        """Create all weights, by calling the model on a symbolic input.

        Args:
            input_shape: of the one input, batch dimension included; any batch size will do.
        """
        from onnxtape.functional import Input

        inputs = Input(shape=tuple(input_shape)[1:], dtype=self.dtype)
        self._note_inputs((inputs,), {})
        self.built = True
        self(inputs)

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A call that is under way creates the weights itself.
        if type(self).build is Model.build:
            self._note_inputs(args, kwargs)
            self.built = True
        else:
            super()._build_for(args, kwargs)

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], None] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of the layers, their output shapes and parameters.

        Args:
            line_length: of the table, in characters; by default 88, or the terminal's.
            positions: where the columns end, as shares of the line.
            print_fn: takes the text, instead of the terminal.
            expand_nested: list the layers of models inside, too.
            show_trainable: say of each layer whether it is trained.
            layer_range: the names of the first and the last layer to list.

        Raises:
            ValueError: a name in `layer_range` that no layer has.
        """
        print_summary(
            self,
            print_fn,
            line_length=line_length,
            positions=positions,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    def save(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, zipped: bool | None = None
    ) -> None:
        """Write the whole model to a file: see `ot.saving.save_model`."""
        save_model(self, filepath, overwrite, zipped)

    def save_onnx(self, path: str | os.PathLike[str], input_signature: Any = None) -> Path:
        """Write the model as it predicts (`training=False`) as one plain ONNX file.

        The weights are initializers under their variables' paths, the batch size is symbolic, and
        any ONNX Runtime runs it.

        Args:
            path: the file.
            input_signature: an `ot.TensorSpec`, or example data, for each argument of `call`, in a
                list where there are several. By default what the model was made of or called on.

        Returns:
            The file.

        Raises:
            ValueError: the model has no weights yet; or it changes variables when it is called.
            ArtifactError: the file would be 2 GiB or more.
        """
        from onnxtape.inference import save_inference

        return save_inference(self, path, input_signature)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "onnx",
        verbose: bool | None = None,
        input_signature: Any = None,
    ) -> None:
        """`save_onnx` by Keras's name.

        Raises:
            ValueError: another format than "onnx"; and what `save_onnx` raises.
        """
        if format != "onnx":
            raise ValueError(f"a model is exported with format='onnx', not {format!r}")
        saved = self.save_onnx(filepath, input_signature)
        if verbose:
            print(f"Saved model '{self.name}' at '{saved}'.")

    @property
    def input_specs(self) -> Any:
        """A `TensorSpec` per input, in the structure that a call takes.

        Raises:
            ValueError: the model has not been called yet.
        """
        if self._input_specs is None:
            raise ValueError(
                f"the inputs of model '{self.name}' are not known yet: call it on data first"
            )
        return self._input_specs

    @property
    def call_specs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and named arguments of a call, with a `TensorSpec` for each tensor.

        Raises:
            ValueError: the model has not been called yet.
        """
        specs = self.input_specs
        if self._call_specs is None or specs is not self._input_specs:
            return (specs,), {}
        return self._call_specs

    @property
    def layers(self) -> list[Layer]:
        """The layers directly below the model."""
        return [part for part in self._parts() if isinstance(part, Layer)]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or index.

        Raises:
            ValueError: there is no such layer.
        """
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"model '{self.name}' has {len(layers)} layers, none at {index}")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"model '{self.name}' has no layer named {name!r}; "
            f"it has {', '.join(layer.name for layer in layers)}"
        )

    def _summary_rows(self) -> list[tuple[Layer, Any]]:
        """The layers to list, with their output shapes (None where they are not known)."""
        return [(layer, layer._output_shape) for layer in self.layers]
