"""Low-rank adapters for ONNX models: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685.

A weight W of shape (n, m) stays as it is; what is trained are A of shape (n, r) and B of shape
(r, m), which stand for W + scale A B with scale = alpha / r. Where W is the right operand of a
matrix product, the product is written as x W + scale (x A) B, so that no step holds a gradient of
the shape of W.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import initializers, ops
from onnxtape.errors import VariableError
from onnxtape.interop.graph import Environment, Node, note_last_uses
from onnxtape.interop.origins import Tie
from onnxtape.variable import Variable


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter of one weight.

    Attributes:
        a, b: the two factors.
        scale: of their product.
        transposed: the product is added to the weight's transposition.
        in_graph: the graph's matrix products have been rewritten; else the weight itself is
            replaced by its sum with the product.
    """

    a: Variable
    b: Variable
    scale: float
    transposed: bool
    in_graph: bool

    @property
    def variables(self) -> dict[str, Variable]:
        """The factors by their names."""
        return {self.a.path: self.a, self.b.path: self.b}

    def added_to(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The weight with the adapter merged into it."""
        product = self.scale * (self.a.numpy().astype("float64") @ self.b.numpy())
        merged: npt.NDArray[Any] = weight + (product.T if self.transposed else product)
        return merged.astype(weight.dtype)


class Adaptable:
    """What an `OnnxModel` has for adapters."""

    name: str
    output_names: list[str]
    _nodes: list[Node]
    _weights: dict[str, Variable]
    _ties: dict[str, Tie]
    _adapters: dict[str, Adapter]
    _adapter_weights: dict[str, Variable]

    def add_lora(
        self,
        targets: str | Iterable[str],
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
    ) -> list[str]:
        """Give weights of rank 2 low-rank adapters, and freeze all else.

        An adapted weight W counts as W + alpha / rank * A B; A starts at random, B at zero, so that
        the model computes what it did. `trainable_variables` are the factors alone (and what
        `set_trainable` names afterwards); `save_onnx` writes the sums, in the graph as it was.

        Args:
            targets: names or glob patterns, as for `set_trainable`; of what a pattern fits, weights
                of another rank than 2 are left out.
            rank: the number of columns of A and rows of B.
            alpha: scales the product, whatever the rank.
            dropout: the share of a matrix product's inputs to A that `training=True` drops.

        Returns:
            The names of the weights that now have adapters.

        Raises:
            ValueError: no weight of rank 2 is named; one has an adapter already; or numbers that
                make no sense.
        """
        wanted = [targets] if isinstance(targets, str) else list(targets)
        fitting = {pattern: self._select(pattern) for pattern in wanted}
        chosen = set().union(*fitting.values())
        names = [n for n, v in self._weights.items() if n in chosen and len(v.shape) == 2]
        for pattern, found in fitting.items():
            if found.isdisjoint(names):
                shapes = ", ".join(f"{n} {list(self._weights[n].shape)}" for n in sorted(found))
                raise ValueError(
                    f"adapters are for weights of rank 2, and '{pattern}' names none: {shapes}"
                )
        if again := [name for name in names if name in self._adapters]:
            raise ValueError(
                f"the weight '{again[0]}' of model '{self.name}' has an adapter already"
            )
        weights = [Weight(name, self._weights[name], self._aliases(name)) for name in names]
        self._nodes, made = adapt(
            self._nodes,
            weights,
            self.output_names,
            rank=rank,
            alpha=alpha,
            dropout=dropout,
        )
        note_last_uses(self._nodes, self.output_names)
        for variable in self._weights.values():
            variable.trainable = False
        self._adapters = {**self._adapters, **made}
        self._adapter_weights = variables_of(self._adapters)
        return names

    def adapter_state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies of all adapters' factors: "<weight>.lora_A" and "<weight>.lora_B"."""
        return {name: variable.numpy() for name, variable in self._adapter_weights.items()}

    def load_adapter_state(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Set all adapters' factors to what `adapter_state` gave; the scale is that of `add_lora`.

        Raises:
            VariableError: names or shapes that are not those of the adapters. Nothing is assigned.
        """
        load_adapters(self._adapters, state)

    def _aliases(self, name: str) -> dict[str, bool]:
        tied = {key: tie.transposed for key, tie in self._ties.items() if tie.to == name}
        return {name: False, **tied}

    def _select(self, selection: Any) -> set[str]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that is to be adapted.

    Attributes:
        aliases: all names that it has in the graph, and whether one means the transposition.
    """

    name: str
    variable: Variable
    aliases: Mapping[str, bool]


def adapt(
    nodes: Sequence[Node],
    weights: Iterable[Weight],
    kept: Iterable[str],
    *,
    rank: int,
    alpha: float,
    dropout: float,
) -> tuple[list[Node], dict[str, Adapter]]:
    """Adapters for the weights, and the nodes that use them.

    Args:
        kept: values that have to stay what they are, since more than the nodes reads them.

    Raises:
        ValueError: a rank, an alpha or a dropout that makes no sense; or dropout for a weight that
            is not only the right operand of matrix products.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is a whole number of at least 1, not {rank!r}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha is a positive number, not {alpha!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout lies between 0 and 1, not at {dropout!r}")
    scale, fixed = alpha / rank, set(kept)
    made: dict[str, Adapter] = {}
    graph = list(nodes)
    for weight in weights:
        sites = _sites(graph, weight, fixed)
        turned = {transposed for _, transposed in sites or ()}
        direct = sites is not None and len(turned) == 1
        if dropout and not direct:
            raise ValueError(
                f"the weight '{weight.name}' is used otherwise than as the right operand of matrix "
                "products, so that there is no input of its adapter to drop: give dropout=0"
            )
        transposed = direct and turned.pop()
        n, m = weight.variable.shape[::-1] if transposed else weight.variable.shape
        dtype, limit = weight.variable.dtype, n**-0.5
        start = initializers.RandomUniform(-limit, limit)((n, rank), dtype=dtype)
        adapter = Adapter(
            Variable(start, name=f"{weight.name}.lora_A"),
            Variable(np.zeros((rank, m), dtype), name=f"{weight.name}.lora_B"),
            scale,
            transposed,
            direct,
        )
        made[weight.name] = adapter
        if sites is not None and direct:
            at = {id(node) for node, _ in sites}
            graph = [
                part
                for node in graph
                for part in (_rewritten(node, adapter, dropout) if id(node) in at else [node])
            ]
    return graph, made


def apply_adapters(adapters: Mapping[str, Adapter], values: Environment) -> None:
    """Put what the nodes read into `values`, which has the weights."""
    for name, adapter in adapters.items():
        values.update(adapter.variables)
        if not adapter.in_graph:
            product = ops.matmul(ops.multiply(adapter.a, adapter.scale), adapter.b)
            values[name] = ops.add(values[name], product)


def variables_of(adapters: Mapping[str, Adapter]) -> dict[str, Variable]:
    """The factors of all adapters, by their names."""
    return {k: v for adapter in adapters.values() for k, v in adapter.variables.items()}


def load_adapters(adapters: Mapping[str, Adapter], state: Mapping[str, npt.ArrayLike]) -> None:
    """Assign all factors.

    Raises:
        VariableError: names or shapes that are not those of the adapters. Nothing is assigned then.
    """
    variables = variables_of(adapters)
    different = sorted(variables.keys() ^ state.keys())
    if different:
        known = ", ".join(variables) or "none; add_lora makes them"
        where = "the model" if different[0] in state else "what is to be loaded"
        raise VariableError(f"{where} has no '{different[0]}'; the adapters are {known}")
    arrays = {name: np.asarray(array) for name, array in state.items()}
    for name, variable in variables.items():
        if arrays[name].shape != variable.shape:
            raise VariableError(
                f"'{name}' has shape {variable.shape}, but {arrays[name].shape} was given: was the "
                "rank another one?"
            )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype(variable.dtype))


def _sites(
    nodes: Sequence[Node], weight: Weight, fixed: set[str]
) -> list[tuple[Node, bool]] | None:
    """The matrix products whose right operand is the weight, and whether it is transposed there;
    None where it is used otherwise too."""
    found: list[tuple[Node, bool]] = []
    pending = list(weight.aliases.items())
    while pending:
        name, transposed = pending.pop()
        if name in fixed:
            return None
        for node in nodes:
            if name not in node.reads:
                continue
            right = [i for i, read in enumerate(node.reads) if read == name] == [1]
            if node.op_type == "MatMul" and right:
                found.append((node, transposed))
            elif node.op_type == "Gemm" and right:
                found.append((node, transposed != bool(node.attributes.get("transB", 0))))
            elif node.op_type == "Transpose":
                swapped = node.attributes.get("perm", [1, 0]) == [1, 0]
                pending.append((node.outputs[0], transposed != swapped))
            else:
                return None
    return found


def _rewritten(node: Node, adapter: Adapter, dropout: float) -> list[Node]:
    """A product x W as x W + scale (x A) B."""
    (y,), x = node.outputs, node.inputs[0]
    a, b = adapter.a.path, adapter.b.path

    def inner(suffix: str) -> str:
        return f"{y}/{a}/{suffix}"

    def new(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> Node:
        return Node(op_type, tuple(inputs), (output,), attributes, output)

    parts = [replace(node, outputs=(inner("base"),))]
    if dropout:
        parts += [
            new("Constant", (), inner("ratio"), value=np.float32(dropout)),
            new("Dropout", (x, inner("ratio")), inner("dropped")),
        ]
        x = inner("dropped")
    if node.op_type == "Gemm":
        scale = adapter.scale * node.attributes.get("alpha", 1.0)
        flipped = node.attributes.get("transA", 0)
        return [
            *parts,
            new("Gemm", (x, a), inner("low"), transA=flipped),
            new("Gemm", (inner("low"), b, inner("base")), y, alpha=scale),
        ]
    factor = np.asarray(adapter.scale, adapter.a.dtype)
    return [
        *parts,
        new("MatMul", (x, a), inner("low")),
        new("Constant", (), inner("scale"), value=factor),
        new("Mul", (inner("low"), inner("scale")), inner("scaled")),
        new("MatMul", (inner("scaled"), b), inner("added")),
        new("Add", (inner("base"), inner("added")), y),
    ]
