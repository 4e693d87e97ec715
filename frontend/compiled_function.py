"""`ot.function`: trace a Python function once, run the compiled graph from then on."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxtape import context, nest
from onnxtape.arguments import Arguments, Recent
from onnxtape.compiler.dims import format_shape
from onnxtape.errors import FallbackWarning
from onnxtape.input_signature import InputSignature
from onnxtape.missing import no_argument
from onnxtape.signature import free_sizes, misfit, resolve_spec
from onnxtape.traces import CannotCompileError, Traces, may_lack_values

if TYPE_CHECKING:
    from onnxtape.concrete import ConcreteFunction
    from onnxtape.runtime.providers import Providers


class _Switch:
    """What `run_functions_eagerly` sets."""

    eagerly = False


def run_functions_eagerly(run_eagerly: bool) -> None:
    """Let every `ot.function` run as plain Python, for debugging; False compiles again."""
    _Switch.eagerly = bool(run_eagerly)


def function(
    f: Callable[..., Any] | None = None,
    *,
    input_signature: Sequence[Any] | None = None,
    fallback: Literal["eager", "error"] = "eager",
    providers: Providers = None,
    memory_budget: float | None = None,
    jit_compile: bool | None = None,
    reduce_retracing: bool = False,
    **options: Any,
) -> Any:
    """Compile a Python function of tensors to one ONNX graph.

    The first call traces the function with the exact shapes of its arguments. When a later call
    differs in some sizes, those become symbolic, and that trace serves every size. Python numbers
    are constants of the graph; one that changes between calls becomes an input. Everything else
    (strings, booleans, models) is compared by value or identity, with a trace for each. A list of
    numbers is a list of such, as for `tf.function`; an array of it is one input.

    Called by another compiled function, it becomes part of that one's graph. Called while an eager
    `GradientTape` records, it runs as plain Python, so that the tape sees what it does.

    Args:
        f: the function. Arguments and results may be nested dicts, lists and tuples.
        input_signature: one `TensorSpec` (or nested structure of them) per parameter, deciding
            shapes up front. Parameters without one take no tensors.
        fallback: what to do when the function cannot be traced, because Python asks for a tensor's
            value: "eager" warns once and runs it eagerly from then on; "error" raises.
        providers: execution providers, by default the CPU.
        memory_budget: the most that the values between operators may take at once, in bytes, or,
            below 1, as a share of what they take otherwise (state and batch not counted). What
            does not fit is computed again in the backward pass, with the same random numbers; what
            is chosen costs the least time, by estimate. `ConcreteFunction.estimated_peak_bytes`
            tells what came of it.
        jit_compile: TensorFlow's; has no meaning here, since every step is compiled.
        reduce_retracing: TensorFlow's; has no meaning here, since sizes that differ between calls
            always become symbolic.

    Returns:
        A `Function`; or a decorator when `f` is omitted.

    Raises:
        TypeError: another argument, `tf.function`'s others among them.
    """
    if options:
        known = [name for name in inspect.signature(function).parameters if name != "options"]
        raise no_argument(next(iter(options)), known)
    if fallback not in ("eager", "error"):
        raise ValueError(f"fallback is 'eager' or 'error', not {fallback!r}")
    if memory_budget is not None and not memory_budget > 0:
        raise ValueError(
            f"memory_budget is a number of bytes, or a share between 0 and 1, not {memory_budget!r}"
        )
    if f is None:
        return functools.partial(
            function,
            input_signature=input_signature,
            fallback=fallback,
            providers=providers,
            memory_budget=memory_budget,
        )
    return Function(f, input_signature, fallback, providers, memory_budget)


class BoundFunction:
    """A compiled method of one instance."""

    def __init__(self, bound: Function, instance: Any) -> None:
        functools.update_wrapper(self, bound)
        self._function = bound
        self._instance = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return repr(self._function)


def _as_tensor(argument: Any) -> Any:
    from onnxtape.engine import convert_to_tensor

    numeric = isinstance(argument, np.ndarray) and argument.dtype.kind in "biuf"
    return convert_to_tensor(argument) if numeric else argument


class Function:
    """A compiled function; see `ot.function`."""

    def __init__(
        self,
        python_function: Callable[..., Any],
        input_signature: Sequence[Any] | None,
        fallback: str,
        providers: Providers,
        memory_budget: float | None = None,
    ) -> None:
        functools.update_wrapper(self, python_function)
        self.python_function = python_function
        self._name = getattr(python_function, "__name__", type(python_function).__name__)
        self._input_signature = input_signature
        self._fallback = fallback
        self._providers = providers
        self._memory_budget = memory_budget
        self._fallback_reason: str | None = None
        self._signature = inspect.signature(python_function)
        self._parameters = list(self._signature.parameters)
        self._declared = (
            None
            if input_signature is None
            else InputSignature(self._name, self._parameters, input_signature)
        )
        kinds = {p.kind for p in self._signature.parameters.values()}
        self._only_plain_parameters = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self._traces = Traces(
            self._name,
            self._parameters,
            self._call_python,
            self._declared,
            providers,
            memory_budget,
        )
        self._recent: Recent | None = None
        # By the instance's id: instances may be equal, or have no hash, as dataclasses do.
        self._methods: dict[int, Function] = {}
        # Whoever decorates is going to compile: load the compiler now, not in the first step.
        importlib.import_module("onnxtape.concrete")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        bound = self._methods.get(id(instance))
        if bound is None:
            # Holds the instance weakly, and goes with it. What is handed out holds it strongly, as
            # Python's own bound methods do.
            reference, method = weakref.ref(instance), self.python_function

            @functools.wraps(method)
            def call(*args: Any, **kwargs: Any) -> Any:
                return method(reference(), *args, **kwargs)

            parameters = list(self._signature.parameters.values())[1:]
            vars(call)["__signature__"] = self._signature.replace(parameters=parameters)
            bound = Function(
                call, self._input_signature, self._fallback, self._providers, self._memory_budget
            )
            self._methods[id(instance)] = bound
            weakref.finalize(instance, self._methods.pop, id(instance))
        return BoundFunction(bound, instance)

    @property
    def trace_count(self) -> int:
        """How often Python has been traced."""
        return self._traces.count

    @property
    def fallback_reason(self) -> str | None:
        """Why the function runs eagerly; None while it is compiled."""
        return self._fallback_reason

    def __repr__(self) -> str:
        return f"<ot.function '{self._name}', {self._traces.count} traces>"

    # Calling ------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = context.state
        if self._fallback_reason is not None:
            return self._run_eagerly(args, kwargs)
        if (
            _Switch.eagerly
            # Inside another trace the function becomes part of that; a tape has to see inside.
            or state.symbolic is not None
            or state.tapes
        ):
            return self.python_function(*args, **kwargs)
        recent = self._recent
        if recent is not None and not kwargs:
            values = recent.match(args)
            if values is not None:
                return recent.concrete.run(values)
        arguments = self._arguments(args, kwargs)
        if arguments.has_symbolic:
            return self.python_function(*args, **kwargs)
        concrete = self._traces.known(arguments)
        if concrete is None:
            try:
                arguments, concrete = self._traces.find(arguments)
            except CannotCompileError as reason:
                self._fall_back(reason)
        # Not where the exception is handled: what Python raises now is not its consequence.
        if concrete is None:
            return self._run_eagerly(args, kwargs)
        if not kwargs and self._declared is None and arguments.all_tensors(args):
            self._recent = Recent(concrete, arguments)
        return concrete.run(arguments.ort_values())

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if kwargs or not self._only_plain_parameters or len(args) != len(self._parameters):
            try:
                bound = self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(misfit(self._name, self._signature, kwargs, error)) from None
            bound.apply_defaults()
            args = tuple(bound.arguments.values())
        arguments = Arguments(args, self._traces.number_is_input)
        if self._declared is not None:
            self._declared.conform(arguments)
        return arguments

    def _run_eagerly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with tensors in the place of arrays, as while it was traced."""
        args, kwargs = nest.map_structure(_as_tensor, (args, kwargs))
        return self.python_function(*args, **kwargs)

    def _call_python(self, bound: Sequence[Any]) -> Any:
        """Call the function with one value per parameter."""
        positional: list[Any] = []
        keyword: dict[str, Any] = {}
        for parameter, value in zip(self._signature.parameters.values(), bound, strict=True):
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional.extend(value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                keyword.update(value)
            elif parameter.kind is parameter.KEYWORD_ONLY:
                keyword[parameter.name] = value
            else:
                positional.append(value)
        return self.python_function(*positional, **keyword)

    def _fall_back(self, reason: CannotCompileError) -> None:
        if self._fallback == "error":
            raise reason.cause from None
        self._fallback_reason = str(reason.cause)
        warnings.warn_explicit(
            f"'{self._name}' cannot be compiled and runs eagerly from now on: {reason.cause}",
            FallbackWarning,
            reason.file or "<unknown>",
            reason.line,
        )

    # What it was compiled to ----------------------------------------------------------------------

    def get_concrete_function(self, *args: Any, **kwargs: Any) -> ConcreteFunction:
        """The trace that a call with these arguments would run, made if need be.

        Arguments may be `TensorSpec`s, whose None and named dimensions become symbolic. Without
        arguments, `input_signature` or the last traced call decides.

        Raises:
            TracingError: the function cannot be traced.
            ValueError: nothing tells the shapes.
        """
        arguments = self._specified(args, kwargs)
        names = self._traces.names(arguments)
        shapes = arguments.shapes
        try:
            if all(isinstance(d, int) for shape in shapes for d in shape):
                return self._traces.known(arguments) or self._traces.find(arguments)[1]
            specs = [arguments.leaves[i] for i in arguments.places]
            return self._traces.for_shapes(arguments, names, resolve_spec(names, specs))
        except CannotCompileError as reason:
            raise reason.cause from None

    def get_symbolic_function(self, *args: Any, **kwargs: Any) -> ConcreteFunction:
        """`get_concrete_function` with every leading dimension symbolic, and every other one that
        has varied between calls: what is exported.

        A step that needs such sizes as numbers is given for as few shapes as must be, with a
        warning.
        """
        arguments = self._specified(args, kwargs)
        names = self._traces.names(arguments)
        shapes = arguments.shapes
        if not all(isinstance(d, int) for shape in shapes for d in shape):
            return self.get_concrete_function(*args, **kwargs)
        seen = self._traces.observed(arguments)
        error: Exception | None = None
        for wanted in free_sizes(names, shapes, seen):  # type: ignore[arg-type]
            try:
                concrete = self._traces.for_shapes(arguments, names, wanted)
                break
            except Exception as reason:
                if not may_lack_values(reason):
                    raise
                error = error or reason
        else:
            # What is wrong for another reason than the sizes is wrong with exact ones too.
            concrete = self.get_concrete_function(*args, **kwargs)
        if error is not None:
            taken = [spec.shape for spec in concrete.inputs]
            context.warn_user(
                f"'{self._name}' needs its sizes as Python numbers, so it is exported for the "
                f"shapes {', '.join(map(format_shape, taken))} only: {error}"
            )
        return concrete

    def _specified(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """The arguments that tell dtypes and shapes, given or remembered."""
        if args or kwargs or not self._parameters:
            return self._arguments(args, kwargs)
        known = self._traces.last if self._declared is None else self._declared.trees
        if known is None and self._fallback_reason is not None:
            raise ValueError(
                f"'{self._name}' runs eagerly, so there is no graph of it: {self._fallback_reason}"
            )
        if known is None:
            raise ValueError(
                f"'{self._name}' has not been called yet: give arguments or ot.TensorSpecs that "
                "tell dtypes and shapes"
            )
        return Arguments(known, self._traces.number_is_input)

    def export(
        self,
        path: str | Path,
        *args: Any,
        model: Any = None,
        evaluation: Any = None,
        **kwargs: Any,
    ) -> Path:
        """Write the step, with its current state, as an artifact that any ONNX Runtime can train.

        Args:
            path: the folder to write. An artifact that is there already is replaced whole.
            *args: arguments or `TensorSpec`s that tell dtypes and shapes, by default those of the
                last traced call. Leading dimensions become symbolic, and those that have varied
                between calls; of `TensorSpec`s with None or names in them, those alone.
            model: also write this model's inference graph.
            evaluation: also write this compiled function, which evaluates a batch: an
                `ot.function` with an `input_signature`, or one that has been called.

        Returns:
            The folder.
        """
        from onnxtape.export import export_step

        if not isinstance(evaluation, (Function, BoundFunction, type(None))):
            raise TypeError(
                "evaluation is an ot.function of a batch, not "
                f"{getattr(evaluation, '__name__', None) or type(evaluation).__name__}: decorate "
                "the function that evaluates, and call it once or give it an input_signature"
            )
        concrete = self.get_symbolic_function(*args, **kwargs)
        other = evaluation.get_symbolic_function() if evaluation is not None else None
        return export_step(concrete, path, model, other)
