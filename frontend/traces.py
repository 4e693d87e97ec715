"""The traces of one compiled function: which serves a call, and making one where none does."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from onnxtape import context
from onnxtape.arguments import Arguments
from onnxtape.compiler.dims import Shape
from onnxtape.errors import (
    DtypeError,
    ExecutionError,
    GradientError,
    ModelError,
    ShapeError,
    TracingError,
)
from onnxtape.input_signature import InputSignature
from onnxtape.signature import Family, Shapes, generalize, mismatch, parts_sizes
from onnxtape.tensor import Tensor

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction
    from onnxtape.runtime.providers import Providers
    from onnxtape.tracing import TracedStep

#: So many traces for fixed shapes draw a warning.
_MANY_TRACES = 8


class CannotCompileError(Exception):
    """The function must run eagerly; `cause` says why, `file` and `line` where."""

    def __init__(self, cause: Exception, file: str, line: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.file = file
        self.line = line


def may_lack_values(error: Exception) -> bool:
    """Whether an error may be due to what is not known while tracing: sizes, or numbers.

    What the user's Python raises may be, and what is refused on purpose. What breaks in the
    compiler, or once the graph is there, is a defect, which a trace for exact sizes would hide.
    """
    if isinstance(error, CannotCompileError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [frame.f_globals.get("__name__", "") for frame in frames]
    if "onnxtape.concrete" in modules:
        return False
    if isinstance(error, (DtypeError, GradientError, ModelError, ShapeError)):
        return True
    if not modules[-1].startswith("onnxtape."):
        inner = [name for name in modules if name.startswith("onnxtape.")]
        return not inner[-1].startswith("onnxtape.compiler.")
    ours = modules[-1].startswith("onnxtape.compiler.")
    return isinstance(error, (TypeError, ValueError)) and not ours


class Traces:
    """What a function has been traced for.

    Args:
        name: the function's, for messages.
        parameters: the names of its parameters.
        call: calls the Python function with one value per parameter.
        declared: its input signature.
        providers: where its graphs run.
        memory_budget: see `ot.function`.

    Attributes:
        count: how often Python has been traced.
        last: the arguments of the last trace, with a `TensorSpec` for each tensor.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[str],
        call: Callable[[Sequence[Any]], Any],
        declared: InputSignature | None,
        providers: Providers,
        memory_budget: float | None = None,
    ) -> None:
        self._name = name
        self._parameters = parameters
        self._call_python = call
        self._declared = declared
        self._providers = providers
        self._memory_budget = memory_budget
        self.count = 0
        self.last: tuple[Any, ...] | None = None
        # Exact arguments -> trace; what the fast path looks up.
        self._exact: dict[Any, ConcreteFunction] = {}
        self._families: dict[Any, Family] = {}
        # Python numbers by structure and place: the first value seen, those that changed and are
        # inputs since, and those that Python needs as numbers.
        self._first_numbers: dict[tuple[Any, int], float] = {}
        self._number_inputs: set[tuple[Any, int]] = set()
        self._number_constants: set[tuple[Any, int]] = set()
        self._has_compiled = False
        self._lock = threading.RLock()

    def number_is_input(self, structure: Any, place: int) -> bool:
        """Whether the Python number at this place of the arguments is an input of the graph."""
        return (structure, place) in self._number_inputs

    def known(self, arguments: Arguments) -> ConcreteFunction | None:
        """The trace that has served exactly such arguments before, and would be the same now."""
        concrete = self._exact.get(arguments.key)
        return concrete if concrete is not None and concrete.traced.flags.hold() else None

    def find(self, arguments: Arguments) -> tuple[Arguments, ConcreteFunction]:
        """A trace that serves these arguments, made if need be, and the arguments as it takes them.

        Raises:
            CannotCompileError: the function cannot be traced.
        """
        with self._lock:
            found = self._find(arguments)
            for place, number in arguments.numbers:
                self._first_numbers.setdefault((arguments.structure, place), number)
            return found

    def _find(self, arguments: Arguments) -> tuple[Arguments, ConcreteFunction]:
        if self._declared is not None:
            return arguments, self._find_trace(arguments)
        changed = {
            (arguments.structure, place)
            for place, number in arguments.numbers
            if self._first_numbers.get((arguments.structure, place), number) != number
        } - self._number_constants
        if changed:
            self._number_inputs |= changed
            promoted = Arguments(arguments.args, self.number_is_input)
            try:
                return promoted, self._find_trace(promoted)
            except Exception as error:
                self._number_inputs -= changed
                if not may_lack_values(error):
                    raise
                # Python needs the number itself (as a size, a key, in an `if`): a trace for each
                # value. Whatever else was wrong is wrong with the number too.
            concrete = self._find_trace(arguments)
            self._number_constants |= changed
            return arguments, concrete
        return arguments, self._find_trace(arguments)

    def _find_trace(self, arguments: Arguments) -> ConcreteFunction:
        arguments.check(self._parameters)
        family = self._families.get(arguments.family_key) or Family()
        names = self.names(arguments)
        shapes: Any = arguments.shapes
        for concrete in reversed(family.current):
            if mismatch(names, [spec.shape for spec in concrete.inputs], shapes) is None:
                break
        else:
            concrete = self._trace_for(arguments, family, names)
            # Only now: a call that is refused leaves nothing behind.
            self._keep(arguments, family, concrete)
            family.observed.append(shapes)
            self.last = arguments.as_specs()
        self._exact[arguments.key] = concrete
        return concrete

    def _keep(self, arguments: Arguments, family: Family, concrete: ConcreteFunction) -> None:
        family.concrete.append(concrete)
        self._families[arguments.family_key] = family
        if len(family.concrete) == 1 and len(self._families) == _MANY_TRACES:
            context.warn_user(
                f"'{self._name}' has been traced for {_MANY_TRACES} combinations of dtypes, "
                "ranks and arguments that are not tensors; pass what changes from call to call "
                "as a tensor (a list of numbers as one array), and otherwise the same objects again"
            )

    def _trace_for(
        self, arguments: Arguments, family: Family, names: list[str]
    ) -> ConcreteFunction:
        observed: Any = arguments.shapes
        exact = list(observed)
        wanted = exact
        if self._declared is not None:
            wanted = self._declared.shapes
        # Where sizes that were taken to be equal are not, what was seen decides.
        if self._declared is None or mismatch(names, wanted, exact):
            wanted = generalize(names, [*family.observed, observed])
        if wanted != exact and not family.static_only:
            if parts_sizes(family.observed, observed):
                # A symbol for each would let pass what exact sizes refuse: fewer targets than
                # samples, say.
                self._run_python(arguments, names, exact)
            try:
                return self._trace(arguments, names, wanted)
            except Exception as error:
                if not may_lack_values(error):
                    raise
                # Python, or an operator, needs the sizes; what else is wrong, is wrong with exact
                # ones too, and is raised there: not in here, as if it were another mistake.
            concrete = self._trace(arguments, names, exact)
            family.static_only = True
            return concrete
        if len(family.current) == _MANY_TRACES:
            context.warn_user(
                f"'{self._name}' needs a trace for each shape of its arguments, because it uses "
                "sizes as Python numbers; ops.shape(x) gives them as tensors"
            )
        return self._trace(arguments, names, exact)

    def _trace(
        self, arguments: Arguments, names: Sequence[str], shapes: Sequence[Shape]
    ) -> ConcreteFunction:
        from onnxtape.concrete import ConcreteFunction

        try:
            concrete = ConcreteFunction(self._run_python(arguments, names, shapes), self._providers)
        except ExecutionError as error:
            if "Could not find an implementation" not in str(error):
                raise
            raise CannotCompileError(error, *context.user_place()) from error
        self._has_compiled = True
        return concrete

    def _run_python(
        self, arguments: Arguments, names: Sequence[str], shapes: Sequence[Shape]
    ) -> TracedStep:
        from onnxtape.tracing import InputSpec, trace

        specs = [
            InputSpec(name, dtype, shape)
            for name, dtype, shape in zip(names, arguments.dtypes, shapes, strict=True)
        ]

        def call(tensors: Sequence[Tensor]) -> Any:
            return self._call_python(arguments.rebuild(tensors))

        self.count += 1
        try:
            return trace(
                self._name,
                specs,
                call,
                may_create=not self._has_compiled,
                memory_budget=self._memory_budget,
            )
        except TracingError as error:
            raise CannotCompileError(error, error.file, error.line) from error

    def names(self, arguments: Arguments) -> list[str]:
        """The names of the batch inputs."""
        if self._declared is not None:
            return self._declared.names
        return arguments.names(self._parameters)

    def observed(self, arguments: Arguments) -> list[Shapes]:
        """The shapes that arguments of these dtypes and ranks have been traced for."""
        family = self._families.get(arguments.family_key)
        return [] if family is None else list(family.observed)

    def for_shapes(
        self, arguments: Arguments, names: list[str], shapes: list[Shape]
    ) -> ConcreteFunction:
        """The trace for these, possibly symbolic, shapes, made if need be."""
        family = self._families.get(arguments.family_key) or Family()
        for concrete in family.current:
            if [spec.shape for spec in concrete.inputs] == shapes:
                return concrete
        concrete = self._trace(arguments, names, shapes)
        self._keep(arguments, family, concrete)
        return concrete
