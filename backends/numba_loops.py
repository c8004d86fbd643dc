"""One kernel for a region of a graph: elementwise equations, reductions of rows and accumulated reductions in a single walk over memory.

The walk is a loop nest over the axes of the region, of which the last is vectorised. Each reduction of a row ends a pass over it; a value that a
later pass needs is computed again where that is cheap, and kept in a row of scratch memory where it is not: all passes but the first read the cache.

Promises: each operation rounds to its dtype, so a region gives what its equations give one by one, sums apart, whose order is free; sums run in
blocks that add up in float64 (blocks of float64 with their rounding errors carried along: Knuth's two-sum), at least as accurate as NumPy's; a kernel
depends on dtypes, ranks and the pattern of broadcasting, never on sizes or constants; the axis walked outermost may be divided between threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.backends.numba_emit import collapse, computed, cost, expression, extreme, in_vector, loaded, lowest, packed, stored, wide
from minidl.dtypes import DType, bool_
from minidl.fusion import Region, spread
from minidl.graph import Atom, Equation, Literal, Var
from minidl.primitives.core import table

REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")
_CHEAP = 6  # up to this cost a value is computed again by each pass that needs it
_LONG = 10  # from which cost on an operation behind a costly one begins a pass of its own: the processor looks ahead over few such chains
_BLOCK = 512  # terms of a sum in the dtype itself
_WIDTH = 32  # bytes of a terminal's accumulator
_REDO = 2048  # elements that are computed again where an argument of sin or cos is too large


def alone(equation: Equation) -> Region:
    """A region of one equation: an elementwise one, or a reduction."""
    (out, *_), name = equation.outputs, equation.primitive.name
    if name not in REDUCTIONS:
        layout: dict[Var, Any] = {v: spread(v.shape, out.shape) for v in (*equation.inputs, *equation.outputs) if isinstance(v, Var)}
        return Region([equation], equation.outputs, out.shape, len(out.shape), layout, ())
    (x,), axes, n = equation.inputs, equation.params["axis"], len(equation.inputs[0].shape)
    flags: dict[Any, Any] = {x: (True,) * n, out: tuple(i not in axes or s == 1 for i, s in enumerate(x.shape))}
    last = len(axes) if set(axes) == set(range(n - len(axes), n)) and len(axes) < n else 0
    return Region([equation], [out], x.shape, n - last, flags, () if last else (out,))


@dataclass
class _Value:
    """A register of the kernel. deps: the axes along which it varies; stage: the pass from which on it can be computed."""

    name: str
    dtype: DType
    deps: frozenset[int]
    equation: Equation | None = None
    operands: list[_Value] = field(default_factory=list)
    stage: int = 0
    price: int = 0
    reduces: bool = False
    kept: str | None = None  # how a later pass reads it from memory


class Loops:
    """The kernel of a region: `source`, and what its arguments are.

    a: addresses of `atoms`, then of `stores`; of accumulators (one block of `lanes` times `partial[i]` bytes for each terminal), of `scratch` bytes a
    lane; then first, last and lane (what part of the outermost axis to do, and for which thread), then `sizes`.
    """

    def __init__(self, region: Region, over: Mapping[Var, Var] | None = None):
        """over: inputs whose memory takes an output, where the kernel reads each place before it writes there (`over` says so afterwards)."""
        self.region = region
        self.terminal = [v for v in region.outputs if v in region.terminal]
        self.stores = [v for v in region.outputs if v not in region.terminal]
        self._axes()
        self._values()
        self._passes()
        full, turns = (True,) * len(self.sizes), any(_turns(e) for e in region.equations)
        last = {name: p for p in range(self.count) for name in self._loads(p)}  # the pass that reads a value last

        def fits(v: Var, a: Var) -> bool:
            return self.flags[v] == self.flags[a] == full and last.get(self.values[a].name, 0) <= self.values[v].stage

        self.over = {v: a for v, a in (over or {}).items() if v in self.stores and not turns and fits(v, a)}
        for v, a in self.over.items():
            self.values[v].kept = self._place(f"x{self.atoms.index(a)}", v)  # one name for one memory
        #: Into how many parts the outermost axis may be cut: not where rows lie along it, whose sums are read before those of other parts are there.
        rows = any(x.reduces and v not in region.terminal for v, x in self.values.items())
        self.most = 1 if rows and 0 in self.inner else self.sizes[0] // 2
        self.source = self._text()

    def duration(self) -> float:
        """About how many nanoseconds the kernel takes on one thread."""
        work = sum(cost(e) for e in self.region.equations if e.primitive.name not in ("full", "reshape"))
        return math.prod(self.sizes) * (0.02 * work + 0.05 * (len(self.atoms) + len(self.stores)))

    # ---- axes and values
    def _axes(self) -> None:
        region, inputs = self.region, dict[Any, Atom]()
        made = {v for e in region.equations for v in e.outputs}
        for e in region.equations:
            for a in operands(e):
                if a not in made:
                    inputs.setdefault(key(a), a)
        self.inputs = inputs
        self.atoms = list(inputs.values())
        rank = len(region.shape)
        named = [*self.atoms, *region.outputs, *(e.inputs[0] for e in region.equations if e.outputs[0] in region.terminal)]
        seen = [region.layout[a] if isinstance(a, Var) else (False,) * rank for a in named]
        seen += [region.layout[e.outputs[0]] for e in region.equations if e.primitive.name == "iota"]
        inner = tuple(i >= region.rows for i in range(rank))
        self.sizes, flags = collapse(region.shape, [*seen, inner])
        self.flags = dict(zip(map(key, named), flags, strict=False))
        self.iotas = iter(flags[len(named) : -1])
        rank = len(self.sizes)
        reduced = math.prod(region.shape[region.rows :]) != 1
        self.rows = next(i for i, f in enumerate(flags[-1]) if f) if reduced else rank - 1
        self.inner = frozenset(range(self.rows, rank)) if reduced else frozenset((rank - 1,))

    def _deps(self, k: Any) -> frozenset[int]:
        return frozenset(d for d, f in enumerate(self.flags[k]) if f)

    def _values(self) -> None:
        region, self.values = self.region, dict[Any, _Value]()
        self.order: list[_Value] = []
        for i, (k, a) in enumerate(self.inputs.items()):
            self.values[k] = _Value(f"u{i}", a.dtype, self._deps(k))
        for e in region.equations:
            single = e.primitive.name in REDUCTIONS and e.outputs[0] not in region.terminal and math.prod(region.shape[region.rows :]) == 1
            self._value(Equation(table["cast"], e.inputs, {"dtype": e.outputs[0].dtype}, e.outputs) if single else e)
        for i, v in enumerate(self.stores):
            if self._deps(v) & self.inner:
                self.values[v].kept = self._place(f"x{len(self.atoms) + i}", v)

    def _value(self, e: Equation) -> None:
        name, parts = e.primitive.name, [self.values[key(a)] for a in operands(e)]
        if name == "reshape":
            self.values[e.outputs[0]] = parts[0]
            return
        deps = frozenset().union(*(p.deps for p in parts))
        if name == "iota":
            deps = frozenset(d for d, f in enumerate(next(self.iotas)) if f)
        stage = max((p.stage for p in parts), default=0)
        if stage and deps & self.inner and name not in REDUCTIONS and cost(e) >= _LONG:
            stage += any(p.stage == stage and p.price > _CHEAP for p in parts)
        for v in e.outputs:
            x = _Value(f"v{len(self.order)}", v.dtype, deps, e, parts, stage)
            if name in REDUCTIONS:
                x.reduces = True
                x.deps = deps - self.inner if v not in self.region.terminal else self._deps(v)
                x.stage = stage if v in self.region.terminal else stage + 1
            elif deps & self.inner:
                x.price = cost(e) + sum(p.price for p in parts if p.equation is not None and not p.reduces)
            self.values[v] = x
            self.order.append(x)

    # ---- passes
    def _inside(self, x: _Value) -> bool:
        """Whether a value is computed in the vectorised loop."""
        return x.equation is not None and not x.reduces and bool(x.deps & self.inner)

    def _passes(self) -> None:
        """What each pass computes: `needed` values in order, of which it leaves `left` in memory; reductions by the pass that does them."""
        self.reduced: dict[int, list[_Value]] = {}
        targets: dict[int, set[int]] = {}
        self.rowwise: list[_Value] = []  # accumulated once a row, because what they read is one number a row
        for x in self.order:
            if x.reduces and x.equation.outputs[0] in self.region.terminal and not self._deps(x.equation.inputs[0]) & self.inner:  # type: ignore[union-attr]
                self.rowwise.append(x)
            elif x.reduces:
                at = x.stage if x.equation.outputs[0] in self.region.terminal else x.stage - 1  # type: ignore[union-attr]
                at += bool(x.deps & self.inner and self._far(x))  # memory that is added to must not see a pass twice
                self.reduced.setdefault(at, []).append(x)
                targets.setdefault(at, set()).update(id(p) for p in x.operands)
        self.stored: dict[int, list[Var]] = {}  # what the vectorised loop of a pass stores
        for v in self.stores:
            if self._deps(v) & self.inner:
                x = self.values[v]
                self.stored.setdefault(x.stage, []).append(v)
                targets.setdefault(x.stage, set()).add(id(x))
        self.count = 1 + max(targets, default=0)
        self.needed: dict[int, list[_Value]] = {}
        self.left: dict[int, list[_Value]] = {}
        self.buffers: list[_Value] = []
        for p in range(self.count - 1, -1, -1):
            wanted = targets.get(p, set())
            needed = []
            for x in reversed(self.order):
                if id(x) not in wanted or not self._inside(x):
                    continue
                if x.stage < p and x.price > (3 if x.kept else _CHEAP):
                    targets.setdefault(x.stage, set()).add(id(x))
                    self.left.setdefault(x.stage, []).append(x)
                    if x.kept is None:
                        x.kept = f"b{len(self.buffers)}"
                        self.buffers.append(x)
                needed.append(x)
                if not (x.stage < p and x in self.left.get(x.stage, ())):
                    wanted.update(id(q) for q in x.operands)
            self.needed[p] = needed[::-1]

    def _far(self, x: _Value) -> bool:
        todo = list(x.operands)
        while todo:
            y = todo.pop()
            if y.equation is not None and _turns(y.equation):
                return True
            todo += y.operands
        return False

    # ---- text
    def _index(self, flags: Sequence[bool]) -> str:
        mine = [d for d, flag in enumerate(flags) if flag]
        return " + ".join("*".join([f"i{d}", *(f"n{e}" for e in mine if e > d)]) for d in mine) or "0"

    def _place(self, pointer: str, k: Any) -> str:
        return f"{pointer}, {self._index(self.flags[k])}"

    def _get(self, place: str) -> str:
        name = place.split(",")[0]
        return f"get({place}, {self.pointers.index(name)}, {len(self.pointers)})"

    def _put(self, place: str, value: str) -> str:
        name = place.split(",")[0]
        return f"put({place}, {value}, {self.pointers.index(name)}, {len(self.pointers)})"

    def _store(self, v: Var) -> str:
        number = self.atoms.index(self.over[v]) if v in self.over else len(self.atoms) + self.stores.index(v)
        return self._put(self._place(f"x{number}", v), packed(v.dtype, self.values[v].name))

    def _text(self) -> str:
        n, m, k, b = len(self.atoms), len(self.stores), len(self.terminal), len(self.buffers)
        self.pointers = [f"x{i}" for i in range(n + m)] + [f"t{i}" for i in range(k)] + [f"b{i}" for i in range(b)]
        rank, base = len(self.sizes), n + m + k + bool(b)
        lines = [f"x{i} = as_ptr(a[{i}], {stored(v.dtype)})" for i, v in enumerate([*self.atoms, *self.stores])]
        lines += [f"first = a[{base}]", f"last = a[{base + 1}]", f"lane = a[{base + 2}]", *(f"n{d} = a[{base + 3 + d}]" for d in range(rank))]
        self.partial: list[int] = []
        self.starts: list[str] = []
        for i, v in enumerate(self.terminal):
            kind, size = accumulator(self._how(v))[0], self._count(v)
            self.partial.append(math.prod(s for s, f in zip(self.sizes, self.flags[v], strict=True) if f) * _WIDTH)
            lines += [f"t{i} = as_ptr(a[{n + m + i}] + lane*{_WIDTH}*({size}), {kind})"]
            lines += [f"for j in range(({size})*{2 if _exact(self._how(v)) else 1}):", f"    t{i}[j] = {accumulator(self._how(v))[1]}"]
        width = "*".join(f"n{d}" for d in sorted(self.inner)) or "1"
        self.scratch = -(-math.prod(self.sizes[d] for d in self.inner) * sum(x.dtype.itemsize for x in self.buffers) // 64) * 64 + 64 * b
        offset = "0"
        for i, x in enumerate(self.buffers):
            lines.append(f"b{i} = as_ptr(a[{n + m + k}] + lane*a[{base + 3 + rank}] + {offset}, {stored(x.dtype)})")
            offset += f" + ({width})*{x.dtype.itemsize} + 64"
        at = " + ".join("*".join([f"i{d}", *(f"n{e}" for e in sorted(self.inner) if e > d)]) for d in sorted(self.inner)) or "0"
        for i, x in enumerate(self.buffers):
            x.kept = f"b{i}, {at}"
        return "\n".join(["def k(a):", *_indent([*lines, *self._outer()], 1)]) + "\n"

    def _how(self, v: Var) -> Equation:
        return self.values[v].equation  # type: ignore[return-value]

    def _count(self, v: Var) -> str:
        return "*".join(f"n{d}" for d, f in enumerate(self.flags[v]) if f) or "1"

    def _range(self, d: int) -> str:
        return "range(first, last)" if d == 0 else f"range(n{d})"

    def _outer(self) -> list[str]:
        """The loops over rows, and in them the passes."""
        before: dict[int, list[str]] = {}
        self.names: dict[int, str] = {}
        for i, k in enumerate(self.inputs):
            x = self.values[k]
            if not x.deps & self.inner:
                before.setdefault(max(x.deps, default=-1) + 1, []).append(self._load(f"x{i}", k, x))
        rest = [x for x in self.order if not self._inside(x) and not x.reduces]
        for x in [x for x in rest if x.stage == 0]:
            before.setdefault(max(x.deps, default=-1) + 1, []).extend(self._compute(x))
        row: list[str] = []
        for p in range(self.count):
            row += [line for x in rest if x.stage == p and p for line in self._compute(x)]
            row += self._pass(p)
        row += [line for x in rest if x.stage == self.count for line in self._compute(x)]
        for x in self.rowwise:
            zero = accumulator(x.equation)[1]
            row += [f"r{x.name} = {_term(x.equation, zero, x.operands[0].name, False)}", *([f"c{x.name} = {zero}"] if _exact(x.equation) else [])]
            row += self._reduced(x)
        for v in self.stores:
            if not self._deps(v) & self.inner:
                row.append(self._store(v))
        out: list[str] = []
        for d in range(self.rows + 1):
            out += _indent(before.get(d, []), d)
            if d < self.rows:
                out += _indent([f"for i{d} in {self._range(d)}:"], d)
        return out + _indent(row, self.rows)

    def _load(self, pointer: str, k: Any, x: _Value) -> str:
        return f"{x.name} = {loaded(x.dtype, self._get(self._place(pointer, k)))}"

    def _compute(self, x: _Value, slow: bool = False) -> list[str]:
        e = x.equation
        assert e is not None
        if e.primitive.name == "iota":
            return [f"{x.name} = {computed(x.dtype)}({' + '.join(f'i{d}' for d in x.deps) or '0'})"]
        text = expression(e, [p.name for p in x.operands])
        assert text is not None
        if _turns(e) and (slow or not self._inside(x)):
            text = text.replace(f"{e.primitive.name}_{in_vector(x.dtype)}(", f"math.{e.primitive.name}(")
        return [f"{', '.join(self.values[v].name for v in e.outputs)} = {text}"]

    def _pass(self, p: int) -> list[str]:
        reduced, needed = self.reduced.get(p, []), self.needed.get(p, [])
        if not reduced and not needed and p not in self.stored:
            return []
        rows = [x for x in reduced if not x.deps & self.inner]  # one register each; the others add to memory
        turns = sorted({in_vector(x.dtype) for x in needed if self._fresh(x, p) and _turns(x.equation)})  # type: ignore[arg-type]
        floats = any(x.equation.primitive.name == "sum" and x.equation.inputs[0].dtype.inexact for x in rows)  # type: ignore[union-attr]
        start, done = [], []
        for x in rows:
            zero = accumulator(x.equation)[1]
            start += [f"r{x.name} = {zero}", *([f"c{x.name} = {zero}"] if _exact(x.equation) else [])]
            done += self._reduced(x)
        *middle, last = sorted(self.inner)
        lo, hi, at = ("first", "last", "first + ") if last == 0 else ("0", f"n{last}", "")
        if floats or turns:
            size = _REDO if turns else 64 if any(x.equation.inputs[0].dtype.is_complex for x in rows) else _BLOCK  # type: ignore[union-attr]
            blocks = f"({hi} - {lo}) // {size}" if last == 0 else f"{hi} // {size}"
            tail = f"range({at}{blocks} * {size}, {hi})"
            loop = [f"for q in range({blocks}):"]
            loop += _indent(self._block(p, rows, turns, f"for j in range({size}):", [f"i{last} = {at}q*{size} + j"]), 1)
            loop += self._block(p, rows, turns, f"for i{last} in {tail}:", [])
        else:
            loop = [f"for i{last} in range({lo}, {hi}):", *_indent(self._body(p, rows, "r"), 1)]
        lines = [line for i, d in enumerate(middle) for line in _indent([f"for i{d} in {self._range(d)}:"], i)]
        return [*start, *lines, *_indent(loop, len(middle)), *done]

    def _loads(self, p: int) -> set[str]:
        """The names of what a pass reads."""
        loads = {q.name for x in self.needed.get(p, []) if self._fresh(x, p) for q in x.operands}
        return loads | {q.name for x in self.reduced.get(p, []) for q in x.operands}

    def _fresh(self, x: _Value, p: int) -> bool:
        return not (x.stage < p and x in self.left.get(x.stage, ()))

    def _block(self, p: int, rows: list[_Value], turns: list[str], head: str, first: list[str]) -> list[str]:
        """One stretch of the vectorised loop with accumulators of its own, done again by slower functions where arguments are too large."""
        start = [f"s{x.name} = {_start(x.equation)}" for x in rows]  # type: ignore[arg-type]
        lines = [*start, *(f"far_{s} = np.float{s[1:]}(0)" for s in turns), head, *_indent([*first, *self._body(p, rows, "s", bool(turns))], 1)]
        if turns:
            lines.append(f"if not ({' and '.join(f'far_{s} <= FAR_{s}' for s in turns)}):")
            lines += _indent([*start, head, *_indent([*first, *self._body(p, rows, "s", slow=True)], 1)], 1)
        return [*lines, *(line for x in rows for line in _join(x))]

    def _body(self, p: int, rows: list[_Value], register: str, watch: bool = False, slow: bool = False) -> list[str]:
        lines: list[str] = []
        loads = self._loads(p)
        for i, k in enumerate(self.inputs):
            x = self.values[k]
            if x.deps & self.inner and x.name in loads:
                lines.append(self._load(f"x{i}", k, x))
        buffered, done = {id(x) for x in self.left.get(p, ()) if x in self.buffers}, set()
        for x in self.needed.get(p, []):
            if not self._fresh(x, p):
                lines.append(f"{x.name} = {loaded(x.dtype, self._get(x.kept))}")  # type: ignore[arg-type]
                continue
            if watch and _turns(x.equation):  # type: ignore[arg-type]
                s = in_vector(x.dtype)
                lines.append(f"far_{s} = vmax(far_{s}, abs({x.operands[0].name}))")
            if x.equation not in done:
                lines += self._compute(x, slow)
                done.add(x.equation)
            if id(x) in buffered:
                lines.append(self._put(x.kept, packed(x.dtype, x.name)))  # type: ignore[arg-type]
        lines += [self._store(v) for v in self.stored.get(p, ())]
        for x in self.reduced.get(p, []):
            e, y = x.equation, x.operands[0].name
            if x in rows:
                lines.append(f"{register}{x.name} = {_term(e, f'{register}{x.name}', y, register == 's')}")
            else:
                i = self.terminal.index(e.outputs[0])  # type: ignore[union-attr]
                place = self._place(f"t{i}", e.outputs[0])  # type: ignore[union-attr]
                lines.append(self._put(place, _term(e, self._get(place), y, False)))
        return lines

    def _reduced(self, x: _Value) -> list[str]:
        """A finished row: a register of its dtype, or a term of a terminal."""
        e = x.equation
        assert e is not None
        value = f"r{x.name}"
        if e.outputs[0] in self.region.terminal:
            place = self._place(f"t{self.terminal.index(e.outputs[0])}", e.outputs[0])
            pointer, at = place.split(", ", 1)
            if not _exact(e):
                return [f"{pointer}[{at}] = {_both(e, f'{pointer}[{at}]', value)}"]
            high, low = f"{pointer}[{at}]", f"{pointer}[({at}) + {self._count(e.outputs[0])}]"
            return [f"{high}, z = two_sum({high}, {value})", f"{low} += c{x.name} + z"]
        if _exact(e):
            value = f"carried(r{x.name}, c{x.name})"
        return [f"{x.name} = {value} != 0" if x.dtype is bool_ else f"{x.name} = {rounded(x.dtype, value)}"]


def operands(equation: Equation) -> Sequence[Atom]:
    """What an equation reads; the value of `full` is an operand here, so that kernels do not depend on it."""
    if equation.primitive.name == "full":
        return (Literal(equation.params["value"], equation.params["dtype"]),)
    return equation.inputs


def key(atom: Atom) -> Any:
    """Equal for the same variable or the same constant."""
    return atom.key() if isinstance(atom, Literal) else atom


def _indent(lines: Sequence[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def _turns(e: Equation) -> bool:
    """Whether an equation is a sine or cosine whose vector code has a range."""
    return e.primitive.name in ("sin", "cos") and e.outputs[0].dtype.is_float


# ---- accumulators: wide from row to row and block to block, in the dtype itself inside a block ----------------------------------------------
def monoid(name: str, source: DType, target: DType) -> tuple[str, str, str]:
    """(type, start, how two of them combine) of a reduction's accumulator."""
    if name in ("any", "all") or (source is bool_ and name in ("max", "min")):
        least = name in ("all", "min")
        return "np.uint8", f"np.uint8({int(least)})", "{0} & {1}" if least else "{0} | {1}"
    if name in ("max", "min"):
        return computed(source), lowest(source, -1 if name == "max" else 1), extreme(source, name)
    kind = wide(target)
    return kind, f"{kind}({int(name == 'prod')})", "{0} * {1}" if name == "prod" else "{0} + {1}"


def accumulator(e: Any) -> tuple[str, str, str]:
    """The same for an equation."""
    return monoid(e.primitive.name, e.inputs[0].dtype, e.outputs[0].dtype)


def _exact(e: Any) -> bool:
    """Whether an accumulator is no wider than what it adds, so that rounding errors are carried along."""
    return e.primitive.name == "sum" and e.inputs[0].dtype.inexact and e.inputs[0].dtype.itemsize == (16 if e.inputs[0].dtype.is_complex else 8)


def _start(e: Equation) -> str:
    if e.primitive.name == "sum" and e.inputs[0].dtype.is_float:
        return f"{computed(e.inputs[0].dtype)}(0)"
    return accumulator(e)[1]


def _term(e: Any, total: str, value: str, block: bool) -> str:
    """An accumulator, of a block or wider, with one more element."""
    if block and e.primitive.name == "sum" and e.inputs[0].dtype.is_float:
        return f"fadd({total}, {value})"
    return _both(e, total, value)


def _both(e: Any, total: str, value: str) -> str:
    kind, _, combine = accumulator(e)
    return combine.format(total, f"{kind}({value})")


def _join(x: _Value) -> list[str]:
    """A block's accumulator into the row's."""
    if _exact(x.equation):
        return [f"r{x.name}, z = two_sum(r{x.name}, s{x.name})", f"c{x.name} += z"]
    return [f"r{x.name} = {_both(x.equation, f'r{x.name}', f's{x.name}')}"]


def rounded(dtype: DType, text: str) -> str:
    """A wide value as a register of a dtype."""
    value = f"{computed(dtype)}({text})"
    return f"round_{dtype.short}({value})" if computed(dtype) != stored(dtype) and dtype is not bool_ else value


def finish(e: Any) -> str:
    """The kernel that turns the accumulators of all threads into a result. a: accumulators, result, elements, lanes."""
    (v,), (kind, _, _) = e.outputs, accumulator(e)
    lines = [f"t = as_ptr(a[0], {kind})", f"y = as_ptr(a[1], {stored(v.dtype)})", "n = a[2]", "for j in range(n):", "    r = t[j]"]
    if _exact(e):
        lines += ["    c = t[n + j]", "    for lane in range(1, a[3]):", f"        at = {_WIDTH // v.dtype.itemsize}*lane*n + j"]
        lines += ["        r, z = two_sum(r, t[at])", "        c += z + t[at + n]", "    r = carried(r, c)"]
    else:
        step = _WIDTH // np.dtype(kind.removeprefix("np.")).itemsize
        lines += ["    for lane in range(1, a[3]):", f"        r = {accumulator(e)[2].format('r', f't[{step}*lane*n + j]')}"]
    lines.append(f"    y[j] = {'r' if v.dtype is bool_ else packed(v.dtype, f'{computed(v.dtype)}(r)')}")
    return "\n".join(["def k(a):", *_indent(lines, 1)]) + "\n"
