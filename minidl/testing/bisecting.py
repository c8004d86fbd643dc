"""md.bisect: the first operation at which two engines give different numbers for one function, its gradient or its derivative.

Operation by operation, both engines compute from the same inputs, so that only what an operation itself adds can count; loops, branches and
functions with rules of their own are entered. A compiled program has no operations to look at: there the first part of the program is sought whose
results are wrong although those of the part before are right. Distances are conditioned ulps (see minidl.testing.checks), so an operation that
only makes earlier rounding larger is not blamed.

Source: the method of A. Zeller, Yesterday, my program worked. Today, it does not. Why? (ESEC/FSE 1999), with the program's equations as its changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl import DType, Graph, Tensor, autograd, jvp, ones_like, trace, tree
from minidl.data.bars import bar
from minidl.extend import Backend, describe, from_numpy, get_backend
from minidl.testing.checks import BUDGET, EXACT, conditioning, to_array, ulps

Array = np.ndarray
_WRT = ("value", "grad", "jvp")


@dataclasses.dataclass
class Fault:
    """One place where two engines part.

    operation, kinds: its primitive and the types of its operands; where: the user's line, if known; path: the loops and branches around it; number:
    which of the program's equations it is, counted from 1; ulp: how far the results are apart, in conditioned ulps; off: each engine's distance from
    NumPy in float64, where that can be told; worst: index of the element that is furthest off, its operands, and what each engine gives; script: a
    Python program that shows the difference alone, "" where the operation takes whole programs.

    >>> md.testing.Fault("tanh", "f32[3]", "model.py:12", (), 4, 75.9).operation
    'tanh'
    """

    operation: str
    kinds: str
    where: str
    path: tuple[str, ...]
    number: int
    ulp: float
    off: tuple[float, float] | None = None
    worst: tuple[Any, ...] = ()
    script: str = ""


@dataclasses.dataclass
class Comparison:
    """What md.bisect found; print it. fault: the first place, None where there is none; outputs: conditioned ulps between the results, by label.

    >>> found = md.bisect(md.sin, md.ones(3), between=("numpy", "numpy jit"))
    >>> found.fault is None, found.outputs
    (True, {'result 0': 0.0})
    """

    title: str
    engines: tuple[str, str]
    equations: int
    outputs: dict[str, float]
    budget: float
    fault: Fault | None = None

    def __str__(self) -> str:
        a, b = self.engines
        head = f"{self.title} on {a} and {b}: {self.equations} equation{'s' * (self.equations != 1)}"
        far = [f"  {label}: {_number(d)} conditioned ulps apart" for label, d in self.outputs.items()]
        f = self.fault
        if f is None:
            agree = all(d <= self.budget for d in self.outputs.values())
            said = "they agree" if agree else "each operation agrees, and small differences grow on the way: the program is ill-conditioned"
            return "\n".join([f"{head}; {said} ({self.budget:g} ulps are allowed)", *far])
        place = f", {f.where}" if f.where else ""
        lines = [f"{head}; they part at number {f.number}{place}", f"  {f.operation}({f.kinds})" + "".join(f" in {p}" for p in f.path)]
        lines.append(f"  {_number(f.ulp)} conditioned ulps apart, {self.budget:g} are allowed")
        if f.off:
            lines.append(f"  from NumPy in float64: {a} {_number(f.off[0])}, {b} {_number(f.off[1])}")
        if f.worst:
            index, operands, left, right = f.worst
            came = f" of ({', '.join(map(str, operands))})" if operands else ""
            lines.append(f"  worst element {list(index)}{came}: {a} {left}, {b} {right}")
        lines += ["the results:", *far]
        return "\n".join([*lines, "alone:", *("    " + line for line in f.script.splitlines())] if f.script else lines)


def _number(d: float) -> str:
    return f"{d:.3g}"


class _Engine:
    """A backend, and how it runs a graph: operation by operation, or compiled by its first choice or another mode."""

    def __init__(self, name: str):
        parts = name.split()
        if not 1 <= len(parts) <= 2:
            raise ValueError(f"bisect: expected an engine such as 'torch', 'torch jit' or 'torch inductor', got {name!r}")
        self.name, self.xp = name, get_backend(parts[0])
        self.compiled = len(parts) == 2
        self.mode = parts[1] if self.compiled and parts[1] != "jit" else None
        if self.mode and self.mode not in self.xp.modes:
            raise ValueError(f"bisect: the {parts[0]} backend has no mode {self.mode!r}, only {', '.join(('jit', *self.xp.modes))}")

    def natives(self, arrays: Sequence[Array]) -> list[Any]:
        return [t.payload for t in (from_numpy(np.array(a), self.xp) for a in arrays)]

    def run(self, graph: Graph, arrays: Sequence[Array]) -> list[Array]:
        """The outputs of a graph as NumPy arrays."""
        program = self.xp.compile(graph, mode=self.mode) if self.compiled else Backend.callable(self.xp, graph)
        natives = self.natives(arrays)
        with self.xp.scope():
            return [np.array(self.xp.to_numpy(v)) for v in program(*natives)]


def bisect(
    f: Callable[..., Any], *args: Any, between: tuple[str, str] = ("numpy", "torch"), wrt: str = "value", budget: float = BUDGET, **kwargs: Any
) -> Comparison:
    """Find the first operation of `f(*args, **kwargs)` whose results differ between two engines; returns a Comparison, which prints as a report.

    between: two of "numpy", "numba", "torch", "jax" or another backend's name, which is then run operation by operation (numba's operations are
    NumPy's), or with the way it compiles a whole program behind it: "numba jit", "torch inductor". wrt: "value" compares what f returns; "grad" the
    gradients, with respect to every floating or complex argument and every tensor that requires grad, of the sum of all results; "jvp" the
    derivative along ones. budget: conditioned ulps (see md.testing.ulps) that are no difference. Nothing is changed: f is traced, not run.
    Raises ValueError for unknown engines and a wrt that is none of these, TypeError for what is no function.

    >>> print(md.bisect(lambda x: md.tanh(x).sum(), md.ones(3), between=("numpy", "numpy jit"), wrt="grad"))  # doctest: +ELLIPSIS
    gradient of <lambda> on numpy and numpy jit: ... equations; they agree (8 ulps are allowed)
      argument 0: 0 conditioned ulps apart
    """
    if not callable(f):
        raise TypeError(f"bisect: expected a function, got {type(f).__name__}; write md.bisect(f, x, between=...), not md.bisect(f(x), ...)")
    if wrt not in _WRT:
        raise ValueError(f"bisect: wrt is one of {', '.join(_WRT)}, got {wrt!r}")
    if isinstance(between, str) or len(between) != 2:
        raise ValueError(f"bisect: between names two engines, such as ('numpy', 'torch jit'), got {between!r}")
    a, b = (_Engine(name) for name in between)
    graph, arrays, labels = _traced(f, args, kwargs, wrt)
    title = {"value": "", "grad": "gradient of ", "jvp": "jvp of "}[wrt] + getattr(f, "__name__", type(f).__name__)
    left, right = a.run(graph, arrays), b.run(graph, arrays)
    scales = conditioning(graph, _wide(arrays))
    apart = [ulps(y, x, s, x.dtype) for x, y, s in zip(left, right, scales, strict=True)]
    report = Comparison(title, (a.name, b.name), len(graph.equations), dict(zip(labels, apart, strict=True)), budget)
    if a.compiled or b.compiled:
        if max(apart, default=0.0) > budget:
            report.fault = _prefix(graph, arrays, a, b, budget)
    else:
        report.fault = _walk(graph, arrays, a, b, budget, ())[0]
    return report


def _traced(f: Callable[..., Any], args: tuple, kwargs: dict[str, Any], wrt: str) -> tuple[Graph, list[Array], list[str]]:
    """The graph of what is compared, the values of its inputs, and what each output is."""

    def outputs(*a: Any, **k: Any) -> list[Tensor]:
        return [o for o in tree.leaves(f(*a, **k)) if isinstance(o, Tensor)]

    leaves, structure = tree.flatten((args, kwargs))
    moving = [i for i, v in enumerate(leaves) if isinstance(v, Tensor) and v.dtype.name in _SMOOTH]
    labels: list[str] = []
    outside = [t for t in trace(outputs)(*args, **kwargs).captured if isinstance(t, Tensor) and t.requires_grad]

    def gradients(*a: Any, **k: Any) -> list[Tensor]:
        nonlocal labels
        inside = tree.flatten((a, k))[0]
        for i in moving:
            inside[i] = inside[i].detach().requires_grad_()
        again, named = tree.unflatten(structure, inside)
        outs = [o for o in outputs(*again, **named) if o.requires_grad]
        wanted = [*(inside[i] for i in moving), *outside]
        names = [*(f"argument {i}" for i in moving), *(f"{describe(t)} from outside, number {i}" for i, t in enumerate(outside))]
        seeds = [ones_like(o.detach()) for o in outs]
        found = autograd.grad(outs, wanted, seeds, allow_unused=True) if outs and wanted else [None] * len(wanted)
        labels = [n for n, g in zip(names, found, strict=True) if g is not None]
        return [g for g in found if g is not None]

    def tangents(*a: Any, **k: Any) -> list[Tensor]:
        inside = tree.flatten((a, k))[0]

        def smooth(*xs: Tensor) -> tuple[Tensor, ...]:
            values = list(inside)
            for i, x in zip(moving, xs, strict=True):
                values[i] = x
            again, named = tree.unflatten(structure, values)
            return tuple(outputs(*again, **named))

        xs = tuple(inside[i] for i in moving)
        return list(jvp(smooth, xs, tuple(ones_like(x.detach()) for x in xs))[1]) if xs else []

    target = {"value": outputs, "grad": gradients, "jvp": tangents}[wrt]
    graph = trace(target)(*args, **kwargs)
    values = [v for v in leaves if isinstance(v, Tensor)]
    unique = list({id(v): v for v in values}.values())
    arrays = [to_array(v.detach()) if isinstance(v, Tensor) else np.asarray(v) for v in (*unique, *graph.captured)]
    if wrt != "grad":
        labels = [f"{'result' if wrt == 'value' else 'derivative'} {i}" for i in range(len(graph.outputs))]
    return graph, arrays, labels


_SMOOTH = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


def _wide(arrays: Sequence[Array]) -> list[Array]:
    """In float64 or complex128, what is floating or complex."""
    return [a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) if a.dtype.kind in "fcV" else a for a in map(np.asarray, arrays)]


# ---- operation by operation -------------------------------------------------------------------------------------------------------------
def _walk(graph: Graph, arrays: Sequence[Array], a: _Engine, b: _Engine, budget: float, path: tuple[str, ...]) -> tuple[Fault | None, list[Array]]:
    """The first fault of a graph at these inputs, or what the first engine gives for its outputs."""
    env: dict[Any, Array] = dict(zip(graph.inputs, arrays, strict=True))
    steps = bar(graph.equations, "bisect", delay=2, leave=False, disable=bool(path) or None)
    for number, e in enumerate(steps, 1):
        one = _single(e)
        operands = [env[v] for v in one.inputs]
        left, right = a.run(one, operands), b.run(one, operands)
        if (found := _judge(one, operands, left, right, budget)) is not None:
            for label, body, inside in _inside(e, [_value(x, env) for x in e.inputs], a):
                inner, _ = _walk(body, inside, a, b, budget, (*path, label))
                if inner is not None:
                    return dataclasses.replace(inner, number=inner.number if path else number), []
            return _fault(number, e, one, env, left, right, found, (a, b), path), []
        env.update(zip(one.outputs, left, strict=True))
    return None, [_value(o, env) for o in graph.outputs]


def _single(e: Any) -> Graph:
    """One equation as a program of its variables."""
    return Graph(list(dict.fromkeys(v for v in e.inputs if not hasattr(v, "value"))), [e], e.outputs)


def _value(atom: Any, env: dict[Any, Array]) -> Array:
    return np.asarray(atom.value, atom.dtype.numpy) if hasattr(atom, "value") else env[atom]


def _judge(graph: Graph, arrays: Sequence[Array], left: Sequence[Array], right: Sequence[Array], budget: float) -> tuple[float, int, Any] | None:
    """None if the results agree; else the distance, the number of the worst output and its scale."""
    worst = [ulps(y, x, 0.0, x.dtype) for x, y in zip(left, right, strict=True)]
    if max(worst, default=0.0) <= budget:
        return None
    exact = all(e.primitive.name in EXACT or "dtype" in e.params for e in graph.equations)
    scales = [0.0] * len(worst) if exact else conditioning(graph, _wide(arrays))
    worst = [ulps(y, x, s, x.dtype) for x, y, s in zip(left, right, scales, strict=True)]
    k = int(np.argmax(worst))
    return (worst[k], k, scales[k]) if worst[k] > budget else None


def _inside(e: Any, operands: Sequence[Array], a: _Engine) -> Iterator[tuple[str, Graph, Sequence[Array]]]:
    """The graphs that an equation runs, with their inputs: the branch taken, each step of a loop as the first engine goes through it."""
    name, p = e.primitive.name, e.params
    if name == "cond":
        k = min(max(int(operands[0]), 0), len(p["branches"]) - 1)
        yield f"branch {k} of cond", p["branches"][k], operands[1:]
    elif name == "custom":
        yield "a function with rules of its own", p["body"], operands[: len(p["body"].inputs)]
    elif name == "scan":
        n, m, steps = p["n_consts"], p["n_carry"], range(p["length"])
        consts, carry, xs = operands[:n], list(operands[n : n + m]), operands[n + m :]
        for i in reversed(steps) if p["reverse"] else steps:
            now = [*consts, *carry, *(x[i] for x in xs)]
            yield f"step {i} of scan", p["body"], now
            carry = a.run(p["body"], now)[:m]
    elif name == "while_loop":
        n, m = p["n_cond"], p["n_body"]
        tests, consts, carry = operands[:n], operands[n : n + m], list(operands[n + m :])
        i = 0
        while a.run(p["cond"], [*tests, *carry])[0]:
            yield f"step {i} of while_loop", p["body"], [*consts, *carry]
            carry, i = a.run(p["body"], [*consts, *carry]), i + 1


def _fault(
    number: int, e: Any, one: Graph, env: dict[Any, Array], left: Sequence[Array], right: Sequence[Array], found: tuple[float, int, Any],
    engines: tuple[_Engine, _Engine], path: tuple[str, ...],
) -> Fault:  # fmt: skip
    """What there is to say of an equation whose results differ for the same inputs."""
    apart, k, scale = found
    operands = [env[v] for v in one.inputs]
    x, y = left[k], right[k]
    off = None
    if x.dtype.kind in "fcV" and "dtype" not in e.params and not _programs(e.params):
        with np.errstate(all="ignore"):
            truth = np.asarray(Backend.callable(get_backend("numpy"), one)(*_wide(operands))[k])
        off = ulps(x, truth, scale, x.dtype), ulps(y, truth, scale, x.dtype)
    worst: tuple[Any, ...] = ()
    script = ""
    shown = [(_value(v, env), v.dtype) for v in e.inputs]
    if x.shape == y.shape and x.size:
        index = _furthest(x, y)
        if e.primitive.elementwise:
            shown = [(np.broadcast_to(v, x.shape)[index], dtype) for v, dtype in shown]
        worst = index, [v for v, _ in shown] if e.primitive.elementwise else [], x[index], y[index]
    if not _programs(e.params) and sum(v.size for v, _ in shown) <= _SHOWN:
        script = _script(e, shown, engines)
    return Fault(e.primitive.name, ", ".join(map(describe, e.inputs)), e.where or "", path, number, apart, off, worst, script)


_SHOWN = 100  # numbers that a report still shows


def _programs(params: dict[str, Any]) -> bool:
    return any(isinstance(v, Graph) for p in params.values() for v in (p if isinstance(p, tuple) else (p,)))


def _furthest(x: Array, y: Array) -> tuple[int, ...]:
    a, b = (v.astype(np.complex128 if v.dtype.kind == "c" else np.float64) for v in (x, y))
    with np.errstate(all="ignore"):
        d = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, abs(a - b))
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.where(np.isnan(d), np.inf, d)), x.shape))


def _script(e: Any, operands: Sequence[tuple[Array, DType]], engines: tuple[_Engine, _Engine]) -> str:
    """The operation alone, as a program."""
    values = ", ".join(f"md.tensor({v.tolist()!r}, dtype=md.{dtype.name})" for v, dtype in operands)
    params = "".join(f", {k}={p!r}".replace("minidl.", "md.") for k, p in e.params.items())
    call = f"md.extend.ns.{e.primitive.name}(*x{params})"
    names = dict.fromkeys(g.xp.name for g in engines)
    lines = ["from math import inf, nan", "import minidl as md", f"for name in {tuple(names)!r}:", "    with md.use_backend(name):"]
    lines += [f"        x = [{values}]", f"        print(name, {call})"]
    if any(g.compiled for g in engines):
        lines.append(f"        print(name, md.jit(lambda *x: {call})(*x))")
    return "\n".join(lines)


# ---- compiled programs ------------------------------------------------------------------------------------------------------------------
def _prefix(graph: Graph, arrays: Sequence[Array], a: _Engine, b: _Engine, budget: float) -> Fault | None:
    """The first part of the program whose results differ, found by halving."""

    def part(k: int) -> Graph:
        """The first k equations; its results are what the others and the program's results read of them."""
        read = {v for e in graph.equations[k:] for v in e.inputs} | set(graph.outputs)
        return Graph(graph.inputs, graph.equations[:k], [v for e in graph.equations[:k] for v in e.outputs if v in read])

    def differs(k: int) -> tuple[float, int, Any] | None:
        g = part(k)
        return _judge(g, arrays, a.run(g, arrays), b.run(g, arrays), budget)

    low, high, found = 0, len(graph.equations), differs(len(graph.equations))
    with bar(total=max(high, 1).bit_length(), desc="bisect", delay=2, leave=False, disable=None) as progress:
        while found and high - low > 1:
            middle = (low + high) // 2
            if now := differs(middle):
                high, found = middle, now
            else:
                low = middle
            progress.update()
    if found is None:
        return None
    before, e = part(high - 1), graph.equations[high - 1]
    env = dict(zip(graph.inputs, arrays, strict=True)) | dict(zip(before.outputs, a.run(before, arrays), strict=True))
    one = _single(e)
    operands = [env[v] for v in one.inputs]
    left, right = a.run(one, operands), b.run(one, operands)
    if alone := _judge(one, operands, left, right, budget):
        return _fault(high, e, one, env, left, right, alone, (a, b), ())
    path = (f"the program of the first {high} equations, compiled as one" if high > 1 else "the program",)
    return Fault(e.primitive.name, ", ".join(map(describe, e.inputs)), e.where or "", path, high, found[0])
