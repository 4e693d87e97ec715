"""Graphs with If, Loop and Scan, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tests.compiler.graphs import Array, spread


@dataclass(frozen=True)
class Program:
    """A graph with one floating-point output or several.

    Attributes:
        text: the graph in ONNX's text format.
        feeds: its inputs; those of floating point are differentiated.
        symbols: further feeds, of other sizes, for graphs with symbolic dimensions.
    """

    text: str
    feeds: Mapping[str, Array]
    others: Sequence[Mapping[str, Array]] = ()


def graph_of(program: Program) -> ir.Graph:
    text = '<ir_version: 10, opset_import: ["" : 21]>\n' + program.text
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    model = onnx.shape_inference.infer_shapes(model)
    return ir.from_proto(model).graph


def scalar(value: Any, dtype: Any = np.float64) -> Array:
    return np.asarray(value, dtype)


PROGRAMS = {
    "if": Program(
        """g (bool c, double[n] x, double[n] y) => (double[n] z) {
            z = If (c) <
                then_branch = t () => (double[n] a) { e = Exp(x)  a = Mul(e, y) },
                else_branch = f () => (double[n] b) { b = Mul(x, x) }
            >
        }""",
        {"c": scalar(True, bool), "x": spread([3]), "y": spread([3], seed=1)},
        [
            {"c": scalar(False, bool), "x": spread([3]), "y": spread([3], seed=1)},
            {"c": scalar(True, bool), "x": spread([2]), "y": spread([2], seed=1)},
        ],
    ),
    "loop": Program(
        """g (int64 m, double[n] s, double[n] w) => (double[n] last, double[k,n] all) {
            last, all = Loop (m, , s) <
                body = b (int64 i, bool c, double[n] h) => (bool go, double[n] h2, double[n] y) {
                    go = Identity(c)
                    d = Cast <to = 11> (i)
                    p = Mul(h, w)
                    q = Add(p, d)
                    h2 = Tanh(q)
                    y = Mul(h2, h)
                }
            >
        }""",
        {"m": scalar(3, np.int64), "s": spread([2]), "w": spread([2], seed=1)},
        [
            {"m": scalar(0, np.int64), "s": spread([2]), "w": spread([2], seed=1)},
            {"m": scalar(5, np.int64), "s": spread([3]), "w": spread([3], seed=1)},
        ],
    ),
    "while": Program(
        # Doubles until the sum of squares exceeds a limit; the condition is computed in the body.
        """g (double[n] s, double[n] w, double limit) => (double[n] last) {
            yes = Constant <value = bool {1}> ()
            none = Constant <value_ints = [0]> ()
            start = Constant <value = int64 {0}> ()
            last, count = Loop ( , yes, s, start) <
                body = b (int64 i, bool c, double[n] h, int64 k)
                    => (bool go, double[n] h2, int64 k2) {
                    one = Constant <value = int64 {1}> ()
                    k2 = Add(k, one)
                    kf = Cast <to = 11> (k)
                    t = Mul(h, w)
                    u = Mul(t, kf)
                    h2 = Add(h, u)
                    sq = Mul(h2, h2)
                    total = ReduceSum <keepdims = 0> (sq, none)
                    go = Less(total, limit)
                }
            >
        }""",
        {"s": spread([2]), "w": spread([2], 0.5, 0.9, seed=1), "limit": scalar(90.0)},
        [{"s": spread([4]), "w": spread([4], 0.5, 0.9, seed=1), "limit": scalar(0.0)}],
    ),
    "scan": Program(
        # Two scan inputs, one backwards along axis 1; two scan outputs, one prepended along axis 1.
        """g (double[n] s, double[k,n] x, double[n,k] y, double[n] w)
            => (double[n] last, double[k,n] a, double[n,k] c) {
            last, a, c = Scan <
                num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
                scan_output_axes = [0, -1], scan_output_directions = [0, 1],
                body = b (double[n] h, double[n] xi, double[n] yi)
                    => (double[n] h2, double[n] ai, double[n] ci) {
                    p = Mul(h, xi)
                    q = Add(p, w)
                    h2 = Tanh(q)
                    ai = Mul(h2, yi)
                    r = Mul(yi, w)
                    ci = Mul(r, h)
                }
            > (s, x, y)
        }""",
        {
            "s": spread([2]),
            "x": spread([3, 2], seed=1),
            "y": spread([2, 3], seed=2),
            "w": spread([2], seed=3),
        },
        [
            {
                "s": spread([3]),
                "x": spread([1, 3], seed=1),
                "y": spread([3, 1], seed=2),
                "w": spread([3], seed=3),
            }
        ],
    ),
    "linear scan": Program(
        # Its backward pass needs nothing of the forward one but the number of iterations.
        """g (double[2] s, double[k,2] x) => (double[2] last) {
            last = Scan <num_scan_inputs = 1,
                body = b (double[2] h, double[2] xi) => (double[2] h2) { h2 = Sub(xi, h) }
            > (s, x)
        }""",
        {"s": spread([2]), "x": spread([4, 2], seed=1)},
    ),
    "exchange": Program(
        # States that change places, one scan output that is a scan input, one used twice.
        """g (double[n] s, double[n] t, double[k,n] x)
            => (double[n] a, double[n] b, double[k,n] c, double[k,n] d) {
            a, b, c, d = Scan <num_scan_inputs = 1,
                body = body (double[n] p, double[n] q, double[n] xi)
                    => (double[n] q2, double[n] r, double[n] x2, double[n] r2) {
                    q2 = Identity(q)
                    r = Mul(p, xi)
                    x2 = Identity(xi)
                    r2 = Identity(r)
                }
            > (s, t, x)
        }""",
        {"s": spread([2]), "t": spread([2], seed=1), "x": spread([3, 2], seed=2)},
    ),
    "nested": Program(
        # An If in a Loop in a Scan; each uses values of all the graphs around it.
        """g (double[n] s, double[k,n] x, double[n] w) => (double[n] last, double[k,n] all) {
            three = Constant <value = int64 {3}> ()
            two = Constant <value = int64 {2}> ()
            zero = Constant <value = int64 {0}> ()
            last, all = Scan <num_scan_inputs = 1,
                body = b (double[n] h, double[n] xi) => (double[n] h2, double[n] out) {
                    h2 = Loop (three, , h) <
                        body = lb (int64 i, bool c, double[n] u) => (bool go, double[n] u2) {
                            go = Identity(c)
                            odd = Mod(i, two)
                            even = Equal(odd, zero)
                            u2 = If (even) <
                                then_branch = t () => (double[n] ta) {
                                    tp = Mul(u, xi)
                                    tq = Add(tp, w)
                                    ta = Sin(tq)
                                },
                                else_branch = f () => (double[n] fa) {
                                    fp = Mul(u, w)
                                    fa = Mul(fp, h)
                                }
                            >
                        }
                    >
                    out = Mul(h2, w)
                }
            > (s, x)
        }""",
        {"s": spread([2]), "x": spread([2, 2], seed=1), "w": spread([2], seed=2)},
        [{"s": spread([3]), "x": spread([1, 3], seed=1), "w": spread([3], seed=2)}],
    ),
    "rows": Program(
        # Broadcasting between symbols, a product with a captured matrix, an unused state.
        """g (double[b,n] s, double[k,b,m] x, double[n,n] w, double[m,n] v, double[n] bias)
            => (double[b,n] last) {
            zero = Constant <value = int64 {0}> ()
            last, count = Scan <num_scan_inputs = 1,
                body = b (double[b,n] h, int64 j, double[b,m] xi) => (double[b,n] h2, int64 j2) {
                    one = Constant <value = int64 {1}> ()
                    j2 = Add(j, one)
                    p = MatMul(h, w)
                    q = MatMul(xi, v)
                    r = Add(p, q)
                    t = Add(r, bias)
                    h2 = Tanh(t)
                }
            > (s, zero, x)
        }""",
        {
            "s": spread([2, 3]),
            "x": spread([3, 2, 2], seed=1),
            "w": spread([3, 3], -0.6, 0.7, seed=2),
            "v": spread([2, 3], seed=3),
            "bias": spread([3], seed=4),
        },
    ),
    # A Scan's results are as long along the axis that they are put together along, and no other.
    "scan axes": Program(
        """g (double[2,n,3] x, double[3,3] w, double[2,3] s) => (double[2,n,3] z) {
            f = MatMul(x, w)
            last, y = Scan <
                num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = b (double[2,3] h, double[2,3] a) => (double[2,3] h2, double[2,3] o) {
                    p = Mul(h, a)
                    h2 = Tanh(p)
                    o = Add(h2, h)
                }
            > (s, f)
            z = MatMul(y, w)
        }""",
        {"x": spread([2, 3, 3]), "w": spread([3, 3], seed=1), "s": spread([2, 3], seed=2)},
        [{"x": spread([2, 1, 3]), "w": spread([3, 3], seed=1), "s": spread([2, 3], seed=2)}],
    ),
    "growing": Program(
        """g (int64 m, double[1,n] s, double[n] w) => (double[k,n] last, double[n] other) {
            first = Constant <value_ints = [0]> ()
            z = ReduceSum <keepdims = 0> (s, first)
            last, other = Loop (m, , s, z) <
                body = b (int64 i, bool c, double[a,n] h, double[n] r)
                    => (bool go, double[b,n] h2, double[n] r2) {
                    go = Identity(c)
                    p = Mul(h, w)
                    e = Sin(p)
                    t = ReduceMean <keepdims = 0> (e, first)
                    r2 = Mul(t, r)
                    u = Unsqueeze(r2, first)
                    h2 = Concat <axis = 0> (e, u)
                }
            >
        }""",
        {"m": scalar(3, np.int64), "s": spread([1, 2]), "w": spread([2], seed=1)},
        [
            {"m": scalar(0, np.int64), "s": spread([1, 2]), "w": spread([2], seed=1)},
            {"m": scalar(2, np.int64), "s": spread([1, 3]), "w": spread([3], seed=1)},
        ],
    ),
}
