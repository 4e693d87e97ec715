"""What lowerings may know of where a graph is to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Where most of a graph's nodes will run. Rules and passes ask it which lowering to choose:

        if builder.target.is_cpu: ...

    Every lowering is right on every target. An artifact, which may run anywhere, is made for the
    target of the step that it was exported from.

    Attributes:
        provider: the short name of the execution provider, in lower case: "cpu", "cuda", ...
    """

    provider: str = "cpu"

    @property
    def is_cpu(self) -> bool:
        """Whether ONNX Runtime's own CPU kernels run it, whose weak spots docs/design.md lists."""
        return self.provider == "cpu"


#: What is not said otherwise is for the CPU.
CPU = Target()
