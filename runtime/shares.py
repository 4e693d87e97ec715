"""What several threads do at the same time after a step's graph: their shares of its updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape.runtime.blocks import BoundBlock
from onnxtape.runtime.concurrently import run_together
from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.session import execution_error
from onnxtape.runtime.values import bindings


class Share:
    """A session that updates parts of blocks, all of its inputs and outputs.

    Args:
        session: a session with one thread; it keeps to the order of its graph.
        blocks: as the session sees them.
    """

    def __init__(self, session: Any, blocks: Sequence[BoundBlock]) -> None:
        self._blocks = list(blocks)
        self._io = bindings().SessionIOBinding(session._sess)
        self._run = flushing(session._sess.run_with_iobinding)

    def rebind(self) -> None:
        """Bind blocks that have moved."""
        for block in self._blocks:
            block.rebind(self._io)

    def run(self) -> None:
        self._run(self._io, None)


class Shares:
    """Shares that run at the same time."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = list(shares)
        self._runs = [share.run for share in self._shares]

    def rebind(self) -> None:
        """Bind blocks that have moved."""
        for share in self._shares:
            share.rebind()

    def run(self) -> None:
        """Run all of them.

        Raises:
            ExecutionError: ONNX Runtime failed. Nobody writes into the state any more then.
        """
        try:
            run_together(self._runs)
        except Exception as error:
            raise execution_error(error, "the update failed") from None
