"""Models of Keras 3, by way of its own ONNX exporter."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape import context, nest
from onnxtape.compiler.dtypes import is_floating
from onnxtape.errors import ExecutionError, InvalidArgumentError, ModelError
from onnxtape.interop.inner_tensors import all_tensors, subgraphs_of
from onnxtape.interop.model import OnnxModel, Selection
from onnxtape.interop.reading import SourceModel, read_model

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]

#: What Keras's exporter needs, by its backend.
_EXPORTERS = {"torch": "onnx onnxscript", "tensorflow": "tf2onnx", "jax": "jax2onnx flax dm_pix"}


@dataclass(frozen=True, slots=True)
class Match:
    """How a tensor of the graph holds a weight: axes permuted, then reshaped.

    Attributes:
        permutation: of the weight's axes.
        shape: the weight's, in Keras.
    """

    permutation: tuple[int, ...]
    shape: tuple[int, ...]

    def to_keras(self, array: Array) -> Array:
        """The weight in Keras's shape."""
        permuted = tuple(self.shape[axis] for axis in self.permutation)
        return np.ascontiguousarray(
            array.reshape(permuted).transpose(np.argsort(self.permutation).tolist())
        )


class KerasModel(OnnxModel):
    """What `from_keras` gives: an `OnnxModel` that knows the Keras model it came from.

    Its weights have Keras's paths for names, and the shapes that the exporter gave them.
    """

    _keras: Any
    _matches: dict[str, Match]

    def to_keras_weights(self) -> list[Array]:
        """The trained weights as `keras_model.set_weights` takes them.

        What the exporter has folded into other constants is as it is in the Keras model.
        """
        trained = self.trained_weights()
        return [
            self._matches[weight.path].to_keras(trained[weight.path])
            if weight.path in self._matches
            else np.asarray(_numpy(weight))
            for weight in self._keras.weights
        ]


def from_keras(model: Any, *, trainable: Selection | None = None) -> KerasModel:
    """A Keras 3 model as a model that is trained here.

    The model is exported by its own `model.export(path, format="onnx")`, as it behaves in
    inference, once with its weights and once with random ones, by which each weight is found in the
    graph. Batch normalization is usually folded then: what cannot be found again is not trained,
    with a warning where Keras would train it.

    Args:
        model: a built model; it is left as it is.
        trainable: as for `load_onnx`, with Keras's paths; by default what Keras would train.

    Raises:
        ImportError: Keras or what its exporter needs is not installed.
        ModelError: the model is not built, Keras cannot export it, or the graph cannot be trained.
    """
    try:
        import keras
    except ImportError as error:
        raise ImportError(f"from_keras needs Keras 3: pip install keras ({error})") from error
    if not isinstance(model, keras.Model):
        raise TypeError(f"from_keras takes a keras.Model, not a {type(model).__name__}")
    values = {weight.path: _numpy(weight) for weight in model.weights}
    if len(values) < len(model.weights):
        raise ModelError(f"weights of the Keras model '{model.name}' have the same path")
    markers = _markers(values)
    with tempfile.TemporaryDirectory(prefix="onnxtape-") as folder:
        read = _exported(keras, model, Path(folder) / "model.onnx")
        try:
            model.set_weights(list(markers.values()))
            marked = _exported(keras, model, Path(folder) / "marked.onnx")
        finally:
            model.set_weights(list(values.values()))
    graph = marked.original
    matches = _restore(model.name, graph, read.original, markers, values)
    if matches is None:
        # Folding has made another graph for other weights: what can be told apart is found.
        graph = read.original
        matches = _restore(model.name, graph, graph, values, values) or {}
    made = KerasModel(read_model(graph), name=model.name)
    made._keras, made._matches = model, matches
    _compare(model, made)
    if trainable is not None:
        made.set_trainable(trainable)
        return made
    wanted = [weight.path for weight in model.trainable_weights]
    made.set_trainable([path for path in wanted if path in matches])
    if lost := [path for path in wanted if path not in matches]:
        context.warn_user(
            f"{', '.join(lost)} of the Keras model '{model.name}' cannot be found in what its "
            "exporter wrote, which has folded them into other constants; they are not trained"
        )
    return made


def _numpy(weight: Any) -> Array:
    return _to_numpy(weight.value)


def _to_numpy(tensor: Any) -> Array:
    import keras

    return np.array(keras.ops.convert_to_numpy(tensor))


def _markers(values: Mapping[str, Array]) -> dict[str, Array]:
    """Weights that differ in every element; positive, as variances have to be."""
    random = np.random.default_rng(0)
    return {
        path: random.uniform(0.5, 1.5, array.shape).astype(array.dtype)
        if is_floating(array.dtype)
        else array
        for path, array in values.items()
    }


def _exported(keras: Any, model: Any, path: Path) -> SourceModel:
    backend = keras.backend.backend()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if examples := _examples(model):
                _call(model, examples)  # Keras exports only what has been called.
            model.export(str(path), format="onnx", verbose=False)
    except ImportError as error:
        needed = _EXPORTERS.get(backend, "torch onnxscript")
        raise ImportError(
            f"Keras exports to ONNX from its backend {backend} with the help of other packages: "
            f"pip install {needed} ({error})"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"Keras cannot export the model '{model.name}' to ONNX from its backend {backend}: "
            f"{reason}"
        ) from error
    return read_model(path)


def _examples(model: Any) -> list[Array]:
    """An array for each input of a functional or sequential model; None of any other."""
    random = np.random.default_rng(0)
    return [
        random.uniform(0, 2, [2 if d is None else d for d in x.shape]).astype(str(x.dtype))
        for x in getattr(model, "inputs", None) or ()
    ]


def _call(model: Any, examples: Sequence[Array]) -> Any:
    # Keras takes a list, however its inputs are nested.
    return model(examples[0] if len(examples) == 1 else list(examples), training=False)


def _compare(model: Any, made: KerasModel) -> None:
    """Whether both compute the same: a weight given to the wrong constant would show."""
    import keras

    examples = _examples(model)
    if not examples:
        return
    expected = keras.tree.flatten(_call(model, examples))
    try:
        found = nest.flatten(made(*examples))
    except (InvalidArgumentError, ExecutionError) as error:
        raise ModelError(
            f"what Keras's exporter makes of '{model.name}' does not run: {error}"
        ) from error
    for ours, theirs in zip(found, map(_to_numpy, expected), strict=True):
        scale = float(np.max(np.abs(theirs), initial=1.0))
        if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale):
            raise ModelError(
                f"what Keras's exporter makes of '{model.name}' does not compute what Keras does"
            )


def _restore(
    name: str,
    graph: onnx.ModelProto,
    real: onnx.ModelProto,
    markers: Mapping[str, Array],
    values: Mapping[str, Array],
) -> dict[str, Match] | None:
    """Give the tensors of the marked model their real values, and Keras's names where they are
    weights; returns how each weight is held, or None where a real value is not to be found."""
    import onnx

    # In a graph with the real weights, one whose elements are all equal may be any constant.
    telling = {
        path: array
        for path, array in markers.items()
        if array.size and (markers is not values or np.any(array != array.flat[0]))
    }
    contents = {path: _content(array) for path, array in telling.items()}
    counts = Counter(contents.values())
    known = {content: path for path, content in contents.items() if counts[content] == 1}
    real_arrays = {n: onnx.numpy_helper.to_array(t) for n, t in all_tensors(real.graph)}
    unchanged = {_content(array) for array in real_arrays.values()}
    twins = _twins(graph.graph, real.graph)
    matches: dict[str, Match] = {}
    renamed: dict[str, str] = {}
    for tensor_name, tensor in list(all_tensors(graph.graph)):
        array = onnx.numpy_helper.to_array(tensor)
        if not is_floating(array.dtype) or not array.size:
            continue
        path = known.get(_content(array))
        match = None if path is None else _match(markers[path], array)
        if path is not None and match is not None:
            if path in matches:
                raise ModelError(
                    f"Keras's exporter has written the weight '{path}' of '{name}' twice, so that "
                    "it cannot be trained as one"
                )
            matches[path] = match
            renamed[tensor_name] = path
            found = values[path].transpose(match.permutation).reshape(array.shape)
        elif _content(array) in unchanged:
            continue
        elif (twin := real_arrays.get(twins.get(tensor_name, tensor_name))) is not None and (
            twin.shape == array.shape
        ):
            found = twin
        else:
            return None
        fresh = onnx.numpy_helper.from_array(found.astype(array.dtype), tensor.name)
        tensor.CopyFrom(fresh)
    _rename(graph.graph, renamed)
    return matches


def _twins(marked: onnx.GraphProto, real: onnx.GraphProto) -> dict[str, str]:
    """Which value of the real graph is in the place of one of the marked graph: exporters number
    the constants that they fold anew each time."""
    if [n.op_type for n in marked.node] != [n.op_type for n in real.node]:
        return {}
    return {
        name: twin
        for node, other in zip(marked.node, real.node, strict=True)
        for name, twin in zip(node.input, other.input, strict=False)
    }


def _content(array: Array) -> bytes:
    """The same for arrays of the same elements in whatever order."""
    return np.sort(array, axis=None).tobytes()


def _match(weight: Array, array: Array) -> Match | None:
    for permutation in itertools.permutations(range(weight.ndim)):
        if np.array_equal(weight.transpose(permutation).reshape(array.shape), array):
            return Match(permutation, weight.shape)
    return None


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in [*graph.input, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs_of(node):
            _rename(inner, names)
