"""Gradients of If, Loop and Scan.

The backward pass of a node with subgraphs is a node with subgraphs: an If whose branches
differentiate the branches, a Loop or Scan that runs through the iterations from the last to the
first. Each computes again what it needs of the forward subgraph. The rules' inputs are the node's
own, and then what its subgraphs capture.

They work on onnx_ir graphs, which eager mode does not have; it is imported when they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape.compiler.builder import Builder
from onnxtape.compiler.record import Record
from onnxtape.compiler.registry import register_expansion

B = Builder[Any]
N = Record[Any]


def if_(b: B, n: N, wanted: Sequence[bool], *grads: Any) -> list[Any]:
    """An If over the same condition; a branch without a captured value gives it zeros."""
    from onnxtape.compiler.branches import if_gradients

    return if_gradients(b, n, wanted, grads)


def loop(b: B, n: N, wanted: Sequence[bool], *grads: Any) -> list[Any]:
    """A Loop over as many iterations as have run, from the last to the first."""
    from onnxtape.compiler.loops import LoopBackward

    return LoopBackward(b, n, wanted, grads).gradients()


def scan(b: B, n: N, wanted: Sequence[bool], *grads: Any) -> list[Any]:
    """A Scan in the opposite direction."""
    from onnxtape.compiler.scans import ScanBackward

    return ScanBackward(b, n, wanted, grads).gradients()


register_expansion(("If",), if_)
register_expansion(("Loop",), loop)
register_expansion(("Scan",), scan)
