"""The checks that one row of the table goes through on one backend, and how far apart two numbers are allowed to be.

The unit of distance: one rounding, scaled by conditioning. A program is run eight times on NumPy in float64 with every input and every intermediate
result moved by a random relative amount of at most 2**-30; the largest change of an output, divided by 2**-30, is what one rounding everywhere
may do to it (stochastic arithmetic: J. Vignes, A stochastic arithmetic for reliable scientific computation, 1993). A distance is stated in eps of the
dtype times the larger of that and the value itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import Graph, Tensor, autograd, dtypes, jit, jvp, trace, tree, vjp, vmap
from minidl.data.bars import bar
from minidl.extend import Backend, from_numpy, get_backend, table, using
from minidl.testing.domains import ROWS, Row, interval

Array = np.ndarray
STEP = 2.0**-30
HALF = ("float16", "bfloat16")
#: Primitives that move or choose numbers and round nothing.
EXACT = frozenset(
    "reshape permute broadcast_to flip slice unslice pad tril triu concat gather take_along max min maximum minimum fmax fmin cummax cummin max_pool"
    " pool_gather where clip relu neg abs conj real imag copysign sign floor ceil round trunc full iota bitcast scan while_loop cond".split()
)
BUDGET = 8.0  # conditioned ulps that every comparison between backends may differ by, unless a row states otherwise


# ---- distances ------------------------------------------------------------------------------------------------------------------------
def ulps(got: Any, want: Any, scale: Any = 0.0, dtype: Any = np.float64) -> float:
    """The largest |got - want| in eps(dtype) * max(|want|, scale). Equal infinities and nans agree; beyond the dtype's range infinity is right, and
    below its normal numbers so is zero (not for half precision, where no library flushes).

    >>> ulps(1.0 + 2**-52, 1.0)
    1.0
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return np.inf
    if want.dtype.kind not in "fc":
        return 0.0 if np.array_equal(got, want) else np.inf
    info = _limits(np.empty(0, dtype).real.dtype)
    if want.dtype.kind == "c":
        scale = np.maximum(scale, abs(want))
        return max(ulps(got.real, want.real, scale, dtype), ulps(got.imag, want.imag, scale, dtype))
    with np.errstate(all="ignore"):
        got, want = got.astype(np.float64), want.astype(np.float64)
        gone = abs(want) > float(info.max)
        same = (
            (got == want)
            | (np.isnan(got) & np.isnan(want))
            | (gone & (np.isinf(got) | (abs(got) >= 0.99 * float(info.max))) & (np.sign(got) == np.sign(want)))
        )
        least = info.smallest_subnormal if info.bits == 16 else info.tiny
        unit = float(info.eps) * np.maximum(np.maximum(abs(want), scale), float(least) / float(info.eps))
        d = np.where(same, 0.0, abs(got - want) / unit)
    return float(np.max(np.where(np.isnan(d), np.inf, d), initial=0.0))


def _limits(dtype: np.dtype) -> Any:
    """np.finfo, for bfloat16 too."""
    if dtype.kind == "f":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def _inexact(dtype: np.dtype) -> bool:
    return dtype.kind in "fc" or dtype.name == "bfloat16"  # whose kind is "V"


def conditioning(graph: Graph, args: Sequence[Array], seed: int = 0, runs: int = 8) -> list[Any]:
    """For each output of a graph at these NumPy arguments: what a relative change of one, everywhere, may do to it. See the module.

    >>> import numpy
    >>> graph = md.trace(lambda x: x * 2.0)(md.ones(2))
    >>> [v.shape for v in md.testing.conditioning(graph, [numpy.ones(2, "float32")])]
    [(2,)]
    """
    with np.errstate(all="ignore"):
        plain = get_backend("numpy").callable(graph)(*args)
        worst = [np.zeros(np.shape(v)) for v in plain]
        shaken = _shaken(tuple(table.values()))
        shaken.rng = np.random.default_rng(seed)
        for _ in range(runs):
            for i, v in enumerate(shaken.callable(graph)(*map(shaken.move, args))):
                if np.asarray(v).dtype.kind in "fc":
                    d = abs(np.asarray(v) - plain[i]) / STEP
                    worst[i] = np.maximum(worst[i], np.where(np.isfinite(d), d, 0.0))
    return worst


@functools.lru_cache(maxsize=1)
def _shaken(primitives: tuple[Any, ...]) -> Any:
    """NumPy with kernels that change each result by a relative STEP up or down, inside loops and branches too, for a table of these."""

    class Shaken(type(get_backend("numpy"))):  # type: ignore[misc]
        callable = Backend.callable
        rng: Any

        def move(self, v: Any) -> Any:
            v = np.asarray(v)
            return v * (1 + STEP * self.rng.choice([-1, 1], v.shape)).astype(v.real.dtype) if v.dtype.kind in "fc" else v

    shaken = Shaken()

    def wrapped(name: str, kernel: Any) -> Any:
        def call(*args: Any, **params: Any) -> Any:
            out = kernel(*args, **params)
            if params.get("mode") in ("set", "min", "max"):
                return out
            return tuple(map(shaken.move, out)) if table[name].multiple else shaken.move(out)

        return call

    for name in table:
        if name not in EXACT:
            setattr(shaken, name, wrapped(name, getattr(shaken, name)))
    return shaken


def differences(f: Callable[[float], Array], noise: Any = 0.0, h: float = 0.5, steps: int = 12) -> tuple[Array, Array]:
    """(df/dh at 0, an estimate of its error), element by element, from central differences extrapolated to step zero.

    noise: how far off f itself may be.

    Source: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in Engineering Software 1982.

    >>> import numpy
    >>> slope, error = md.testing.differences(lambda h: numpy.sin(0.5 + h))
    >>> bool(abs(slope - numpy.cos(0.5)) < 1e-9)
    True
    """
    shrink = 1.6
    before: list[Any] = []
    best = error = None
    for i in range(steps):
        with np.errstate(all="ignore"):
            above, below = f(h), f(-h)
            blur = (noise + np.finfo(np.float64).eps * np.maximum(abs(above), abs(below))) / h
            now = [(above - below) / (2 * h)]
            factor = shrink * shrink
            for j in range(min(i, 6)):
                now.append((now[j] * factor - before[j]) / (factor - 1))
                factor *= shrink * shrink
                e = np.maximum(abs(now[j + 1] - now[j]), abs(now[j + 1] - before[j])) + blur
                if error is None:
                    best, error = now[j + 1], np.where(np.isfinite(e), e, np.inf)
                better = e < error
                best, error = np.where(better, now[j + 1], best), np.where(better, e, error)
        before, h = now, h / shrink
    return best, error  # type: ignore[return-value]


def _flat(arrays: Sequence[Any]) -> Array:
    return np.concatenate([np.asarray(a).reshape(-1) for a in arrays]) if arrays else np.zeros(0)


def _inner(a: Sequence[Any], b: Sequence[Any]) -> float:
    return float(sum(np.sum(np.real(np.conj(x) * y)) for x, y in zip(a, b, strict=True)))


# ---- one row, one dtype -----------------------------------------------------------------------------------------------------------------
class Finding(NamedTuple):
    """What one check found: how far off, in conditioned ulps (nan where that is not the measure), or why there is no result.

    >>> md.testing.Finding("forward", 0.5).ulp
    0.5
    """

    mode: str
    ulp: float
    gap: str = ""


class Study:
    """A row at drawn arguments, with its reference: NumPy in float64 (complex128) on the same arguments.

    `program` computes everything at once: outputs; their jvp; the vjp; the jvp and the vjp of that vjp. Its results come back by `names`. There is no
    second order where order is 1, nor in half precision, as its intermediate results leave the range of float16. Its checks raise AssertionError,
    with the numbers, where a result is further from the reference than the budget in conditioned ulps.

    >>> row = md.testing.Row("sin", ((2,),), (md.testing.interval(),))
    >>> md.testing.Study(row, "float64").args[0].shape
    (2,)
    """

    def __init__(self, row: Row, dtype: str, seed: int = 0, order: int = 2, home: Any = None):
        self.row, self.dtype, self.home = row, dtype, home or get_backend("numpy")
        self.half = dtype in HALF
        self.twice = order > 1 and not self.half
        self.args, rooms = row.draw(seed, dtype)
        self.moving = [i for i, r in enumerate(rooms) if r is not None and _inexact(self.args[i].dtype)]
        rng = np.random.default_rng(seed + 1)
        wide = [self._wide(a) for a in self.args]
        outs = [to_array(o) for o in self.row.apply(*from_arrays(wide, self.home))]
        self.floats = [i for i, o in enumerate(outs) if o.dtype.kind in "fc"]
        smooth = row.call is not None or table[row.name].differentiable
        if not (smooth and self.moving and self.floats):
            self.moving, self.floats = [], []
        kind = dtypes.canonical(dtype).numpy

        def direction(shape: tuple[int, ...], like: np.dtype) -> Array:
            size = rng.uniform(0.3, 1, shape)
            turn = np.exp(2j * np.pi * rng.random(shape)) if like.kind == "c" else rng.choice([-1.0, 1.0], shape)
            return np.asarray(size * turn)

        self.ts = [(rooms[i] * direction(self.args[i].shape, self.args[i].dtype)).astype(self.args[i].dtype) for i in self.moving]
        out_kind = [np.result_type(outs[i].dtype, kind) if kind.kind == "c" and outs[i].dtype.kind == "c" else outs[i].dtype for i in self.floats]
        narrow = [kind if (dtype == "float32" or self.half) and k == np.float64 and row.name != "cast" else k for k in out_kind]
        self.gs = [direction(outs[i].shape, k).astype(k) for i, k in zip(self.floats, narrow, strict=True)]
        self.us = [direction(self.args[i].shape, self.args[i].dtype).astype(self.args[i].dtype) for i in self.moving if self.twice]
        n, m = len(self.moving), len(self.floats)
        self.names = ["forward"] * len(outs) + (["jvp"] * m + ["vjp"] * n + ["second"] * (2 * len(self.us)) if n else [])
        if self.us:  # so that every element has the same weight in an inner product
            self.gs = [_even(g, v) for g, v in zip(self.gs, self._reference()[len(outs) : len(outs) + m], strict=True)]
            self.us = [_even(u, v) for u, v in zip(self.us, self._reference()[len(outs) + m + n : len(outs) + m + 2 * n], strict=True)]
        self.inputs = [*self.args, *self.ts, *self.gs, *self.us]
        with_wide = [self._wide(a) for a in self.inputs]
        self.graph = trace(self.program)(*from_arrays(with_wide, self.home))
        read = [to_array(v) if isinstance(v, Tensor) else np.asarray(v) for v in self.graph.captured]
        units = conditioning(self.graph, [*with_wide, *read], seed)
        self.scales = [np.maximum(s, row.floor) if n == "forward" else s for n, s in zip(self.names, units, strict=True)]
        self.want = self._reference()
        self.exact = row.exact and kind.kind != "c"

    @property
    def _unit(self) -> np.dtype:
        kind = dtypes.canonical(self.dtype).numpy
        return kind if _inexact(kind) else np.dtype(np.float64)

    def _wide(self, a: Array) -> Array:
        return a.astype(np.float64) if a.dtype.kind != "c" and _inexact(a.dtype) else a

    def _reference(self) -> list[Array]:
        inputs = [self._wide(a) for a in (*self.args, *self.ts, *self.gs, *self.us)]
        return [to_array(v) for v in self.program(*from_arrays(inputs, self.home))]

    def program(self, *inputs: Any) -> tuple[Any, ...]:
        """Everything at once; see the class."""
        k, n, m = len(self.args), len(self.moving), len(self.floats)
        args, ts, gs, us = inputs[:k], inputs[k : k + n], inputs[k + n : k + n + m], inputs[k + n + m :]
        outs = self.row.apply(*args)
        if not n:
            return outs
        f = self.function(args)
        xs = [args[i] for i in self.moving]
        moved = jvp(f, xs, ts)[1]

        def v(*xs: Any) -> Any:
            return vjp(f, *xs)[1](gs)

        if not self.twice:
            return (*outs, *moved, *v(*xs))
        grads, pull = vjp(v, *xs)
        return (*outs, *moved, *grads, *jvp(v, xs, ts)[1], *pull(us))

    @functools.cached_property
    def traced(self) -> Graph:
        """The program with its own dtypes, as the shape and dtype rules see it."""
        return trace(self.program)(*from_arrays(self.inputs, get_backend("numpy")))

    def function(self, args: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
        """The float outputs as a function of the arguments that may move."""

        def f(*xs: Any) -> tuple[Any, ...]:
            full = list(args)
            for i, x in zip(self.moving, xs, strict=True):
                full[i] = x
            out = self.row.apply(*full)
            return tuple(out[i] for i in self.floats)

        return f

    def compiled(self, xp: Any) -> Callable[[Sequence[Array]], list[Array]]:
        """The program under jit on a backend, from and to NumPy arrays."""
        return lambda inputs: [to_array(v) for v in _on(xp, _programs(self), inputs)]

    # ---- the checks -----------------------------------------------------------------------------------------------------------------------
    def compare(self, what: str, got: Sequence[Array], budget: float) -> list[Finding]:
        """Results against the reference: one finding for each mode."""
        worst: dict[str, float] = {}
        for i, (g, w, s) in enumerate(zip(got, self.want, self.scales, strict=True)):
            d = ulps(g, w, s, g.dtype if _inexact(g.dtype) and g.dtype.itemsize < w.dtype.itemsize else self._unit)
            if not d <= (0 if self.exact and self.names[i] == "forward" else budget):
                raise AssertionError(
                    f"{self.row} {self.dtype} {what} {self.names[i]}: {d:.3g} conditioned ulps, at most {budget}\n{g}\nbut NumPy in float64 says\n{w}"
                )
            worst[self.names[i]] = max(worst.get(self.names[i], 0.0), d)
        return [Finding(k, v) for k, v in worst.items()]

    def rule(self, xp: Any) -> None:
        """The shape and dtype rule gives what the kernels give, eager and compiled."""
        eager, compiled = _on(xp, self.row.apply, self.args), _on(xp, _programs(self), self.inputs)
        for e, r, w in zip(eager, compiled, trace(self.row.apply)(*from_arrays(self.args, xp)).outputs, strict=False):
            for t in (e, r):
                with t.xp.scope():
                    native = tuple(t.payload.shape), t.xp.dtype_of(t.payload)
                assert t.xp is xp, f"{self.row} {self.dtype}: {t} is not on {xp}"
                assert native == (t.shape, t.dtype) == (tuple(w.shape), w.dtype), f"{self.row} {self.dtype}: {t} holds {native}, rule {w}"

    def modes(self, xp: Any, eager: bool, budget: float = BUDGET) -> list[Finding]:
        """Compiled (and eager, and as the interpreted graph) against the reference."""
        got = self.compiled(xp)(self.inputs)
        found = self.compare("compiled", got, budget)
        if eager:
            values = [to_array(v) for v in _on(xp, self.program, self.inputs)]
            found += [Finding("eager", max(f.ulp for f in self.compare("eager", values, budget)))]
            found += [Finding("interpreted", max(f.ulp for f in self.compare("interpreted", self.interpreted(xp), budget)))]
        return found

    def interpreted(self, xp: Any) -> list[Array]:
        """The graph, equation by equation, through the backend's kernels."""
        tensors = from_arrays(self.inputs, xp)
        with xp.scope():
            natives = _graph(self, xp).run(
                lambda p, inputs, params: getattr(xp, p.name)(*inputs, **params), [t.payload for t in tensors], lambda c: xp.scalar(c.value, c.dtype)
            )
            return [np.asarray(xp.to_numpy(v)) for v in natives]

    def raw(self, xp: Any) -> tuple[list[Array], list[Array]]:
        """The vjp by the raw pass over native arrays, and by the pass that records itself (create_graph)."""
        both = []
        for create in (False, True):
            args = from_arrays(self.args, xp)
            leaves = [args[i].requires_grad_() for i in self.moving]
            outs = self.row.apply(*args)
            gs = from_arrays(self.gs, xp)
            pairs = [(o, g) for o, g in zip([outs[i] for i in self.floats], gs, strict=True) if o.requires_grad]
            found = (
                autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], create_graph=create, allow_unused=True)
                if pairs
                else [None] * len(leaves)
            )
            both.append([np.zeros(t.shape, t.dtype.numpy) if d is None else to_array(d.detach()) for d, t in zip(found, leaves, strict=True)])
        return both[0], both[1]

    def adjoint(self, xp: Any, budget: float = 32.0) -> Finding:
        """<g, jvp(t)> = <vjp(g), t>, and the same for the vjp as a function (order 2)."""
        got, worst = self._named(self.compiled(xp)(self.inputs)), 0.0
        scale = self._named([np.maximum(s, abs(w)) for s, w in zip(self.scales, self.want, strict=True)])
        n = len(self.us)
        for left, right, a, b, sa, sb in (
            (self.gs, got["jvp"], got["vjp"], self.ts, scale["jvp"], scale["vjp"]),
            (self.us, got["second"][:n], got["second"][n:], self.ts[:n], scale["second"][:n], scale["second"][n:]),
        ):
            unit = np.finfo(np.float64).eps * (
                sum(np.sum(abs(x) * y) for x, y in zip(left, sa, strict=True)) + sum(np.sum(abs(x) * y) for x, y in zip(b, sb, strict=True))
            )
            d = abs(_inner(left, right) - _inner(a, b)) / max(unit, np.finfo(np.float64).tiny)
            assert d <= budget, (
                f"{self.row} {self.dtype}: <g, jvp(t)> = {_inner(left, right)!r}, <vjp(g), t> = {_inner(a, b)!r}: {d:.3g} conditioned ulps apart"
            )
            worst = max(worst, float(d))
        return Finding("adjoint", worst)

    def differences(self, xp: Any) -> None:
        """The jvp against finite differences of the outputs, and the jvp of the vjp against those of the vjp (order 2), element by element."""
        run, k = self.compiled(xp), len(self.args)

        def at(h: float) -> Array:
            inputs = list(self.inputs)
            for i, t in zip(self.moving, self.ts, strict=True):
                inputs[i] = self.args[i] + h * t
            got = self._named(run(inputs))
            out = _flat([got["forward"][i] for i in self.floats] + got["vjp"] * self.twice)
            most.append(abs(out))
            return out

        most: list[Array] = []
        got, scale = self._named(run(self.inputs)), self._named(self.scales)
        value = _flat([got["forward"][i] for i in self.floats] + got["vjp"] * self.twice)
        noise = _flat([scale["forward"][i] for i in self.floats] + scale["vjp"] * self.twice) + abs(value)
        d, (fd, error) = _flat(got["jvp"] + got["second"][: len(self.us)]), differences(at, np.finfo(np.float64).eps * noise)
        off = abs(d - fd) - (10 * error + 1e-7 * np.maximum(abs(d), abs(fd)))
        assert k and not np.any(off > 0), f"{self.row}: derivative\n{d}\nfinite differences\n{fd}\nestimated error\n{error}"
        unseen = ~(error <= 1e-4 * abs(fd)) & ~(error <= 1e-8 * np.maximum(noise, np.max(most, axis=0)))
        assert not np.any(unseen), f"{self.row}: finite differences say too little: {fd[unseen]} with error {error[unseen]}"

    def alike(self, xp: Any, close: float = 1e-7) -> None:
        """Eager transforms, backward's raw pass, the pass that records itself, and lanes of vmap give what the compiled program gives."""
        run, beside = self.compiled(xp), list(self.inputs)
        for i, t in zip(self.moving, self.ts, strict=True):
            beside[i] = self.args[i] + 0.3 * t
        want, other = run(self.inputs), run(beside)
        first = self.names.count("forward") + len(self.floats)
        ways = {"eager": [to_array(v) for v in _on(xp, self.program, self.inputs)]}
        raw, recorded = self.raw(xp)
        for way, grads in (("backward", raw), ("create_graph", recorded)):
            ways[way] = [*want[:first], *grads, *want[first + len(grads) :]]
        if not self.graph.written:  # lanes would store different values in one place
            lanes = vmap(self.program)(*from_arrays([np.stack(pair) for pair in zip(beside, self.inputs, strict=True)], xp))
            ways |= {f"vmap, lane {k}": [to_array(v)[k] for v in lanes] for k in (0, 1)}
        for way, got in ways.items():
            for name, g, w, s in zip(self.names, got, other if way == "vmap, lane 0" else want, self.scales, strict=True):
                with np.errstate(all="ignore"):
                    same = (g == w) | (abs(g - w) <= close * np.maximum(abs(w), s)) | (np.isnan(g) & np.isnan(w))
                assert np.all(same), f"{self.row}: the {name} of {way}\n{g}\nbut of the compiled program\n{w}"

    def batching(self, xp: Any, eager: bool, budget: float = BUDGET) -> Finding:
        """Every choice of batched arguments, forward and vjp, against a stack of single calls."""
        inputs, choices, every, want, scales = self._lanes
        worst, run = 0.0, every if eager else jit(every)
        got = [to_array(v) for v in _on(xp, run, inputs)] if choices else []
        for i, (g, w, s) in enumerate(zip(got, want, scales, strict=True)):
            d = ulps(g, w, s, self._unit)
            if not d <= budget:
                which = choices[i * len(choices) // len(got)]
                raise AssertionError(f"{self.row} {self.dtype} vmap in_axes {which}: {d:.3g} conditioned ulps\n{g}\nsingle calls:\n{w}")
            worst = max(worst, d)
        return Finding("vmap", worst)

    @functools.cached_property
    def _lanes(self) -> tuple[Any, ...]:
        """(inputs, in_axes to try, the function that tries them all, what a stack of single calls gives, its conditioning)."""
        lanes = [self.row.draw(seed, self.dtype)[0] for seed in (11, 12, 13)]
        k, numpy = len(self.args), get_backend("numpy")
        choices = [c for c in itertools.product((0, None), repeat=k) if 0 in c]

        def single(*inputs: Any) -> tuple[Any, ...]:
            args, gs = inputs[:k], inputs[k:]
            out = self.row.apply(*args)
            return (*out, *vjp(self.function(args), *(args[i] for i in self.moving))[1](gs)) if self.moving else out

        def every(*inputs: Any) -> tuple[Any, ...]:
            batched, plain, gs = inputs[:k], inputs[k : 2 * k], inputs[2 * k :]
            out: list[Any] = []
            for c in choices:
                out += vmap(single, in_axes=(*c, *[None] * len(gs)))(*(b if w == 0 else p for b, p, w in zip(batched, plain, c, strict=True)), *gs)
            return tuple(out)

        want: list[Array] = []
        scales: list[Array] = []
        outs = self.names.count("forward")
        for c in choices:
            rows, units = [], []
            for lane in range(3):
                inputs = [self._wide(v) for v in (*(lanes[lane if w == 0 else 0][i] for i, w in enumerate(c)), *self.gs)]
                tensors = from_arrays(inputs, numpy)
                rows.append([to_array(v) for v in single(*tensors)])
                scale = conditioning(trace(single)(*tensors), inputs, runs=16 if self.half else 4)
                units.append([np.maximum(s, self.row.floor * (i < outs)) for i, s in enumerate(scale)])
            want += map(np.stack, zip(*rows, strict=True))
            scales += map(np.stack, zip(*units, strict=True))
        return [*map(np.stack, zip(*lanes, strict=True)), *lanes[0], *self.gs], choices, every, want, scales

    def _named(self, values: Sequence[Any]) -> dict[str, list[Any]]:
        out: dict[str, list[Any]] = {"forward": [], "jvp": [], "vjp": [], "second": []}
        for n, v in zip(self.names, values, strict=True):
            out[n].append(v)
        return out


def _even(g: Array, v: Array) -> Array:
    size = np.where((abs(v) > 1e-25) & (abs(v) < 1e25), abs(v), 1.0)
    return np.asarray(g / size).astype(g.dtype)


def from_arrays(arrays: Sequence[Array], xp: Any) -> list[Tensor]:
    """Tensors with copies of NumPy data on a backend."""
    return [from_numpy(np.asarray(a), xp) for a in arrays]


def _on(xp: Any, f: Callable[..., Any], arrays: Sequence[Array]) -> Any:
    """f of copies on a backend, which is also where f makes tensors from nothing."""
    with using(xp):
        return f(*from_arrays(arrays, xp))


def to_array(t: Tensor) -> Array:
    """A copy of a Tensor's data."""
    xp = t.xp
    with xp.scope():
        return np.array(xp.to_numpy(t.payload))


@functools.lru_cache(maxsize=16)
def _programs(study: Study) -> Any:
    call = study.row.call  # where guards see what a user's function reads

    def program(*inputs: Any) -> tuple[Any, ...]:
        return study.program(*inputs) if study.row.call is call else ()

    return jit(program)


@functools.lru_cache(maxsize=16)
def _graph(study: Study, xp: Any) -> Graph:
    return trace(study.program)(*from_arrays(study.inputs, xp))


@functools.lru_cache(maxsize=16)
def study(row: Row, dtype: str) -> Study:
    """The study of a row, made once."""
    return Study(row, dtype)


# ---- for users --------------------------------------------------------------------------------------------------------------------------
def check_grad(f: Callable[..., Any], args: Sequence[Any], order: int = 2, seed: int = 0, step: float = 0.1) -> None:
    """Prove the derivatives of f at float64 (or complex128) tensors, where it is smooth within `step` (relative to 1 or to the element).

    Along one random direction: jvp against finite differences, forward against reverse mode, and both again for the gradient (order 2; with order 1
    no second derivative is asked for). Then that eager transforms, backward() with and without create_graph, and vmap give what the compiled
    program gives. Raises AssertionError with the numbers, TypeError for other dtypes and for a function without a float result, ValueError for one
    whose results are others in each call.

    >>> import minidl as md
    >>> check_grad(md.sin, [md.tensor([1.0, 2.0], dtype=md.float64)])
    """
    xs = list(args)
    for x in xs:
        if not (isinstance(x, Tensor) and x.dtype.name in ("float64", "complex128")):
            raise TypeError("check_grad: finite differences need float64 or complex128 tensors; convert the arguments with .to(md.float64)")
    single = interval()  # only its draws of numbers of size one are used, through Row

    def make(rng: np.random.Generator, dtype: np.dtype) -> Any:
        values = [to_array(x.detach()) for x in xs]
        return values, [step * np.maximum(1, abs(v)) for v in values]

    @functools.wraps(f, updated=())
    def call(*xs: Any) -> list[Tensor]:
        return [out for out in tree.leaves(f(*xs)) if isinstance(out, Tensor)]

    row = Row(getattr(f, "__name__", "function"), [x.shape for x in xs], [single] * len(xs), make=make, call=call)
    s = Study(row, xs[0].dtype.name, seed, order, xs[0].xp)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(s.want, s._reference(), strict=True)):
        raise ValueError("check_grad: the function gives other results in each call; let random numbers follow from a key, and state be an argument")
    if not s.moving:
        raise TypeError("check_grad: the function has no floating-point result, so there is no derivative to check")
    for check in (s.differences, s.adjoint, s.alike):
        check(xs[0].xp)


def conformance(backend: str | Backend, rows: Sequence[Row] | None = None, progress: bool = False) -> dict[str, list[str]]:
    """Run every primitive through a backend: values, dtypes and shapes, derivatives of both orders, vmap, eager and compiled, against NumPy.

    backend: a name or an instance. rows: of md.testing.ROWS; None for all. Returns {row and dtype: [what is wrong]}, empty for a backend that
    conforms; what it does not implement (NotImplementedError) is listed too. progress shows a bar. Its counterpart at kinks, where differences say
    nothing, is md.testing.law.

    >>> conformance("numpy", ROWS[:2])
    {}
    """
    xp = get_backend(backend) if isinstance(backend, str) else backend
    wrong: dict[str, list[str]] = {}
    f = functools.partial
    chosen = [(r, dtype) for r in (ROWS if rows is None else rows) for dtype in r.dtypes]
    for r, dtype in bar(chosen, desc=f"{xp.name}: primitives", delay=2, disable=not progress):
        s = study(r, dtype)
        checks: list[Callable[[], Any]] = [f(s.rule, xp), f(s.modes, xp, eager=True), f(s.batching, xp, eager=False)]
        if s.moving and dtype != "float32":
            checks += [f(s.adjoint, xp), f(s.differences, xp)]
        for check in checks:
            try:
                check()
            except (AssertionError, NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
                wrong.setdefault(f"{r} {dtype}", []).append(f"{type(error).__name__}: {error}")
    return wrong
