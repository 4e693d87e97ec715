"""Parameters that an exporter has merged, or left out, because of the values that they begin with.

The optimizer of torch.onnx.export keeps one initializer of those with equal content, so that in a
model that is not trained yet all biases of one length are one, and a running mean may be one with
them; and it leaves out biases of zeros where an operator can do without. The framework trains them
all. Which of them a node reads is noted: the call that it stems from names its arguments.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxtape.interop.detachments import CALL
from onnxtape.interop.origins import note_folded
from onnxtape.interop.parameters import Parameters

if TYPE_CHECKING:
    import onnx

_ARGUMENT = re.compile(r"%(\w+)")
# Operators whose third input, the bias, may be missing.
_BIASED = ("Conv", "ConvTranspose", "Gemm")


class _Use(NamedTuple):
    """A parameter or buffer, `owner`, read by a node as its input number `place`."""

    node: onnx.NodeProto
    place: int
    owner: str


def bring_back(model: onnx.ModelProto) -> None:
    """Give such parameters initializers of their own, in place.

    Merged ones are taken apart where all elements are equal, as nothing else is alike by chance,
    or where their modules differ otherwise (see `Parameters.differ`). Modules that share a weight
    are one for the framework too.
    """
    graph = model.graph
    parameters = Parameters(graph)
    if not parameters.targets:
        return
    room = model.ByteSize()  # A file whose notes lie makes no more than itself again.
    uses, without_bias = _read_calls(parameters, graph)
    uniform = {name for name in uses if parameters.is_uniform(name)}
    modules = _modules(parameters, [uses[name] for name in uses if name not in uniform])
    taken = {t.name for t in graph.initializer}
    for name, found in uses.items():
        tensor = parameters.tensor(name)
        (kept, _), *others = _by_parameter(parameters.own[name][0], found, modules)
        for owner, places in others:
            room -= tensor.ByteSize()
            separate = name in uniform or parameters.differ(kept, owner)
            if separate and owner not in taken and room >= 0:
                taken.add(owner)
                fresh = _copy(graph, tensor, owner, parameters)
                for use in places:
                    use.node.input[use.place] = fresh
    for node, kernel, owner in without_bias:
        size = _bias_size(node, kernel)
        room -= size * 8
        if owner not in taken and room >= 0:
            taken.add(owner)
            graph.initializer.add().CopyFrom(_zeros(owner, size, kernel.data_type))
            node.input[2:] = [owner]


def _read_calls(
    parameters: Parameters, graph: onnx.GraphProto
) -> tuple[dict[str, list[_Use]], list[tuple[onnx.NodeProto, onnx.TensorProto, str]]]:
    """Who reads which parameter, by the initializer, as far as that is clear.

    Returns:
        Further the nodes that were given a bias, which they lack, with their kernel and its name.
    """
    uses: dict[str, list[_Use]] = {}
    without_bias = []
    own = parameters.own
    for node in graph.node:
        call = next((p.value for p in node.metadata_props if p.key == CALL), "")
        arguments = [parameters.targets.get(a, "") for a in _ARGUMENT.findall(call)]
        given = [name for name in arguments if name]
        spare = [name for name in given if name in parameters.lacking]
        places = [i for i, name in enumerate(node.input) if name in own]
        biases = [name for name in spare if name.endswith("bias")]
        if node.op_type in _BIASED and len(node.input) == 2 and 1 in places and len(biases) == 1:
            without_bias.append((node, parameters.tensor(node.input[1]), *biases))
            given, spare = ([n for n in names if n not in biases] for names in (given, spare))
        read = [own[node.input[i]] for i in places]
        scopes = parameters.scopes(node)
        for i, owner in zip(places, _owners(read, given, spare), strict=True):
            if owner is None:
                owner = _by_module(own[node.input[i]][0], scopes, parameters)
            if owner is None and node.op_type == "InstanceNormalization" and given and not spare:
                # It is a part of a group's normalization, whose scale and bias come after it.
                owner = f"{node.input[i]}.constant"
            if owner is not None:
                uses.setdefault(node.input[i], []).append(_Use(node, i, owner))
    return uses, without_bias


def _owners(
    read: Sequence[list[str]], given: Sequence[str], spare: Sequence[str]
) -> Iterator[str | None]:
    """Which of the arguments each initializer stands for, by the parameters that are known of it.

    Args:
        given: the parameters among the call's arguments.
        spare: those of them without an initializer, which are merged with others.
    """
    if len(read) == len(given) and all(
        g in own or g in spare for g, own in zip(given, read, strict=True)
    ):
        yield from given
        return
    for own in read:
        mine = [name for name in own if name in given]
        alike = [g for g in spare if _last(g) == _last(own[0])]
        clear = mine or (spare if len(spare) == 1 else alike)
        yield clear[0] if len(clear) == 1 else None


def _by_module(own: str, scopes: Sequence[str], parameters: Parameters) -> str | None:
    """The parameter of that name in the innermost module that has one."""
    for scope in reversed(scopes):
        name = f"{scope}.{_last(own)}"
        if name == own or name in parameters.lacking:
            return name
    return None


def _by_parameter(
    own: str, uses: Sequence[_Use], modules: dict[str, str]
) -> list[tuple[str, list[_Use]]]:
    """The uses of an initializer, parameter by parameter; first those of the one that it is."""
    groups: dict[tuple[str, str], tuple[str, list[_Use]]] = {}
    for use in sorted(uses, key=lambda use: use.owner != own):
        module = use.owner.rpartition(".")[0]
        key = (modules.get(module, module), _last(use.owner))
        groups.setdefault(key, (use.owner, []))[1].append(use)
    return list(groups.values())


def _modules(parameters: Parameters, shared: Sequence[Sequence[_Use]]) -> dict[str, str]:
    """Modules that share a weight, each with the name of one of them for all."""
    one: dict[str, str] = {}
    for uses in shared:
        first, *others = dict.fromkeys(use.owner for use in uses)
        same = [first, *(owner for owner in others if not parameters.differ(first, owner))]
        names = {owner.rpartition(".")[0] for owner in same}
        names |= {one[n] for n in names if n in one}
        least = min(names)
        for module, stands_for in list(one.items()):
            if stands_for in names:
                one[module] = least
        one.update(dict.fromkeys(names, least))
    return one


def _copy(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, owner: str, parameters: Parameters
) -> str:
    """Add an initializer like this one for another parameter, and return its name.

    What the exporter has made of a parameter has a name and a note like the others that it made.
    """
    name, own = owner, parameters.own[tensor.name][0]
    if own != tensor.name:
        names = {value for node in graph.node for value in node.output}
        names.update(t.name for t in graph.initializer)
        stem = re.sub(r"_\d+$", "", tensor.name)
        name = next(n for n in (f"{stem}_{i}" for i in itertools.count()) if n not in names)
        parts = [owner if n == own else n for n in parameters.folded[tensor.name]]
        note_folded(graph, name, parts)
    graph.initializer.add().CopyFrom(tensor)
    graph.initializer[-1].name = name
    return name


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _bias_size(node: onnx.NodeProto, kernel: onnx.TensorProto) -> int:
    given = {a.name: a.i for a in node.attribute if a.name in ("group", "transB")}
    if node.op_type == "ConvTranspose":
        size = kernel.dims[1] * given.get("group", 1)
    else:
        by_row = node.op_type == "Conv" or given.get("transB", 0)
        size = kernel.dims[0 if by_row else 1]
    return int(size)


def _zeros(name: str, size: int, data_type: int) -> onnx.TensorProto:
    import onnx

    zeros = np.zeros(size, onnx.helper.tensor_dtype_to_np_dtype(data_type))
    return onnx.numpy_helper.from_array(zeros, name)
