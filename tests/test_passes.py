"""Graph passes on random graphs: to the bit the values of the graph that went in, on NumPy, whatever the numbers; never more equations; nothing left
to do. Rules one by one: what each is for, and what it must not do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

import minidl as md
import minidl.control  # which puts its primitives into the table
import minidl.rewrites  # and this its rules
from minidl.backends import get
from minidl.context import Symbolic
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.passes import dead_code, simplify
from minidl.passes.rewriting import RULES, Rewriter
from minidl.primitives import table
from minidl.testing.wellformed import check

FLOATS = (md.float32, md.float64)
COMPLEX = (md.complex64, md.complex128)
DTYPES = (*FLOATS, *COMPLEX, md.float16, md.int8, md.int32, md.int64, md.uint8, md.bool)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.5, 1e30, -1e-30, math.inf, -math.inf, math.nan)
UNARY = "neg neg abs abs square square sign relu sqrt floor ceil round trunc exp tanh rsqrt isnan isfinite real imag conj bitwise_invert".split()
BINARY = "add add add sub sub mul mul mul div div maximum minimum eq ne lt ge remainder atan2 bitwise_and bitwise_or".split()
STEPS = (
    "unary binary binary with_number with_number logic where cast reshape permute broadcast slice pad concat constant reduce dot again loop".split()
)


class Maker:
    """A graph under construction, from what Hypothesis draws; an equation that its primitive's rule refuses is left out."""

    def __init__(self, draw: Any, inputs: list[Var], dtypes: Any = DTYPES, depth: int = 0):
        self.draw, self.dtypes, self.depth = draw, dtypes, depth
        self.inputs, self.values, self.equations = inputs, list(inputs), []

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def value(self, *dtypes: Any) -> Var:
        found = [v for v in self.values if not dtypes or v.dtype in dtypes][-8:]
        if found and self.draw(st.booleans()):
            return found[-1]  # most rules are about what was just made
        return self.pick(reversed(found)) if found else self.add("full", (), shape=(2,), value=1, dtype=dtypes[0])  # type: ignore[return-value]

    def literal(self, dtype: Any) -> Literal:
        if dtype is md.bool:
            return Literal(self.draw(st.booleans()), dtype)
        if dtype.is_integer:
            return Literal(self.pick((0, 1, 2, 5)), dtype)
        number = self.pick(NUMBERS)
        pool = (0.0, -0.0, 1.0, -1.0, 8.0, math.copysign(math.inf, number) if dtype is md.float16 and abs(number) > 7e4 else number)
        return Literal(complex(self.pick(pool), self.pick((0.0, 0.0, self.pick(pool)))) if dtype.is_complex else self.pick(pool), dtype)

    def add(self, name: str, inputs: tuple[Atom, ...], **params: Any) -> Var | None:
        primitive = table[name]
        try:
            found = primitive.infer(*inputs, **params)
        except (TypeError, ValueError, IndexError):
            return None
        outs = tuple(Var(tuple(s), d) for s, d in (found if primitive.multiple else (found,)))
        if any(math.prod(v.shape) > 2000 for v in outs):
            return None
        self.equations.append(Equation(primitive, inputs, params, outs))
        self.values += outs
        return outs[0]

    def step(self) -> None:
        getattr(self, self.pick(STEPS))()

    def unary(self) -> None:
        self.add(self.pick(UNARY), (self.value(),))

    def binary(self) -> None:
        x = self.value()
        self.add(self.pick(BINARY), (x, self.value(x.dtype)))

    def with_number(self) -> None:
        x = self.value()
        pair = (x, self.literal(x.dtype))
        self.add(self.pick(BINARY), self.pick((pair, pair[::-1])))

    def logic(self) -> None:
        x = self.value(md.bool)
        name = self.pick(("logical_and", "logical_or", "logical_not", "logical_not"))
        self.add(name, (x,) if name == "logical_not" else (x, self.pick((self.value(md.bool), self.literal(md.bool)))))

    def where(self) -> None:
        x = self.value()
        self.add("where", (self.value(md.bool), x, self.pick((x, self.value(x.dtype), self.literal(x.dtype)))))

    def cast(self) -> None:
        y = self.add("cast", (self.value(),), dtype=self.pick((*self.dtypes, self.pick(DTYPES))))
        if self.draw(st.booleans()):  # and back, or on
            self.add("cast", (y,), dtype=self.pick((*self.dtypes, self.pick(DTYPES))))  # type: ignore[arg-type]

    def reshape(self) -> None:
        x = self.value()
        s = x.shape
        self.add("reshape", (x,), shape=self.pick(((*s, 1), (1, *s), (math.prod(s),), s[::-1], tuple(n for n in s if n != 1), (1, 1, *s))))

    def permute(self) -> None:
        x = self.value()
        self.add("permute", (x,), axes=tuple(self.draw(st.permutations(range(len(x.shape))))))

    def broadcast(self) -> None:
        x = self.value()
        shape = tuple(self.pick((2, 3)) if n == 1 else n for n in x.shape)
        self.add("broadcast_to", (x,), shape=self.pick((shape, (2, *shape), (1, *x.shape))))

    def _window(self, shape: tuple[int, ...]) -> dict[str, Any]:
        pairs = [sorted((self.draw(st.integers(0, n)), self.draw(st.integers(0, n)))) for n in shape]
        pairs = [self.pick((p, [0, n])) for p, n in zip(pairs, shape, strict=True)]
        return {"start": tuple(a for a, _ in pairs), "stop": tuple(z for _, z in pairs), "step": tuple(self.pick((1, 1, 2)) for _ in pairs)}

    def slice(self) -> None:
        x = self.value()
        window = self._window(x.shape)
        y = self.add("slice", (x,), **window)
        if y is not None and self.draw(st.booleans()):
            self.add("slice", (self.add("unslice", (y,), shape=x.shape, **window),), **self.pick((window, self._window(x.shape))))

    def pad(self) -> None:
        x = self.value(*FLOATS, md.int32)
        self.add("pad", (x,), widths=tuple((self.pick((0, 0, 1)), self.pick((0, 2))) for _ in x.shape), value=self.pick((0, 1)))

    def concat(self) -> None:
        x = self.value()
        if not x.shape:
            return
        axis, parts = self.draw(st.integers(0, len(x.shape) - 1)), [x, self.value(x.dtype)]
        if self.draw(st.booleans()):  # cut in two, put together again
            n, parts = x.shape[axis], []
            cuts = (0, self.draw(st.integers(0, n)), n)
            spread = self.draw(st.booleans())  # as the gradients of the parts are: each in zeros, and added
            for a, z in itertools.pairwise(cuts):
                start = tuple(a if i == axis else 0 for i in range(len(x.shape)))
                stop = tuple(z if i == axis else s for i, s in enumerate(x.shape))
                window: dict[str, Any] = {"start": start, "stop": stop, "step": (1,) * len(start)}
                part = self.add("slice", (x,), **window)
                parts.append(self.add("unslice", (part,), shape=x.shape, **window) if spread else part)  # type: ignore[arg-type]
            if spread:
                self.add("add", tuple(self.pick((parts, parts[::-1]))))
                return
        self.add("concat", tuple(parts), axis=axis)

    def constant(self) -> None:
        dtype = self.pick(self.dtypes)
        self.add("full", (), shape=self.pick(((), (2,), (3, 2))), value=self.literal(dtype).value, dtype=dtype)

    def reduce(self) -> None:
        x = self.value()
        axes = [i for i in range(len(x.shape)) if self.draw(st.booleans())]
        sums = ("sum", "sum", "prod") if x.dtype in (*FLOATS, *COMPLEX, md.int64) else ()  # md.sum makes int64 of other integers first
        name = self.pick(("any", "all") if x.dtype is md.bool else (*sums, "max", "min"))
        y = self.add(name, (x,), axis=tuple(axes), keepdims=self.draw(st.booleans()))
        if y is not None and self.draw(st.booleans()):
            self.add("reshape", (y,), shape=tuple(1 if i in axes else n for i, n in enumerate(x.shape)))

    def dot(self) -> None:
        x = self.value(*FLOATS)
        y = self.value(x.dtype)
        pairs = [(i, k) for i, n in enumerate(x.shape) for k, m in enumerate(y.shape) if n == m]
        if pairs:
            i, k = self.pick(pairs)
            batch = [((), ()), *(((a,), (b,)) for a, b in pairs if a != i and b != k)][-1]
            self.add("dot_general", (x, y), contract=((i,), (k,)), batch=batch)

    def again(self) -> None:
        """An equation seen before: a common subexpression."""
        if self.equations:
            e = self.pick(self.equations)
            self.add(e.primitive.name, e.inputs, **e.params)

    def loop(self) -> None:
        if self.depth:
            return
        x, c = self.value(), self.value(*FLOATS)
        if self.draw(st.booleans()):
            index = self.add("full", (), shape=(), value=self.pick((0, 1)), dtype=md.int64)
            self.add("cond", (index, c, x), branches=tuple(self._body([c, x], 0) for _ in range(2)))  # type: ignore[arg-type]
        else:
            self.add("scan", (x, c), body=self._body([x, c], 1), length=2, n_consts=1, n_carry=1, reverse=False)

    def _body(self, like: list[Var], number: int) -> Graph:
        """A graph of values like these, whose result is like one of them."""
        inner = Maker(self.draw, [Var(v.shape, v.dtype) for v in like], self.dtypes, 1)
        for _ in range(self.draw(st.integers(0, 5))):
            inner.step()
        want = like[number]
        found = [v for v in inner.values if v.shape == want.shape and v.dtype is want.dtype]
        return Graph(inner.inputs, inner.equations, [found[-1]], "body")


@st.composite
def graphs(draw: Any) -> tuple[Graph, list[np.ndarray]]:
    """A graph and numbers for its inputs."""
    shapes = st.sampled_from(((2, 3), (3, 2, 2), (3, 1), (2, 3, 1), (2, 2), (1,), (3,), (), (0, 2)))
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))  # few in one graph, so that they meet
    inputs = [Var(draw(shapes), draw(st.sampled_from(dtypes))) for _ in range(draw(st.integers(1, 3)))]
    maker = Maker(draw, inputs, dtypes)
    for _ in range(draw(st.integers(1, 20))):
        maker.step()
    read = {a for e in maker.equations for a in e.inputs}
    unread = [v for v in maker.values if v not in read]  # most graphs have dead code too: half of these are not returned
    outputs = [v for v in unread if draw(st.booleans())] or unread[-1:]
    outputs += draw(st.lists(st.sampled_from(maker.values), max_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    return Graph(inputs, maker.equations, outputs), [_numbers(rng, v) for v in inputs]


def _numbers(rng: np.random.Generator, v: Var) -> np.ndarray:
    if not v.dtype.inexact:
        return rng.choice((0, 1, 2, 127), v.shape).astype(v.dtype.numpy)
    out = np.empty(v.shape, v.dtype.numpy)
    with np.errstate(over="ignore"):  # some are too large for float16
        for part in (out.real, out.imag) if v.dtype.is_complex else (out,):
            part[...] = rng.choice((*NUMBERS * 2, *(-0.0,) * 8), v.shape)
    return out


def run(graph: Graph, numbers: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(a) for a in get("numpy", "cpu").compile(graph)(*numbers)]


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    """To the bit, signs of zeros included; one nan is as good as another."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind == "c":
        return equal(a.real, b.real) and equal(a.imag, b.imag)
    if a.dtype.kind != "f":
        return bool((a == b).all())
    nan = np.isnan(a)
    return bool((nan == np.isnan(b)).all() and (a[~nan] == b[~nan]).all() and (np.signbit(a) == np.signbit(b))[~nan].all())


def agree(graph: Graph, other: Graph, numbers: list[np.ndarray]) -> bool:
    return all(equal(a, b) for a, b in zip(run(graph, numbers), run(other, numbers), strict=True))


def sound(graph: Graph, numbers: list[np.ndarray]) -> bool:
    """Whether simplification keeps a graph whole and its results the same."""
    try:
        check(done := simplify(graph))
    except (AssertionError, TypeError):
        return False
    return agree(graph, done, numbers)


@given(graphs())
def test_simplify_keeps_every_bit_and_leaves_nothing_to_do(drawn):
    graph, numbers = drawn
    check(graph)
    done = simplify(graph)
    check(done)
    assert agree(graph, done, numbers), f"{graph}\n{done}"
    assert len(done.equations) <= len(graph.equations), f"{graph}\n{done}"
    assert not Rewriter(done).applied, f"{done}\n{Rewriter(done).applied}"


@given(graphs())
def test_dead_code_keeps_every_bit(drawn):
    graph, numbers = drawn
    done = dead_code(graph)
    check(done)
    assert agree(graph, done, numbers)
    assert len(dead_code(done).equations) == len(done.equations) <= len(graph.equations)


def _plus_zero(b: Rewriter, e: Equation) -> Atom | None:
    """x + 0.0 is not x: it makes 0.0 of -0.0."""
    x, y = e.inputs
    return x if isinstance(y, Literal) and y.value == 0 and x.shape == e.outputs[0].shape else None


def _square_of_abs(b: Rewriter, e: Equation) -> Atom | None:
    """The square of |z| is not that of a complex z, and of another dtype."""
    before = b.source(e.inputs[0], "abs")
    return None if before is None else b.make(e, "square", before.inputs)


def _times_one(b: Rewriter, e: Equation) -> Atom | None:
    """z * 1 is not z, where z is complex and infinite."""
    x, y = e.inputs
    return x if isinstance(y, Literal) and y.value == 1 and x.shape == e.outputs[0].shape else None


def _cast_of_cast(b: Rewriter, e: Equation) -> Atom | None:
    """The cast in the middle matters where it loses something."""
    before = b.source(e.inputs[0], "cast")
    return None if before is None else b.make(e, "cast", before.inputs, **e.params)


def _uncast(b: Rewriter, e: Equation) -> Atom | None:
    """The cast of a bool is no bool: an equation that read it mixes dtypes now."""
    (x,) = e.inputs
    return x if x.dtype is md.bool else None


@pytest.mark.parametrize(("name", "rule"), [("add", _plus_zero), ("cast", _uncast)])
def test_random_graphs_find_a_wrong_rule(name, rule, monkeypatch):
    monkeypatch.setitem(RULES, name, [rule])
    quick = settings(max_examples=3000, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    graph, _ = find(graphs(), lambda drawn: not sound(*drawn), settings=quick)
    assert any(e.primitive.name == name for e in graph.walk())


def pairs(dtype: Any) -> Iterator[tuple[Graph, list[np.ndarray]]]:
    """Each function of each function of x, and each function of two operands, which are x, -x, |x|, y, -y and constants."""
    x, y = Var((3, 40), dtype), Var((3, 40), dtype)
    rng = np.random.default_rng(0)
    numbers = [_numbers(rng, x), _numbers(rng, y)]

    def graph(*steps: Any) -> Graph | None:
        equations, last = [], x
        for name, inputs, params in steps:
            inputs = tuple(last if a is None else a if isinstance(a, Symbolic) else equations[a].outputs[0] for a in inputs)
            joins = table[name].joins or range(len(inputs))
            if len({inputs[k].dtype for k in joins}) > 1 and table[name].promote != "none":
                return None
            try:
                shape, found = table[name].infer(*inputs, **params)
            except TypeError:
                return None
            last = Var(shape, found)
            equations.append(Equation(table[name], inputs, params, (last,)))
        return Graph([x, y], equations, [last])

    one = [(name, {}) for name in dict.fromkeys(UNARY)] + [("cast", {"dtype": to}) for to in DTYPES]
    programs = [graph((f, (None,), p), (g, (None,), q)) for f, p in one for g, q in one]
    if dtype is md.bool:
        literals = [Literal(b, dtype) for b in (False, True)]
    elif dtype.is_complex:
        literals = [Literal(complex(a, b), dtype) for a in (0.0, -0.0, 1.0, -1.0, 8.0) for b in (0.0, -0.0)]
    else:
        literals = [Literal(dtype.numpy.type(n).item(), dtype) for n in ((0.0, -0.0, 1.0, -1.0, 8.0, 3.0, math.nan) if dtype.is_float else (0, 1, 8))]
    for name in dict.fromkeys(BINARY):
        before = [("neg", (x,), {}), ("neg", (y,), {}), ("abs", (x,), {})]
        for k, f in itertools.product(range(3), before):
            programs += [graph(f, (name, operands, {})) for operands in ((None, y), (y, None), (None, None))[k : k + 1]]
        programs += [graph(*before[:2], (name, (0, 1), {})), graph((name, (x, x), {})), graph((name, (x, y), {}), before[0][:1] + ((None,), {}))]
        for c in literals:
            for operands in ((x, c), (c, x), (c, c)):
                programs += [graph((name, operands, {})), graph((name, operands, {}), ("neg", (None,), {}))]
            programs += [graph(before[0], (name, operands, {})) for operands in ((None, c), (c, None))]
    return ((g, numbers) for g in programs if g is not None)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_pairs_of_functions_keep_every_bit(dtype):
    wrong = [f"{graph}\n{simplify(graph)}" for graph, numbers in pairs(dtype) if Rewriter(graph).applied and not sound(graph, numbers)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "rule", "dtype"), [("square", _square_of_abs, md.complex64), ("mul", _times_one, md.complex128), ("cast", _cast_of_cast, md.float32)]
)
def test_pairs_find_a_wrong_rule(name, rule, dtype, monkeypatch):
    monkeypatch.setitem(RULES, name, [rule])
    assert not all(sound(*drawn) for drawn in pairs(dtype) if Rewriter(drawn[0]).applied[rule.__name__])


x = np.float32([[1.5, -0.0, np.nan], [np.inf, -2.0, 7.0]])
y, i = np.float32([[0.1, 0.2, -0.0], [3.0, np.inf, 1.0]]), np.int64([[1, 2, 3], [4, -5, 6]])
ns = md.tensors.ns


def windows(x, columns):
    """The gradient of what was split into columns: each of a function of its own, in zeros, and added."""
    total = None
    for k in columns:
        where = {"start": (0, k), "stop": (2, k + 1), "step": (1, 1)}
        part = ns.unslice(ns.slice(x, **where), shape=(2, 3), **where)
        total = part if total is None else ns.add(total, part)
    return total


@pytest.mark.parametrize(
    ("f", "names"),
    [  # what a program becomes: the primitives of its equations
        (lambda x, y, i: ns.add(x, 0.0), "add"),
        (lambda x, y, i: ns.add(x, -0.0), ""),
        (lambda x, y, i: ns.sub(x, 0.0), ""),
        (lambda x, y, i: ns.mul(x, 0.0), "mul"),
        (lambda x, y, i: ns.mul(i, 0), "full"),
        (lambda x, y, i: ns.add(x, ns.neg(y)), "sub"),
        (lambda x, y, i: ns.neg(ns.mul(x, 2.0)), "mul"),
        (lambda x, y, i: ns.neg(ns.sub(x, y)), "sub neg"),
        (lambda x, y, i: ns.div(x, 8.0), "mul"),
        (lambda x, y, i: ns.div(x, 10.0), "div"),
        (lambda x, y, i: ns.mul(x, x), "square"),
        (lambda x, y, i: (ns.mul(x, y), ns.mul(y, x)), "mul"),
        (lambda x, y, i: ns.logical_not(ns.lt(x, y)), "lt logical_not"),
        (lambda x, y, i: ns.where(ns.gt(x, y), x, x), ""),
        (lambda x, y, i: ns.where(ns.isnan(x), ns.where(ns.isnan(x), 0.0, x), y), "isnan where"),
        (lambda x, y, i: ns.cast(ns.cast(x, dtype=md.float64), dtype=md.float32), ""),
        (lambda x, y, i: ns.cast(ns.cast(i, dtype=md.float32), dtype=md.int64), "cast cast"),
        (lambda x, y, i: ns.dot_general(x, ns.permute(y, axes=(1, 0)), contract=((1,), (0,)), batch=((), ())), "dot_general"),
        (lambda x, y, i: ns.permute(ns.dot_general(x, y, contract=((), ()), batch=((0,), (0,))), axes=(0, 2, 1)), "dot_general"),
        (lambda x, y, i: ns.permute(ns.dot_general(x, y, contract=((), ()), batch=((), ())), axes=(2, 3, 0, 1)), "dot_general"),
        (lambda x, y, i: ns.permute(ns.dot_general(x, y, contract=((), ()), batch=((), ())), axes=(2, 3, 1, 0)), "dot_general permute"),
        (lambda x, y, i: ns.permute(ns.dot_general(x, y, contract=((1,), (1,)), batch=((), ())), axes=(1, 0)), "dot_general permute"),
        (
            lambda x, y, i: ns.permute(
                ns.dot_general(*(ns.reshape(a, shape=(2, 1, 3)) for a in (x, y)), contract=((1,), (1,)), batch=((0,), (0,))), axes=(0, 2, 1)
            ),
            "reshape reshape dot_general",
        ),
        (lambda x, y, i: ns.sum(ns.permute(x, axes=(1, 0)), axis=(1,), keepdims=False), "sum"),
        (lambda x, y, i: ns.permute(ns.exp(ns.permute(x, axes=(1, 0))), axes=(1, 0)), "exp"),
        (lambda x, y, i: ns.sum(ns.sum(x, axis=(0,), keepdims=False), axis=(0,), keepdims=False), "sum sum"),
        (lambda x, y, i: ns.sum(ns.full(shape=(100,), value=1, dtype=md.float32), axis=(0,), keepdims=False), ""),
        (lambda x, y, i: ns.sum(ns.full(shape=(100,), value=0.1, dtype=md.float32), axis=(0,), keepdims=False), "full sum"),
        (lambda x, y, i: ns.mul(x, ns.broadcast_to(ns.slice(y, start=(0, 0), stop=(1, 3), step=(1, 1)), shape=(2, 3))), "slice mul"),
        (lambda x, y, i: ns.concat(*(ns.slice(x, start=(0, a), stop=(2, a + 1), step=(1, 1)) for a in range(3)), axis=1), ""),
        (lambda x, y, i: windows(ns.exp(x), (2, 1, 0)), "exp add"),
        (lambda x, y, i: windows(ns.mul(i, i), (0, 1, 2)), "square"),
        (lambda x, y, i: windows(ns.exp(x), (0, 1)), "exp slice add unslice"),
        (lambda x, y, i: windows(ns.exp(x), (0, 2)), "exp slice unslice slice unslice add"),
        (lambda x, y, i: ns.reshape(ns.max(x, axis=(1,), keepdims=False), shape=(2, 1)), "max"),
        (lambda x, y, i: ns.reshape(ns.max(x, axis=(1,), keepdims=True), shape=(2,)), "max"),
        (lambda x, y, i: ns.reshape(ns.max(x, axis=(1,), keepdims=False), shape=(1, 2)), "max reshape"),
        (lambda x, y, i: ns.reshape(ns.argmax(i, axis=1, keepdims=True), shape=(2,)), "argmax"),
    ],
)
def test_what_a_program_becomes(f, names, on_numpy):
    arguments = [md.tensor(a) for a in (x, y, i)]
    graph = md.trace(f)(*arguments)
    assert [e.primitive.name for e in graph.equations] == names.split(), graph
    got, want = md.jit(f)(*arguments), f(*arguments)
    for a, b in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True):
        assert equal(a.numpy(), b.numpy())


def test_the_gradient_of_a_split_is_put_together_without_arrays_of_zeros(on_numpy):
    def f(x):
        a, b, c = (x[:, k] for k in range(3))
        return (md.sin(a) * md.exp(b) + c * c).sum()

    numbers = md.tensor(np.float32([[0.5, -1.0, -0.0], [2.0, 0.25, 3.0]]))
    names = [e.primitive.name for e in md.trace(md.grad(f))(numbers).equations]
    assert "unslice" not in names and names.count("concat") == 1, names
    got, want = md.jit(md.grad(f))(numbers).numpy(), md.grad(f)(numbers).numpy()
    assert equal(got, want) and not np.signbit(got[0, 2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_wider_constant_is_the_number_that_the_narrow_one_held(dtype):
    f = lambda x: md.asarray(0.1, dtype).to("float64") + x
    x = md.asarray([0.0, 1.0], "float64")
    assert md.jit(f)(x).tolist() == f(x).tolist()


def test_windows_of_arrays_of_two_shapes_are_not_joined():
    """Their sum broadcasts."""

    def f(x, y):
        part = {"start": (0,), "step": (1,)}
        return ns.add(ns.unslice(ns.slice(x, stop=(0,), **part), shape=(1,), stop=(0,), **part), ns.unslice(y, shape=(4,), stop=(2,), **part))

    arguments = md.tensor([5.0]), md.tensor([1.0, 2.0])
    assert md.jit(f)(*arguments).tolist() == f(*arguments).tolist() == [1.0, 2.0, 0.0, 0.0]

    def g(x, y):
        first = ns.unslice(x, shape=(4,), start=(0,), stop=(2,), step=(1,))
        return ns.add(first, ns.unslice(y, shape=(1, 4), start=(0, 2), stop=(1, 4), step=(1, 1)))

    arguments = md.tensor([5.0, 6.0]), md.tensor([[1.0, 2.0]])
    assert md.jit(g)(*arguments).tolist() == g(*arguments).tolist() == [[5.0, 6.0, 1.0, 2.0]]
