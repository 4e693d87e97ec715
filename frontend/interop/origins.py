"""Where a model's weights come from: what its exporter has noted, and which are the same one."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape.inference import PARAMETERS
from onnxtape.interop.detachments import (
    calls_of,
    detached_inputs,
    has_call,
    straight_through,
)
from onnxtape.interop.number_patterns import is_grid

if TYPE_CHECKING:
    import onnx

    from onnxtape.interop.graph import Node
    from onnxtape.interop.limits import Budget

# The keys under which we, torch.onnx.export (dynamo) and onnxscript's optimizer note it.
SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
_FOLDED = "pkg.onnxscript.optimizer.folded_from"
_PADDED = re.compile(r"aten\.embedding\.default\]\(args = \(%\w+, %\w+, (\d+)[,)]")


@dataclass(frozen=True, slots=True)
class Origins:
    """What an exporter has noted about initializers; empty where it notes nothing.

    Attributes:
        parameters: the names of the framework's parameters.
        kinds: for initializers, "PARAMETER" or "BUFFER".
        folded: for initializers that the exporter has computed, of which values.
        computed: initializers that, where nothing is noted, look as if they were no parameters.
        padding: for results of Gather that are embeddings, the row that stands for padding, which
            the framework does not train.
        numbers: Constants that are part of the program, not weights.
        detached: by nodes' first outputs, the inputs that are detached in the framework.
    """

    parameters: frozenset[str] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    padding: Mapping[str, int] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    detached: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto, prepared: onnx.GraphProto) -> Origins:
        """Read the model's notes, and look at the form of it that is run."""
        noted = {p.key: p.value for p in model.graph.metadata_props}
        kinds = dict(_noted(model.graph, _KIND))
        folded = folded_from(model.graph)
        parameters = re.findall(r": PARAMETER target='([^']+)'", noted.get(SIGNATURE, ""))
        own = {p.key: p.value for p in model.metadata_props}.get(PARAMETERS, "")
        parameters += [name for name in own.split("\n") if name]
        exported = model.producer_name == "pytorch"
        computed: frozenset[str] = frozenset()
        if not (parameters or kinds) and exported:
            computed = frozenset(_computed(model.graph, folded))
        padding = dict(_padding_rows(model.graph))
        if not padding and exported:
            padding = dict(_zero_rows(model.graph))
        numbers = frozenset(_numbers(prepared, exported=exported))
        detached = detached_inputs(model.graph, parameters)
        if exported:
            detached |= straight_through(model.graph)
        return cls(frozenset(parameters), kinds, folded, computed, padding, numbers, detached)

    def of_parameters(self, name: str) -> tuple[str, ...]:
        """The parameters that an initializer holds, itself aside."""
        return tuple(n for n in self.folded.get(name, ()) if n in self.parameters)

    def is_computed(self, name: str) -> bool:
        """Whether the exporter has made an initializer from others."""
        return name in self.folded or bool(_COMPUTED.fullmatch(name))

    def is_repeated(self, name: str) -> bool:
        """Whether the exporter has made an initializer by repeating parts of another one."""
        return name not in self.parameters and bool(_REPEATED.fullmatch(name))

    def is_expanded(self, name: str) -> bool:
        """Whether it has done so by an expansion."""
        return self.is_repeated(name) and name.startswith("expand")

    def is_parameter(self, name: str) -> bool | None:
        """Whether an initializer is trained by the framework; None where nothing is noted."""
        if not self.parameters:
            return False if name in self.computed else None
        parts = self.folded.get(name)
        if parts:
            return bool(self.of_parameters(name)) and not _FILLED.fullmatch(name)
        return self.kinds.get(name, "PARAMETER" if name in self.parameters else "") == "PARAMETER"


def folded_from(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """The initializers that the exporter has computed, with the names of what it made them of."""
    return {name: names_in(written) for name, written in _noted(graph, _FOLDED)}


def note_folded(graph: onnx.GraphProto, name: str, parts: Sequence[str]) -> None:
    """Note what an initializer has been made of, as the exporter does."""
    value = graph.value_info.add()
    value.name = name
    value.metadata_props.add(key=_FOLDED, value=repr(list(parts)))


def _noted(graph: onnx.GraphProto, key: str) -> Iterator[tuple[str, str]]:
    for value in graph.value_info:
        yield from ((value.name, p.value) for p in value.metadata_props if p.key == key)


def _padding_rows(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for node, call in calls_of(graph, "Gather"):
        if found := _PADDED.search(call):
            yield node.output[0], int(found[1])


def _zero_rows(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """The one row of zeros of an embedding's table: PyTorch keeps the row of padding so.

    For what no call is noted on, as below opset 18 and with dynamo=False.
    """
    import onnx

    tables = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.dims[0] > 1}
    for node in graph.node:
        if node.op_type != "Gather" or has_call(node) or node.input[0] not in tables:
            continue
        if not any(a.name == "axis" and a.i for a in node.attribute):
            table = onnx.numpy_helper.to_array(tables[node.input[0]])
            rows = np.flatnonzero(~table.any(axis=1))
            if table.dtype.kind == "f" and len(rows) == 1:
                yield node.output[0], int(rows[0])


def _numbers(graph: onnx.GraphProto, *, exported: bool) -> Iterator[str]:
    """Constants that are no weights.

    torch.onnx.export writes parameters as initializers; only where there are none, as in a frozen
    module, are they Constants. Elsewhere a Constant of one element is a number, unless it is used
    as nothing but weights are.
    """
    only_numbers = exported and any(tensor.dims for tensor in graph.initializer)
    used = {
        node.input[i]
        for node in graph.node
        for i in _WEIGHT_INPUTS.get(node.op_type, ())
        if i < len(node.input)
    }
    for node in graph.node:
        if node.op_type == "Constant":
            name, (attribute,) = node.output[0], node.attribute
            single = math.prod(attribute.t.dims) == 1 and len(attribute.floats) < 2
            if only_numbers or (single and name not in used):
                yield name


def _computed(graph: onnx.GraphProto, folded: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Initializers that are no parameters, as far as names and uses tell.

    Below opset 18 torch.onnx.export (dynamo) drops its notes on parameters. What it has computed
    has the name of an operation; it is a parameter in another form where it is noted to come from
    one, or else where it multiplies as a matrix or a kernel does, or scales channels. Well-known
    buffers have well-known names, or are evenly spaced numbers.
    """
    if not all(node.name.startswith("node_") for node in graph.node):
        yield from _masks(graph)
        return
    uses: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            uses.setdefault(name, []).append((node.op_type, i))
    for tensor in graph.initializer:
        dims = list(tensor.dims)
        if _is_buffer(tensor.name):
            yield tensor.name
        elif tensor.name in folded:
            parts = folded[tensor.name]
            if _FILLED.fullmatch(tensor.name) or not any(map(_is_parameter, parts)):
                yield tensor.name
        elif (
            _COMPUTED.fullmatch(tensor.name)
            and not any(_as_a_weight(use, dims) for use in uses.get(tensor.name, []))
        ) or is_grid(tensor):
            yield tensor.name


def _masks(graph: onnx.GraphProto) -> Iterator[str]:
    """Folded initializers of torch.onnx.export (dynamo=False) that hide places, or nothing.

    It names what it has folded after the operator that takes it. Zeros and one large negative
    number, or zeros alone, are added as masks and as BART's final biases are, which are buffers;
    biases that are parameters keep their names.
    """
    import onnx

    for tensor in graph.initializer:
        if _ADDED.fullmatch(tensor.name):
            values = np.unique(onnx.numpy_helper.to_array(tensor))
            if np.all((values == 0) | (values <= -100)) and len(values) <= 2:
                yield tensor.name


def _is_buffer(name: str) -> bool:
    return name.rpartition(".")[2] in _BUFFERS or name.endswith("inv_freq")


def _is_parameter(name: str) -> bool:
    return not _COMPUTED.fullmatch(name) and not _is_buffer(name)


def _as_a_weight(use: tuple[str, int], dims: Sequence[int]) -> bool:
    """Whether a use, an operator and the input's number, is one that weights have."""
    op_type, index = use
    if op_type in ("MatMul", "Gemm"):
        return len(dims) == 2
    if op_type in ("Add", "Mul"):
        return len(dims) > 1 and set(dims[1:]) == {1}
    return op_type in _KERNELS and index > 0


_ADDED = re.compile(r"onnx::Add_\d+")
_BUFFERS = frozenset(("final_logits_bias", "running_mean", "running_var"))
_KERNELS = frozenset(("Conv", "ConvTranspose", "GRU", "LSTM", "RNN"))
# ATen's operations that make constants, or other forms of what there is; "val_7" is any.
_OPERATIONS = """
    abs add addmm alias amax amin any arange argmax bitwise_and bitwise_not bitwise_or bmm cat
    ceil chunk clamp clone constant_pad_nd copy cos cumsum detach diff div einsum embedding empty eq
    erf exp expand eye fill flatten flip floor floor_divide full full_like gather ge getitem gt
    hann_window index index_select item le lift_fresh_copy linear linspace log log2 logical_and
    logical_not logical_or lt masked_fill matmul max mean meshgrid min minimum maximum mm mul ne neg
    new_ones new_zeros normal ones ones_like outer pad permute pow rand randn reciprocal remainder
    repeat reshape roll round rsqrt rsub scalar_tensor scatter select sigmoid sin slice softmax
    split split_with_sizes sqrt squeeze stack sub sum t tanh to transpose tril triu type_as
    unbind unsqueeze val view where zeros zeros_like
"""
_COMPUTED = re.compile(rf"(_\w+|\w+_default|{'|'.join(_OPERATIONS.split())})(_\d+)?")
# Those of them that take no more than shapes of what they are given.
_FILLED = re.compile(r"(arange|full|full_like|new_(full|ones|zeros)|(ones|zeros)(_like)?)(_\d+)?")
_REPEATED = re.compile(r"(embedding|expand|index|index_select|repeat)(_\d+)?")


def names_in(written: str) -> tuple[str, ...]:
    """The names in a note: the text of a Python list of strings."""
    try:
        names = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return ()
    return tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else ()


#: The inputs at which operators take nothing but weights.
_WEIGHT_INPUTS = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
}


def filled_weights(
    nodes: Sequence[Node], constants: Mapping[str, npt.NDArray[Any]], budget: Budget
) -> dict[str, npt.NDArray[Any]]:
    """Weights that a model makes when it runs, all their elements alike.

    So files are kept small of which only the architecture counts. What a ConstantOfShape makes is
    a weight if it is used as nothing else.
    """
    made = {
        node.outputs[0]: node
        for node in nodes
        if node.op_type == "ConstantOfShape" and node.inputs[0] in constants
    }
    for node in nodes:
        places = _WEIGHT_INPUTS.get(node.op_type, ())
        for i, name in enumerate(node.inputs):
            if name in made and i not in places:
                del made[name]
    found = {}
    for name, node in made.items():
        fill = np.asarray(node.attributes.get("value", np.zeros(1, np.float32))).reshape(())
        found[name] = budget.fill(constants[node.inputs[0]], fill, node.title)
    return found


@dataclass(frozen=True, slots=True)
class Tie:
    """A weight that is another one, or its transposition."""

    to: str
    transposed: bool


def find_ties(
    weights: Mapping[str, npt.NDArray[Any]], are_apart: Callable[[str, str], bool]
) -> dict[str, Tie]:
    """Weights of rank 2 and more that an exporter has written twice.

    Equal content, as it is or transposed, means one weight, unless all its elements are equal or
    the file tells better: nothing else makes two matrices alike to the last bit.

    Args:
        are_apart: whether two weights are known not to be one.
    """
    first: dict[tuple[tuple[int, ...], str, bytes], str] = {}
    ties: dict[str, Tie] = {}
    for name, array in weights.items():
        if array.ndim < 2 or array.size < 2 or np.all(array == array.flat[0]):
            continue
        key = _key(array)
        flipped = _key(array.T) if array.ndim == 2 else None
        found = next((k for k in (key, flipped) if k in first), None)
        if found is None:
            first[key] = name
        elif not are_apart(first[found], name):
            ties[name] = Tie(first[found], transposed=found != key)
    return ties


def _key(array: npt.NDArray[Any]) -> tuple[tuple[int, ...], str, bytes]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
    return array.shape, array.dtype.str, digest


def find_repetitions(
    array: npt.NDArray[Any], *, repeated: bool = False, expanded: bool = False
) -> npt.NDArray[np.int64] | None:
    """Where each element of an array is found first, if parts of it are there twice or more.

    Exporters compute biases of relative positions, which many pairs of places share, from the table
    that is the parameter. What they share must go on being one weight.

    Args:
        repeated: whether the exporter has made it by an operation that repeats: equal rows, and
            equal slices along any axis, are then the same one, but for those of one number only.
        expanded: whether by an expansion: of one number only, it is so along the first axis, the
            examples', as tokens are that begin as zeros.

    Returns:
        Numbers of the array's elements in its shape: an element's own, or that of the same one
        before. Of arrays of rank 3 or more, equal columns, which run over all axes but the last
        two, are the same, where there are half as many of them or less. None where nothing is.
    """
    if array.size == 0:
        return None
    numbers = np.arange(array.size).reshape(array.shape)
    if expanded and array.ndim > 1 and len(array) > 1 and np.all(array == array.flat[0]):
        return np.array(np.broadcast_to(numbers[:1], array.shape))
    if repeated:
        shared = numbers.reshape(-1, array.shape[-1])
        numbers = _first_of_equal(array.reshape(shared.shape), shared).reshape(array.shape)
        for axis in range(array.ndim):
            moved = np.moveaxis(numbers, axis, 0)
            numbers = np.moveaxis(_first_of_equal(np.moveaxis(array, axis, 0), moved), 0, axis)
        if len(np.unique(numbers)) < array.size:
            return numbers
    if array.ndim < 3:
        return None
    rows = array.reshape(-1, array.shape[-2] * array.shape[-1])
    _, first, which = np.unique(rows, axis=1, return_index=True, return_inverse=True)
    if not 1 < len(first) <= rows.shape[1] // 2:
        return None
    return numbers.reshape(rows.shape)[:, first[which.reshape(-1)]].reshape(array.shape)


def _first_of_equal(
    array: npt.NDArray[Any], numbers: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The numbers of each row, or of the first row that is equal to it and not of one number."""
    rows = array.reshape(len(array), -1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    source = first[which.reshape(-1)]
    plain = (rows == rows[:, :1]).all(1)
    return numbers[np.where(plain, np.arange(len(rows)), source)]
