"""What lowerings may know of where a graph is to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Where most of a graph's nodes will run. Rules and passes ask it which lowering to choose:

        if builder.target.is_cpu: ...

    A step is traced for the CPU, and passes rewrite what others compute otherwise; so a trace
    serves every provider.

    Attributes:
        provider: the short name of the execution provider, in lower case: "cpu", "cuda", ...; None
            where it is not known, as for what is exported.
    """

    provider: str | None = None

    @property
    def is_cpu(self) -> bool:
        """Whether ONNX Runtime's own CPU kernels run it, whose weak spots docs/design.md lists."""
        return self.provider == "cpu"


#: Wherever somebody may take the graph to.
ANY = Target()
CPU = Target("cpu")
