"""Whatever moves, joins, cuts or adds up elements, after whatever else does: simplification keeps every bit, for each choice of their params.

Random graphs (tests/test_passes.py) meet each pair with some params; a guard of a rule is about the others. So the pairs are all of them here: a
thousand small programs, of which those that a rule changes are run.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_passes import sound

import minidl as md
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes.rewriting import Rewriter
from minidl.primitives import table

Step = tuple[str, dict[str, Any]]


def cuts(n: int) -> list[tuple[int, int, int]]:
    """(start, stop, step) of one axis."""
    return list(dict.fromkeys([(0, n, 1), (min(1, n), n, 1), (0, max(n - 1, 0), 1), (0, n, 2), (min(1, n), min(2, n), 1), (0, 0, 1)]))


def _at(axis: int, v: int, rest: tuple[int, ...]) -> tuple[int, ...]:
    return (*rest[:axis], v, *rest[axis + 1 :])


def moves(shape: tuple[int, ...]) -> Iterator[Step]:
    """Primitives of one operand of this shape, with params."""
    rank, axes = len(shape), range(len(shape))
    size = int(np.prod(shape))
    for to in {(size,), (1, *shape), (*shape, 1), shape[::-1], (*shape[:-2], int(np.prod(shape[-2:]))), tuple(s for s in shape if s != 1)}:
        yield "reshape", {"shape": to}
    for order in itertools.permutations(axes):
        yield "permute", {"axes": order}
    for some in itertools.chain.from_iterable(itertools.combinations(axes, k) for k in range(1, rank + 1)):
        yield "flip", {"axes": some}
        for name in ("sum", "max"):
            for keep in (False, True):
                yield name, {"axis": some, "keepdims": keep}
    for a in axes:
        yield from (("argmax", {"axis": a, "keepdims": keep}) for keep in (False, True))
        for start, stop, step in cuts(shape[a]):
            at = functools.partial(_at, a)
            window = {"start": at(start, (0,) * rank), "step": at(step, (1,) * rank)}
            yield "slice", {**window, "stop": at(stop, shape)}
        for start, step, more in ((0, 1, 1), (1, 1, 0), (0, 2, 0), (2, 1, 2)):
            wide = start + step * max(shape[a] - 1, 0) + 1 + more
            last = start + step * max(shape[a] - 1, 0) + 1 if shape[a] else start
            window = {"start": at(start, (0,) * rank), "step": at(step, (1,) * rank), "stop": at(last, shape)}
            yield "unslice", {**window, "shape": at(wide, shape)}
        for low, high in ((1, 0), (0, 2), (1, 1)):
            for value in (0.0, 1.5):
                yield "pad", {"widths": tuple((low, high) if i == a else (0, 0) for i in axes), "value": value}
        for form in ("x y", "y x", "x x", "x y x", "parts", "turned", "empty", "windows"):
            yield "concat", {"axis": a, "form": form}
    for to in ((2, *shape), tuple(2 if s == 1 else s for s in shape)):
        if to != shape:
            yield "broadcast_to", {"shape": to}
    if rank >= 2:
        ones = (1,) * rank
        yield "slice", {"start": tuple(min(1, n) for n in shape), "stop": shape, "step": ones}
        yield "slice", {"start": (0,) * rank, "stop": tuple(max(n - 1, 0) for n in shape), "step": ones}
        for name, k in itertools.product(("tril", "triu"), (-1, 0, 1)):
            yield name, {"k": k}
    yield from (("neg", {}), ("add y", {}), ("add x", {}), ("mul 2", {}), ("where", {}))
    if rank == 2:
        yield from (("dot x yT", {}), ("dot xT y", {}), ("outer", {}))


class Program:
    """x and y of one shape; a chain of moves of x, in which y takes the same ones where it still fits."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.x, self.y, self.dtype = Var(shape, dtype), Var(shape, dtype), dtype
        self.equations: list[Equation] = []

    def make(self, name: str, inputs: tuple[Atom, ...], **params: Any) -> Var:
        out = Var(*table[name].infer(*inputs, **params))
        self.equations.append(Equation(table[name], inputs, params, (out,)))
        return out

    def take(self, v: Var, step: Step, other: Var) -> Var:
        name, params = step
        if name == "concat":
            a, form = params["axis"], params["form"]
            whole = {"step": (1,) * len(v.shape)}
            zero, end = [0] * len(v.shape), list(v.shape)
            mid, half = zero[:], end[:]
            mid[a] = half[a] = v.shape[a] // 2
            first = lambda: self.make("slice", (v,), start=tuple(zero), stop=tuple(half), **whole)
            second = lambda: self.make("slice", (v,), start=tuple(mid), stop=tuple(end), **whole)
            half_none = half[:a] + [0] + half[a + 1 :]
            b = (a + 1) % len(v.shape)
            left, right = half[:], mid[:]
            left[b], right[b] = max(half[b] - 1, 0), min(1, end[b])
            windows = lambda: (
                self.make("slice", (v,), start=tuple(zero), stop=tuple(left), **whole),
                self.make("slice", (v,), start=tuple(right), stop=tuple(end), **whole),
            )
            none = lambda: self.make("slice", (v,), start=tuple(zero), stop=tuple(half_none), **whole)
            parts = {
                "x y": lambda: (v, other), "y x": lambda: (other, v), "x x": lambda: (v, v), "x y x": lambda: (v, other, v),
                "parts": lambda: (first(), second()), "turned": lambda: (second(), first()), "empty": lambda: (none(), v),
                "windows": windows,
            }[form]()  # fmt: skip
            return self.make("concat", parts, axis=a)
        if name in ("add y", "add x", "mul 2"):
            return self.make(name.split()[0], (v, {"add y": other, "add x": v}.get(name, Literal(2, self.dtype))))
        if name == "where":
            return self.make("where", (self.make("gt", (v, other)), v, Literal(0, self.dtype)))
        if name == "dot x yT":
            return self.make("dot_general", (v, other), contract=((1,), (1,)), batch=((), ()))
        if name == "dot xT y":
            return self.make("dot_general", (v, other), contract=((0,), (0,)), batch=((), ()))
        if name == "outer":
            return self.make("dot_general", (v, other), contract=((), ()), batch=((0,), (0,)))
        return self.make(name, (v,), **params)


def programs(shape: tuple[int, ...], dtype: Any) -> Iterator[Graph]:
    """Each move of each move; in the second one y has taken the first, too, so that both operands can be rearranged."""
    for first in moves(shape):
        start = Program(shape, dtype)
        try:
            v = start.take(start.x, first, start.y)
        except (TypeError, ValueError):
            continue
        for second in moves(tuple(v.shape)):
            program = Program(shape, dtype)
            try:
                v = program.take(program.x, first, program.y)
                several = second[0] in ("add y", "where") or second[0].startswith("dot") or second[0] == "outer" or "y" in second[1].get("form", "")
                other = program.take(program.y, first, program.x) if several else v
                out = program.take(v, second, other)
            except (TypeError, ValueError):
                continue
            yield Graph([program.x, program.y], program.equations, [out])


def numbers(shape: tuple[int, ...], dtype: Any) -> list[np.ndarray]:
    n = int(np.prod(shape))
    values = [np.arange(1, n + 1).reshape(shape), -np.arange(1, n + 1)[::-1].reshape(shape) * 3]
    values = [v.astype(dtype.numpy) for v in values]
    if dtype.is_float and n:
        values[0].flat[n // 2], values[1].flat[-1] = -0.0, np.nan
    return values


CASES = [((2, 3), md.float32), ((2, 2), md.int32), ((1, 4), md.float32), ((2, 1, 3), md.int8), ((3,), md.float64)]


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_pairs_of_moves_keep_every_bit(shape, dtype):
    values, seen, wrong = numbers(shape, dtype), 0, []
    for graph in programs(shape, dtype):
        if Rewriter(graph).applied:
            seen += 1
            if not sound(graph, values):
                wrong.append(str(graph))
    assert seen > 100 and not wrong, "\n".join(wrong[:20])


REAL = [getattr(md, name) for name in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64".split()]


def extremes(dtype: Any) -> np.ndarray:
    """Numbers of a dtype: its ends, those beside powers of two, and fractions."""
    if dtype is md.bool:
        return np.array([False, True])
    with np.errstate(all="ignore"):
        powers = [s * 2.0**k for k in range(-30, 128, 3) for s in (1, -1)]
        found = [np.array(powers), np.array([0.0, 0.5, 1.5, np.inf, -np.inf])] if dtype.is_float else []
        if dtype.is_integer:
            info = np.iinfo(dtype.numpy)
            found = [[v for k in range(64) for v in (2**k - 1, 2**k + 1, 1 - 2**k) if info.min <= v <= info.max], [info.min, info.max]]
            return np.array([v for part in found for v in part], dtype.numpy)
        values = np.concatenate(found).astype(dtype.numpy)
        last = np.array([1.0], dtype.numpy)  # the neighbours of 1, and their multiples
        ulp = 2.0 ** -{"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype.name]
        return np.concatenate([values, last, (np.array([1.0]) + ulp).astype(dtype.numpy), (np.array([1.0]) + ulp).astype(dtype.numpy) * values])


@pytest.mark.parametrize("dtype", REAL, ids=lambda d: d.name)
def test_casts_of_casts_keep_every_bit(dtype):
    """By way of every dtype to every other one."""
    x, wrong, seen = Var((len(extremes(dtype)),), dtype), [], 0
    for middle, last in itertools.product(REAL, repeat=2):
        between, out = Var(x.shape, middle), Var(x.shape, last)
        steps = [Equation(table["cast"], (x,), {"dtype": middle}, (between,)), Equation(table["cast"], (between,), {"dtype": last}, (out,))]
        graph = Graph([x], steps, [out])
        if Rewriter(graph).applied:
            seen += 1
            if not sound(graph, [extremes(dtype)]):
                wrong.append(f"{dtype} {middle} {last}")
    assert seen > 12 and not wrong, wrong
