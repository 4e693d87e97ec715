"""Steps that cannot be traced: one warning at the user's line, and the same numbers as ever."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape import context
from onnxtape.errors import DimensionError, TracingError
from tests.frontend.training import Training, batches

SHOWN = context.shown_path(__file__)
BRANCH = "Write ops.where(condition, a, b) instead of `if` (ot.cond for whole branches"
LOOK = "Return the value from the step and look at it there"


def line_of(marker: str) -> int:
    """The line of this file that ends with the comment `# marker`."""
    with open(__file__, encoding="utf-8") as file:
        found = [i for i, line in enumerate(file, 1) if line.rstrip().endswith(f"# {marker}")]
    assert len(found) == 1, marker
    return found[0]


def truth(loss: Any) -> Any:
    if loss > 1:  # truth
        return loss * 0.5
    return loss


def conjunction(loss: Any) -> Any:
    return loss * (2.0 if loss > 0 and loss < 5 else 1.0)  # conjunction


def loop_while(loss: Any) -> Any:
    while loss > 0.5:  # loop_while
        loss = loss * 0.5
    return loss


def assertion(loss: Any) -> Any:
    assert loss > -1  # assertion
    return loss


def as_float(loss: Any) -> Any:
    return loss * float(loss)  # as_float


def as_int(loss: Any) -> Any:
    return loss * (1 + int(loss))  # as_int


def index(loss: Any) -> Any:
    return loss + sum(range(ot.ops.cast(loss, "int32")))  # index


def item(loss: Any) -> Any:
    return loss + loss.item()  # item


def as_list(loss: Any) -> Any:
    return loss + loss.tolist()  # as_list


def to_numpy(loss: Any) -> Any:
    return loss + loss.numpy() ** 2  # to_numpy


def array(loss: Any) -> Any:
    return loss + np.asarray(loss) ** 2  # array


def ufunc(loss: Any) -> Any:
    return loss + np.exp(loss)  # ufunc


def reduction(loss: Any) -> Any:
    return loss + np.mean(loss) ** 2  # reduction


def mathematics(loss: Any) -> Any:
    return loss + math.sqrt(loss)  # mathematics


def formatted(loss: Any) -> Any:
    return loss * len(f"{loss:.3f}")  # formatted


def percent(loss: Any) -> Any:
    return loss * len("%.3f" % loss)  # percent  # noqa: UP031


USES = [
    (truth, "Python took its truth value", BRANCH),
    (conjunction, "Python took its truth value", BRANCH),
    (loop_while, "Python took its truth value", BRANCH),
    (assertion, "Python took its truth value", BRANCH),
    (as_float, "float() was called", LOOK),
    (as_int, "int() was called", LOOK),
    (index, "Python needed it as an integer", "Use ops.take(x, i) for an index"),
    (item, "item() was called", LOOK),
    (as_list, "its value was asked for", LOOK),
    (to_numpy, "its value was asked for", LOOK),
    (
        array,
        "NumPy asked for its value",
        "Use the functions of ot.ops: no gradient flows through NumPy",
    ),
    (
        ufunc,
        "NumPy asked for its value",
        "Use ops.exp instead of np.exp: no gradient flows through NumPy",
    ),
    (reduction, "NumPy asked for its value", "Use ops.mean instead of np.mean: no gradient"),
    (
        mathematics,
        "float() was called",
        "Use ops.sqrt instead of math.sqrt: math works on Python numbers",
    ),
    (formatted, "it was formatted as text", LOOK),
    (percent, "float() was called", LOOK),
]
uses = pytest.mark.parametrize(
    ("use", "what", "instead"), USES, ids=[use.__name__ for use, _, _ in USES]
)


class Model:
    """One weight, trained by a loss that `use` looks into."""

    def __init__(self, use: Callable[[Any], Any], **options: Any) -> None:
        self.weight = ot.Variable(np.float32([1.0, -2.0]))
        self.optimizer = ot.optimizers.Adam(0.1)
        self.use = use
        self.step = ot.function(self.python_step, **options)

    def python_step(self, x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = self.use(ot.ops.mean(ot.ops.square(x @ self.weight)))
        self.optimizer.apply(tape.gradient(loss, [self.weight]), [self.weight])
        return loss


X = np.random.default_rng(0).standard_normal((8, 2), dtype=np.float32)


@uses
def test_it_warns_once_at_the_users_line_and_trains_as_if_never_compiled(
    use: Callable[[Any], Any], what: str, instead: str
) -> None:
    compiled, plain = Model(use), Model(use)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = [compiled.step(X) for _ in range(4)]
    assert [w.category for w in caught] == [ot.FallbackWarning]
    warning = caught[0]
    line = line_of(use.__name__) if use is not percent else use.__code__.co_firstlineno + 1
    assert (warning.filename, warning.lineno) == (__file__, line)
    text = str(warning.message)
    assert "'python_step' cannot be compiled and runs eagerly from now on" in text
    assert what in text
    assert f"test_fallback.py:{line}: " in text
    with open(__file__, encoding="utf-8") as file:
        assert file.readlines()[line - 1].strip() in text
    assert f"\n  {instead}" in text
    assert (BRANCH in text) == (instead is BRANCH)

    assert compiled.step.trace_count == 1
    reason = compiled.step.fallback_reason
    assert reason is not None
    assert reason in text
    for loss in losses:
        assert float(loss) == float(plain.python_step(X))
    np.testing.assert_array_equal(compiled.weight.numpy(), plain.weight.numpy())


@uses
def test_fallback_error_raises_the_same(use: Callable[[Any], Any], what: str, instead: str) -> None:
    model = Model(use, fallback="error")
    before = model.weight.numpy()
    texts = []
    for _ in range(2):
        with pytest.raises(TracingError) as caught:
            model.step(X)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert what in texts[0]
    assert instead in texts[0]
    assert "test_fallback.py:" in texts[0]
    assert caught.value.file == __file__
    assert model.step.fallback_reason is None
    np.testing.assert_array_equal(model.weight.numpy(), before)


def test_a_gradient_step_with_dropout_falls_back_to_the_same_numbers() -> None:
    compiled, plain = Training(compiled=False), Training(compiled=False)

    def step(x: Any, y: Any) -> Any:
        results = compiled.python_step(x, y)
        if results["loss"] > 100:
            raise ValueError("diverged")
        return results

    compiled.step = ot.function(step)
    compiled.restart_masks()
    with pytest.warns(ot.FallbackWarning, match="'step' cannot be compiled") as caught:
        found = compiled.run(batches(6, last=5))
    assert len(caught) == 1
    plain.restart_masks()
    assert found == plain.run(batches(6, last=5))
    for one, other in zip(compiled.state(), plain.state(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_function_warns_for_itself() -> None:
    for _ in range(2):
        with pytest.warns(ot.FallbackWarning):
            Model(truth).step(X)


def test_an_operator_without_a_kernel_falls_back_and_says_so() -> None:
    @ot.function
    def step(x: Any) -> Any:
        return ot.engine.B.op("Conv", x, x)

    x = np.full((1, 1, 1), 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            np.testing.assert_array_equal(step(x), x * x)
    first, second = caught
    assert (first.category, second.category) == (ot.FallbackWarning, RuntimeWarning)
    line = step.python_function.__code__.co_firstlineno + 2
    assert f"for Conv(11) node with name 'Conv_1_node'\n  at {SHOWN}:{line}" in str(first.message)
    assert first.filename == __file__
    assert str(step.fallback_reason) in str(first.message)
    assert "no kernel for Conv on (float64, float64)" in str(second.message)


# Tensors that outlive their trace ----------------------------------------------------------------


def leak() -> Any:
    kept: list[Any] = []
    ot.function(lambda x: kept.append(x * 2) or x)(X)
    return kept[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1,
        lambda t: ot.ops.sum(t),
        lambda t: t.numpy(),
        lambda t: float(t),
        lambda t: bool(t),
        lambda t: ot.function(lambda x: x + 1)(t),
        lambda t: ot.Variable(np.zeros(t.shape, np.float32)).assign(t),
    ],
    ids=["operator", "operation", "numpy", "float", "bool", "function", "assign"],
)
def test_a_leaked_tensor_says_what_happened(use: Callable[[Any], Any]) -> None:
    leaked = leak()
    with pytest.raises(TracingError) as caught:
        use(leaked)
    text = str(caught.value)
    assert "a tensor of a finished trace" in text or "a symbolic tensor outside the trace" in text
    assert "test_fallback.py" in text
    assert "symbolic" in repr(leaked)


def test_a_leaked_tensor_in_another_trace() -> None:
    leaked = leak()
    with pytest.raises(TracingError, match="a symbolic tensor of another trace was used"):
        ot.function(lambda x: x + leaked, fallback="error")(X)


def test_a_symbolic_initial_value_is_refused() -> None:
    with pytest.raises(TracingError, match="initial value of variable 'scale' is symbolic"):
        ot.function(lambda x: ot.Variable(x, name="scale"), fallback="error")(X)


# Sizes -------------------------------------------------------------------------------------------

ARITHMETIC: list[Callable[[Any], Any]] = [
    lambda x: x * x.shape[0],
    lambda x: ot.ops.sum(x) / x.shape[0],
    lambda x: x / (x.shape[0] - 1),
    lambda x: 1.0 / x.shape[0],
    lambda x: x.shape[0] // 2 + x.shape[0] % 3,
    lambda x: -x.shape[0] + x.shape[0] ** 2,
    lambda x: ot.ops.reshape(x, (x.shape[0] * x.shape[1],)),
    lambda x: ot.ops.reshape(x, (x.shape[0], -1, 1)),
    lambda x: ot.ops.zeros((x.shape[0], 2)) + x[:, :2],
    lambda x: ot.ops.broadcast_to(x[:1], x.shape),
    lambda x: x[: x.shape[0] - 1],
    lambda x: ot.ops.arange(x.shape[0]),
    lambda x: ot.ops.cast(ot.ops.shape(x)[0], "float32") * x,
    lambda x: np.float32(2) * x.shape[0],
]


@pytest.mark.parametrize("use", ARITHMETIC, ids=[str(i) for i in range(len(ARITHMETIC))])
def test_arithmetic_with_sizes_stays_symbolic(use: Callable[[Any], Any]) -> None:
    compiled = ot.function(use, fallback="error")
    for rows in (6, 4, 9, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 3), dtype=np.float32)
        np.testing.assert_allclose(compiled(x), use(ot.convert_to_tensor(x)), rtol=1e-6)
    assert compiled.trace_count == 2


NUMBERS: list[Callable[[Any], Any]] = [
    lambda x: sum((x[i] for i in range(x.shape[0])), x[0]),
    lambda x: sum((row for row in x), x[0]),
    lambda x: x * math.sqrt(x.shape[0]),
    lambda x: x * int(x.shape[0]),
    lambda x: x * len(x),
    lambda x: x * x.size,
    lambda x: x * 2 if x.shape[0] > 3 else x,
    lambda x: x * 2 if x.shape[0] == 4 else x,
    lambda x: x * len([0] * x.shape[0]),
    lambda x: x * np.sqrt(x.shape[0]),
    lambda x: x * 2 if x.shape[0] // 2 > 1 else x,
    lambda x: x * {6: 1.0, 4: 2.0, 9: 3.0, 2: 4.0}[x.shape[0]],
    lambda x: x + np.zeros(x.shape, np.float32),
]


@pytest.mark.parametrize("use", NUMBERS, ids=[str(i) for i in range(len(NUMBERS))])
@pytest.mark.parametrize("signature", [False, True], ids=["traced", "signature"])
def test_a_size_that_python_needs_costs_a_trace_per_size_but_no_fallback(
    use: Callable[[Any], Any], signature: bool
) -> None:
    spec = [ot.TensorSpec((None, 3))] if signature else None
    compiled = ot.function(use, fallback="error", input_signature=spec)
    for rows in (6, 4, 9, 2, 6, 4, 9, 2):
        x = np.random.default_rng(rows).standard_normal((rows, 3), dtype=np.float32)
        np.testing.assert_allclose(compiled(x), use(ot.convert_to_tensor(x)), rtol=1e-6)
    # One for each of four sizes, and one in vain for any size.
    assert compiled.trace_count == 5
    assert compiled.fallback_reason is None


def test_a_size_from_the_data_has_no_number_in_any_trace() -> None:
    @ot.function
    def positive(x: Any) -> Any:
        chosen = x[x > 0]
        return chosen * len(chosen)

    x = np.float32([1, -2, 3])
    with pytest.warns(ot.FallbackWarning, match=r"size of dimension .* is not known"):
        np.testing.assert_array_equal(positive(x), [2, 6])
    assert "ops.shape(x)" in str(positive.fallback_reason)


def test_sizes_compare_with_each_other_and_with_none() -> None:
    @ot.function(input_signature=[ot.TensorSpec((None, 3)), ot.TensorSpec((None, 3))])
    def add(x: Any, y: Any) -> Any:
        assert x.shape[0] == y.shape[0]
        assert x.shape[0] != None  # noqa: E711
        assert x.shape[0] is not None
        assert x.shape[0] in {y.shape[0]}
        assert repr(x.shape) == "(batch, 3)"
        with pytest.raises(DimensionError, match="size of dimension 'batch' is not known"):
            bool(x.shape[0] == 4)
        return x + y

    np.testing.assert_array_equal(add(X[:, [0, 1, 1]], X[:, [0, 1, 1]]), 2 * X[:, [0, 1, 1]])
    assert add.trace_count == 1


def test_a_trace_leaves_no_frame_of_the_user_behind() -> None:
    """The reason is text: the exception, and with it the user's locals, is let go."""
    big = np.zeros(1)
    references = sys.getrefcount(big)

    def step(x: Any) -> Any:
        mine = big
        return x * float(x) * mine

    compiled = ot.function(step)
    with pytest.warns(ot.FallbackWarning):
        compiled(np.float32(2))
    import gc

    gc.collect()
    assert sys.getrefcount(big) <= references + 1
