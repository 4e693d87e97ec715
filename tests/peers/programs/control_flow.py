"""Programs with loops and branches, once with onnxtape and once with JAX; prints what differs.

Each is a function of a weight, a sequence and a state. Compared are its value, its gradients, and
the gradients of a function of those; eagerly, compiled, and for a sequence of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import onnxtape as ot

OURS = SimpleNamespace(
    **{name: getattr(ot.ops, name) for name in ("tanh", "sin", "sum", "mean", "matmul", "stack")},
    **{name: getattr(ot, name) for name in ("cond", "scan", "fori_loop")},
    take=lambda x, i: ot.ops.take(x, i, axis=0),
    number=ot.convert_to_tensor,
)
JAX = SimpleNamespace(
    **{name: getattr(jnp, name) for name in ("tanh", "sin", "sum", "mean", "matmul", "stack")},
    **{name: getattr(jax.lax, name) for name in ("cond", "scan", "fori_loop")},
    take=lambda x, i: x[i],
    number=jnp.asarray,
)
RNG = np.random.default_rng(0)
INPUTS = [RNG.normal(size=s).astype("f") * 0.5 for s in ((3, 3), (5, 2, 3), (2, 3))]


def recurrence(n: Any, w: Any, x: Any, h: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        c = n.tanh(n.matmul(c, w) * row)
        return c, c

    last, rows = n.scan(step, h, x, reverse=True)
    return n.sum(last) + n.sum(n.sin(rows))


def scan_in_scan(n: Any, w: Any, x: Any, h: Any) -> Any:
    def outer(c: Any, rows: Any) -> Any:
        def inner(d: Any, row: Any) -> Any:
            d = n.tanh(d + n.matmul(row, w))
            return d, n.sum(d)

        d, sums = n.scan(inner, c[0], rows)
        return n.stack([d, n.sin(c[1])]), n.sum(sums) * n.sum(w)

    last, rows = n.scan(outer, h, x)
    return n.sum(last) + n.sum(rows)


def branch_in_scan(n: Any, w: Any, x: Any, h: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        c = n.cond(n.sum(c) > 0, lambda: n.tanh(n.matmul(c, w) + row), lambda: n.sin(c) * row)
        return c, n.sum(c)

    last, sums = n.scan(step, h, x)
    return n.sum(last * last) + n.sum(sums)


def scan_in_loop(n: Any, w: Any, x: Any, h: Any) -> Any:
    def body(_: Any, c: Any) -> Any:
        last, states = n.scan(lambda d, row: (n.tanh(n.matmul(d, w)) + 0.1 * row, d), c, x)
        return last + n.mean(states)

    return n.sum(n.fori_loop(0, 3, body, h) ** 2)


def loop_by_index(n: Any, w: Any, x: Any, h: Any) -> Any:
    return n.sum(n.fori_loop(1, 4, lambda i, c: n.sin(c) + n.matmul(n.take(x, i), w), h))


def no_iterations(n: Any, w: Any, x: Any, h: Any) -> Any:
    last = n.fori_loop(3, 3, lambda i, c: n.matmul(c, w) + n.take(x, i), h)
    return n.sum(last * h) + n.sum(w)


def branch_in_loop_in_branch(n: Any, w: Any, x: Any, h: Any) -> Any:
    def loop() -> Any:
        def body(i: Any, c: Any) -> Any:
            return n.cond(i < 2, lambda: n.tanh(n.matmul(c, w)), lambda: c * n.sum(x[0]))

        return n.fori_loop(0, 4, body, h)

    return n.sum(n.cond(n.sum(h * h) > 0, loop, lambda: h))


def structures(n: Any, w: Any, x: Any, h: Any) -> Any:
    def step(c: Any, given: Any) -> Any:
        new = {"h": n.tanh(n.matmul(c["h"], w) + given["x"]), "k": c["k"] + 1}
        return new, {"y": n.sum(new["h"]), "before": c["h"]}

    last, rows = n.scan(step, {"h": h, "k": n.number(np.int32(0))}, {"x": x, "unused": x})
    return n.sum(last["h"]) + n.sum(rows["y"] ** 2) + n.sum(rows["before"])


PROGRAMS: list[Callable[..., Any]] = [
    *(recurrence, scan_in_scan, branch_in_scan, scan_in_loop, loop_by_index, no_iterations),
    *(branch_in_loop_in_branch, structures),
]


def of_jax(program: Callable[..., Any]) -> list[Any]:
    def value(*inputs: Any) -> Any:
        return program(JAX, *inputs)

    first = jax.grad(value, argnums=(0, 1, 2))

    def of_first(*inputs: Any) -> Any:
        return sum(jnp.sum(jnp.sin(g)) for g in first(*inputs))

    second = jax.grad(of_first, argnums=(0, 1, 2))
    inputs = [jnp.asarray(x) for x in INPUTS]
    return [value(*inputs), *first(*inputs), *second(*inputs)]


def of_onnxtape(program: Callable[..., Any], *given: Any) -> list[Any]:
    inputs = [ot.convert_to_tensor(x) for x in given]
    with ot.GradientTape() as outer:
        outer.watch(inputs)
        with ot.GradientTape() as inner:
            inner.watch(inputs)
            value = program(OURS, *inputs)
        first = inner.gradient(value, inputs, unconnected_gradients="zero")
        of_first = sum(ot.ops.sum(ot.ops.sin(g)) for g in first)
    return [value, *first, *outer.gradient(of_first, inputs, unconnected_gradients="zero")]


def main() -> None:
    for program in PROGRAMS:
        expected = of_jax(program)

        def step(w: Any, x: Any, h: Any, program: Any = program) -> Any:
            return of_onnxtape(program, w, x, h)

        shapes = [(3, 3), (None, 2, 3), (2, 3)]
        signature = [ot.TensorSpec(shape, "float32") for shape in shapes]
        ways = {
            "eager": step,
            "compiled": ot.function(lambda w, x, h: step(w, x, h), fallback="error"),
            "any length": ot.function(
                lambda w, x, h: step(w, x, h), fallback="error", input_signature=signature
            ),
        }
        for way, function in ways.items():
            for i, (mine, theirs) in enumerate(zip(function(*INPUTS), expected, strict=True)):
                size = max(1.0, float(np.abs(theirs).max()))
                if not np.allclose(mine, theirs, rtol=1e-3, atol=1e-3 * size):
                    print(f"{program.__name__}, {way}: result {i} differs")
    print(f"{len(PROGRAMS)} programs compared")


if __name__ == "__main__":
    main()
