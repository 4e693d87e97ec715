"""Which of a framework's parameters are one, and which only begin alike, as far as a file tells."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxtape.interop.origins import SIGNATURE, folded_from, names_in

if TYPE_CHECKING:
    import onnx

_PLACE = re.compile(r"(\w+): (?:PARAMETER|BUFFER) target='([^']+)'")
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_SCOPES = "pkg.torch.onnx.name_scopes"
# PyTorch copies one layer, weights and all, as often as they have layers.
_COPYING = tuple(f"torch.nn.modules.transformer.Transformer{kind}coder" for kind in ("De", "En"))


class Parameters:
    """The parameters and buffers that torch.onnx.export has noted, and where they are.

    Attributes:
        targets: their names, by those that the exported program has for them.
        folded: what the exporter has computed, and of what.
        own: for initializers, the parameters that they are, or are made of.
        place: for parameters, the initializer.
        lacking: those that have none.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        notes = {p.key: p.value for p in graph.metadata_props}
        self.targets: dict[str, str] = dict(_PLACE.findall(notes.get(SIGNATURE, "")))
        self._tensors = {t.name: t for t in graph.initializer}
        self.own: dict[str, list[str]] = {}
        self.folded = folded_from(graph)
        known = set(self.targets.values())
        for name in self._tensors if known else ():
            sources = [n for n in (name, *self.folded.get(name, ())) if n in known]
            if sources:
                self.own[name] = sources
        self.place = {n: name for name, sources in self.own.items() for n in sources}
        self.lacking = known - set(self.place)

    def tensor(self, name: str) -> onnx.TensorProto:
        """An initializer."""
        found: onnx.TensorProto = self._tensors[name]
        return found

    def are_apart(self, first: str, second: str) -> bool:
        """Whether two initializers are different parameters, equal as they may be."""
        if first not in self.own or second not in self.own:
            return False
        return self.differ(self.own[first][0], self.own[second][0])

    def differ(self, first: str, second: str) -> bool:
        """Whether two parameters of one name are of different modules.

        These hold other weights that differ, or are layers that PyTorch itself has copied.
        """
        module, name = _parted(first)
        other, other_name = _parted(second)
        if module == other or name != other_name:
            return False
        layers = [self._copied_layer(n) for n in (first, second)]
        if all(layers):
            return layers[0] != layers[1]
        inside = [n for n in self.place if n.startswith(f"{module}.")]
        pairs = [(n, f"{other}.{n[len(module) + 1 :]}") for n in inside]
        return any(
            self.place[a] != self.place[b] and self._content(a) != self._content(b)
            for a, b in pairs
            if b in self.place
        )

    def is_uniform(self, name: str) -> bool:
        """Whether all elements of an initializer are equal."""
        import onnx

        array = onnx.numpy_helper.to_array(self._tensors[name])
        return array.size > 0 and bool(np.all(array == array.flat[0]))

    def scopes(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The modules that a node stems from, the innermost last."""
        return _noted_names(node, _SCOPES)

    def _content(self, parameter: str) -> bytes:
        name = self.place[parameter]
        return b"" if self.is_uniform(name) else self._tensors[name].raw_data

    def _copied_layer(self, parameter: str) -> str | None:
        return next((n for n in self._copied_layers if parameter.startswith(f"{n}.")), None)

    @cached_property
    def _copied_layers(self) -> set[str]:
        """The layers that PyTorch has copied from one."""
        found: set[str] = set()
        for node in self._graph.node:
            classes = _noted_names(node, _CLASSES)
            for name, scope in zip(classes, self.scopes(node)[1:], strict=False):
                if name in _COPYING:
                    found.add(scope)
        return found


def _noted_names(node: onnx.NodeProto, key: str) -> tuple[str, ...]:
    return next((names_in(p.value) for p in node.metadata_props if p.key == key), ())


def _parted(name: str) -> tuple[str, str]:
    module, _, last = name.rpartition(".")
    return module, last
