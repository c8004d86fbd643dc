"""Fused regions as NumPy source: a loop over blocks of rows that fit into the cache, each operation writing into a small buffer.

NumPy loses its time to memory traffic: a chain of ten operations on a large array moves it ten times. In blocks of some hundred kilobytes the
intermediate values never leave the cache, and never exist as a whole. The text is plain NumPy on slices.

Promises: every element gets the value that the equations one by one give it; sums over whole rows are NumPy's or a dot product over at most DOT
elements at a time; sums over blocks add the blocks' sums, in float64 where the result is one number, so they are at least as accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minidl.backends.base import beside
from minidl.backends.numpy_into import INTO, elementwise, into
from minidl.backends.numpy_kernels import KERNELS, kernel_of
from minidl.backends.numpy_memory import empty
from minidl.dtypes import DType, float32
from minidl.emit import static
from minidl.fusion import Region, regions
from minidl.graph import Atom, Emitted, Equation, Graph, Literal, Var

#: Bytes of all the arrays that one block touches, and the least of one of them: smaller blocks pay more for calls than they save in traffic.
BLOCK, LEAST = 1 << 21, 1 << 17
#: Rows of a matrix product from which BLAS is as fast as on all of them.
LINES = 64
#: Elements of one dot product in float32, which BLAS may add up in few partial sums.
DOT = 1024
#: Elements of a ufunc's buffer in a loop whose rows are as long. NumPy copies what is broadcast along rows shorter than its buffer, of 8192 elements
#: where nobody asks for less, which doubles the time of an addition.
BUFFER = 512
REDUCTIONS = frozenset("sum max min prod any all logsumexp argmax argmin".split())
TERMINAL = {"sum": np.add, "max": np.maximum, "min": np.minimum}
ROWWISE = frozenset(("softmax", "log_softmax"))
_VIEWS = frozenset(("reshape", "broadcast_to"))
_DOTTED = frozenset(("float32", "float64"))


def several(equation: Equation) -> bool:
    """Whether a kernel goes over its operand several times."""
    name = equation.primitive.name
    return name in ROWWISE or name == "logsumexp" or (elementwise(equation) and into(equation) is None and name != "cast")


#: A region as one equation of a program: the primitive of its pseudo-equation.
Loop = Emitted("loop", True)


def cuts(region: Region) -> list[tuple[int, int]] | None:
    """(axis, size) along which the region is cut into blocks, the axes before the last one index by index; None where blocks do not pay."""
    made = {v for e in region.equations for v in e.outputs}
    full = [v for v in (*region.inputs, *made) if region.kind(v) == "FULL"]
    streams = sum(region.kind(v) == "FULL" for v in (*region.inputs, *region.outputs)) + 2
    large = [e for e in region.equations if any(isinstance(a, Var) and region.kind(a) == "FULL" for a in (*e.inputs, *e.outputs))]
    if not full or (len(large) < 2 and not any(map(several, large))):
        return None
    size = max(v.dtype.itemsize for v in full)
    budget = max(BLOCK // streams, LEAST)
    if math.prod(region.shape) * size < 2 * budget:
        return None
    found = []
    for axis, n in enumerate(region.shape[: region.rows]):
        below = math.prod(region.shape[axis + 1 :]) * size
        if n == 1:
            continue
        step = _step(n, max(1, budget // below), below)
        found.append((axis, step))
        if step > 1 or below <= budget:
            break
    while any(len({region.layout[v][axis] for axis, _ in found}) > 1 for v in region.terminal):
        found.pop()  # else blocks of a total would be partly added up, partly put side by side
    return found or None


def _step(n: int, most: int, nbytes: int) -> int:
    """So many of n at a time, at most `most`: a divisor of n if one is near, else a number that keeps blocks on cache lines."""
    if most >= n:
        return n
    near = [k for k in range(most, most * 5 // 8, -1) if n % k == 0][:1] if most < 1 << 16 else []
    line = 64 // math.gcd(64, nbytes)
    even = most // line * line or most
    return near[0] if near and near[0] % line == 0 else even


def blocked(graph: Graph) -> Graph:
    """The graph with its large regions as loops; itself where there is nothing large."""
    if not any(v.nbytes >= 2 * LEAST for v in graph.variables()):
        return graph
    equations: list[Equation] = []
    items = regions(graph, elementwise, reductions=REDUCTIONS, terminal=TERMINAL, rowwise=ROWWISE, alone=several)
    if room := beside("minidl.rewrites.regions", "numpy"):
        items = room.recompute(items, graph, elementwise)
    sizes = {item: cut for item in items if isinstance(item, Region) and (cut := cuts(item))}
    whole = lambda region: region in sizes and sizes[region][0][0] == 0 and sizes[region][0][1] >= LINES
    inside = room.products(items, graph, whole) if room else {}
    for item in items:
        if isinstance(item, Region):
            cut, item = sizes.get(item), item.merged()
            made = {v: inside[v] for v in item.inputs if v in inside}
            reads = dict.fromkeys([*(v for v in item.inputs if v not in made), *(a for e in made.values() for a in e.inputs)])
            loop = Equation(Loop, tuple(reads), {"region": item, "cut": cut, "products": made}, item.outputs)
            equations += [loop] if cut else item.equations
        elif item.outputs[0] not in inside:
            equations.append(item)
    return Graph(graph.inputs, equations, graph.outputs, graph.name)


class Writer:
    """The text of one loop. names: the program's variables; env: what the text needs; over: outputs → dead inputs whose memory they take."""

    def __init__(self, loop: Equation, names: dict[Var, str], env: dict[str, Any], over: dict[Var, Var]):
        region, cut, self.products = loop.params["region"], loop.params["cut"], loop.params["products"]
        self.region, self.cut, self.env, self.over = region, list(cut), env, over
        self.given, self.names = names, dict(names)
        self.sizes = dict(cut)
        self.made = {v: e for e in region.equations for v in e.outputs}
        self.dots = _dots(region, self.made)
        self.skipped = {p.outputs[0] for p in self.dots.values()}
        self.summed = {v for v in region.terminal if not any(region.layout[v][axis] for axis, _ in cut)}  # added up over the blocks
        self.head: list[str] = []
        self.lines: list[str] = []
        self.tail: list[str] = []
        self.local: dict[str, None] = {}  # names that must not outlive the loop
        self.buffers: list[tuple[str, DType]] = []
        self.free: list[int] = []
        self.holds: dict[Var, int] = {}  # the buffer of a variable
        self.root: dict[Var, Var] = {}  # whose memory a variable shows
        self.home: dict[Var, Var] = {}  # the output in whose memory a value lies until that is written
        self.narrow: set[Var] = set()  # full values that are held as something which broadcasts
        self.last: dict[Var, int] = {}
        self.room = 0  # bytes of the arrays that it makes

    def write(self) -> str:
        """The lines of the loop."""
        for i, e in enumerate(self.region.equations):
            if e.primitive.name in _VIEWS and isinstance(e.inputs[0], Var):
                self.root[e.outputs[0]] = self._root(e.inputs[0])
            self.last.update((self._root(a), i) for a in (*reads(e, self.dots, self.skipped), *e.outputs) if isinstance(a, Var))
        self._settle()
        self._enter()
        for i, e in enumerate(self.region.equations):
            if e.outputs[0] not in self.skipped:
                self._equation(i, e)
            for a in dict.fromkeys((*reads(e, self.dots, self.skipped), *e.outputs)):
                if isinstance(a, Var) and (root := self._root(a)) in self.holds and self.last[root] == i:
                    self.free.append(self.holds.pop(root))
        return "\n".join(self._frame())

    def _settle(self) -> None:
        """Give values homes: what makes an output writes over its operand, whose memory is the output's then; so there is less to go through."""
        at = {v: i for i, e in enumerate(self.region.equations) for v in e.outputs}
        for i, e in reversed(list(enumerate(self.region.equations))):
            out, kernel = e.outputs[0], into(e)
            home = self.home.get(out, out)
            if kernel is None or home not in self.region.outputs or self.region.kind(out) != "FULL":
                continue
            for a in e.inputs:
                source = self.made.get(a) if isinstance(a, Var) and a not in self.region.outputs and self.last[self._root(a)] == i else None
                own = into(source) if source and a.dtype is home.dtype and self.region.kind(a) == "FULL" and self._over(e, a, kernel[1]) else None
                if source is None or own is None:
                    continue
                over = self.over.get(home)  # this may be read no more
                if over is None or self.last[over] < at[a] or (self.last[over] == at[a] and self._over(source, over, own[1])):
                    self.home[a] = home
                    break

    def _over(self, e: Equation, a: Var, allowed: Sequence[int]) -> bool:
        """Whether a result may be written over an operand, wherever that stands."""
        return all(n in allowed for n, b in enumerate(e.inputs) if isinstance(b, Var) and self._root(b) is self._root(a))

    # ---- names and buffers
    def _root(self, v: Var) -> Var:
        return self.root.get(v, v)

    def _text(self, a: Atom) -> str:
        return self.names[a] if isinstance(a, Var) else self._constant(a.value, a.dtype)

    def _constant(self, value: Any, dtype: DType) -> str:
        return self._bind(np.array(value, dtype.numpy), f"k{len(self.env)}")

    def _bind(self, value: Any, name: str) -> str:
        self.env[name] = value
        return name

    def _assign(self, v: Var, value: str) -> None:
        if v in self.region.outputs:
            self.lines.append(f"{self.names[v]}[...] = {value}")
        else:
            self.lines.append(f"{self.names[v]} = {value}")
            self.local[self.names[v]] = None

    def _index(self, v: Var, shape: Sequence[int]) -> str:
        """`[i0:i0 + 64]` for the part of a variable of this shape that belongs to the block; empty where that is all of it."""
        lead = len(self.region.shape) - len(shape)
        parts = [":"] * len(shape)
        for axis, size in self.cut:
            if self.region.layout[v][axis] and axis >= lead:
                parts[axis - lead] = f"i{axis}:i{axis} + {size}"
        while parts and parts[-1] == ":":
            parts.pop()
        return f"[{', '.join(parts)}]" if parts else ""

    def _place(self, e: Equation, out: Var, allowed: Sequence[int], position: int) -> str:
        """Where a full result goes: its part of an output, the buffer of an operand that dies here, or another one."""
        if out in self.region.outputs or out in self.home:
            return self.names[self.home.get(out, out)]
        for number in reversed(allowed):
            a = e.inputs[number]
            if isinstance(a, Var) and (root := self._root(a)) in self.holds and self.last[root] == position and not self._slim(a):
                if a.dtype is out.dtype:
                    self.holds[out] = self.holds.pop(root)
                    return self.buffers[self.holds[out]][0]
        found = next((i for i in self.free if self.buffers[i][1] is out.dtype), None)
        if found is None:
            found = len(self.buffers)
            self.buffers.append((f"t{found}", out.dtype))
        else:
            self.free.remove(found)
        self.holds[out] = found
        return self.buffers[found][0]

    def _slim(self, a: Atom) -> bool:
        """Whether what is held for a value has fewer elements than the block."""
        return isinstance(a, Literal) or a in self.narrow or self.region.kind(a) != "FULL"

    def _wide(self, a: Atom) -> str:
        """An operand with all its elements."""
        if not (isinstance(a, Var) and a in self.narrow):
            return self._text(a)
        shape = [
            f"min({self.sizes[q]}, {n} - i{q})" if q in self.sizes and n % self.sizes[q] else str(self.sizes.get(q, n))
            for q, n in enumerate(self.region.shape)
        ]
        return f"{self._bind(np.broadcast_to, 'spread')}({self._text(a)}, ({', '.join(shape)},))"

    def _empty(self, name: str, shape: tuple[int, ...], dtype: DType) -> None:
        nbytes = math.prod(shape) * dtype.itemsize
        if name in dict(self.buffers):  # idle memory of one size serves the buffers of many loops
            nbytes = 1 << (nbytes - 1).bit_length()
        self.room += nbytes
        self.head.append(f"{name} = {self._bind(empty, 'empty')}({shape}, {static(dtype.numpy, self.env)}, {nbytes})")

    # ---- lines
    def _product(self, v: Var, e: Equation) -> None:
        """The rows of a matrix product that belong to the block, in a buffer."""
        (x, y), ((xc,), (yc,)) = e.inputs, e.params["contract"]
        self.names[v], name = f"{self.given[x]}_by_{self.given[y]}", f"t{len(self.buffers)}"  # type: ignore[index]
        self.holds[v] = len(self.buffers)
        self.buffers.append((name, v.dtype))
        rows = f"{self.given[x]}{'' if xc else '.T'}{self._index(v, v.shape)}"  # type: ignore[index]
        self.lines.append(f"{self.names[v]} = {self._bind(np.matmul, 'matmul')}({rows}, {self.given[y]}{'.T' if yc else ''}, out={name})")  # type: ignore[index]
        self.local[self.names[v]] = None
        self.room += x.nbytes + y.nbytes  # NumPy copies what BLAS cannot take

    def _enter(self) -> None:
        for v, e in self.products.items():
            self._product(v, e)
        for v in (v for v in self.region.inputs if v not in self.products):
            name, shape, view = self.given[v], v.shape, self.region.view(v)
            if len(shape) > len(view) or (1,) * (len(view) - len(shape)) + shape != view:
                self.head.append(f"{name}_v = {name}.reshape({view})")
                name, shape = f"{name}_v", view
                self.local[name] = None
            self.names[v] = name
            if part := self._index(v, shape):
                self.names[v] = f"{self.given[v]}_"
                self.lines.append(f"{self.names[v]} = {name}{part}")
                self.local[self.names[v]] = None
        for n, v in enumerate(v for v in self.made if v not in self.region.outputs):
            self.names[v] = f"v{n}"
        for v in self.region.outputs:
            name, view = self.given[v], self.region.view(v)
            self.names[v] = f"{name}_"
            self.local[self.names[v]] = None
            if v in self.summed:
                self.head.append(f"{name}_ = []")
                continue
            if v in self.over:
                self.head.append(f"{name} = {self.given[self.over[v]]}")
            else:
                self._empty(name, v.shape, v.dtype)
            if v.shape != view:
                self.head.append(f"{name}_v = {name}.reshape({view})")
                name = f"{name}_v"
                self.local[name] = None
            self.lines.append(f"{self.names[v]} = {name}{self._index(v, view)}")

    def _equation(self, i: int, e: Equation) -> None:
        (out,), name = e.outputs, e.primitive.name
        full = self.region.kind(out) == "FULL"
        kernel = into(e) if full else None
        if name in _VIEWS or name == "full":
            text = self._constant(e.params["value"], out.dtype) if name == "full" else self._text(e.inputs[0])
            if out in self.region.outputs:
                return self._assign(out, text)
            self.names[out] = text
            if full and (name == "full" or self._slim(e.inputs[0])):
                self.narrow.add(out)
        elif name == "iota":
            whole = f"{self.names[out]}_v"
            self.head.append(f"{whole} = {self._bind(KERNELS[name], name)}(size={e.params['size']}, dtype={static(out.dtype, self.env)})")
            self.local[whole] = None
            self._assign(out, whole + self._index(out, out.shape))
        elif name in REDUCTIONS:
            self._reduction(e, out)
        elif kernel is not None:
            place = self._place(e, out, kernel[1], i)
            short = f"{name}_into" if name in INTO else name
            call = f"{self._bind(kernel[0], short)}({', '.join(self._text(a) for a in e.inputs)}, out={place})"
            if out not in self.region.outputs:
                call = f"{self.names[out]} = {call}"
                self.local[self.names[out]] = None
            self.lines.append(call)
        else:
            args = [self._wide(a) if name in ROWWISE else self._text(a) for a in e.inputs]
            args += [f"{k}={static(v, self.env)}" for k, v in e.params.items()]
            own: Any = kernel_of(e)
            self._assign(out, f"{self._bind(own, name if own is KERNELS[name] else own.__name__)}({', '.join(args)})")
            if full and name not in ROWWISE and all(self._slim(a) for a in e.inputs) and out not in self.region.outputs:
                self.narrow.add(out)
        return None

    def _reduction(self, e: Equation, out: Var) -> None:
        region, name, (x,) = self.region, e.primitive.name, e.inputs
        ones = name == "sum" and out not in region.terminal and x.dtype.name in _DOTTED and not self._slim(x) and _dotted(region)
        if ones or out in self.dots:
            n, dot = region.shape[-1], self._bind(np.vecdot, "vecdot")
            args = [self._text(a) for a in self.dots.get(out, e).inputs]
            if n > DOT:
                args = [f"{a}.reshape(-1, {n // DOT}, {DOT})" for a in args]
            if out not in self.dots:
                args.append(self._bind(np.ones(min(n, DOT), x.dtype.numpy), f"ones{min(n, DOT)}_{x.dtype.short}"))
            text = f"{dot}({', '.join(args * (3 - len(args)))})"
            self._assign(out, f"{text}.sum(axis=-1).reshape(-1, 1)" if n > DOT else f"{text}[..., None]")
            return
        assert isinstance(x, Var)
        axis: Any = tuple(a for a, (f, g) in enumerate(zip(region.layout[x], region.layout[out], strict=True)) if f and not g)
        if not isinstance(e.params["axis"], tuple):
            axis = region.rows
        part = self._wide(x)
        half = out in self.summed and x.dtype.is_float and x.dtype.bits == 16  # the total is rounded once
        part = f"{part}.astype({self._bind(float32.numpy, 'f32')})" if half else part
        part = f"{self._bind(KERNELS[name], name)}({part}, axis={axis}, keepdims=True)"
        if out not in self.summed:
            return self._assign(out, part)
        total, ufunc = self.names[out], self._bind(TERMINAL[name], TERMINAL[name].__name__)
        done = f".astype({static(out.dtype.numpy, self.env)})" if half else ""
        done += f".reshape({out.shape})" if out.shape else ""
        if math.prod(out.shape) == 1:
            self.lines.append(f"{total}.append({part}.reshape(()))")
            wide, own = (f", dtype={self._bind(np.float64, 'f64')}", f".astype({static(out.dtype.numpy, self.env)})")
            if name != "sum" or half or out.dtype.name != "float32":
                wide = own = ""
            self.tail.append(f"{self.given[out]} = {ufunc}.reduce({total}{wide}){own}{done}")
        else:  # the first block's part is the total so far
            self.lines.append(f"{total} = [{ufunc}({total}[0], {part}, out={total}[0]) if {total} else {part}]")
            self.tail.append(f"{self.given[out]} = {total}[0]{done}")
        return None

    def _frame(self) -> list[str]:
        region, (axis, size) = self.region, self.cut[-1]
        block = tuple(self.sizes.get(a, n) for a, n in enumerate(region.shape))
        names = [name for name, _ in self.buffers]
        for name, dtype in self.buffers:
            self._empty(name, block, dtype)
        self.local.update(dict.fromkeys(names))
        out = list(self.head)
        for depth, (a, step) in enumerate(self.cut):
            out.append("    " * depth + f"for i{a} in range(0, {region.shape[a]}, {step}):" + ("" if depth else f"  # {region!r}"))
        body = list(self.lines)
        if (rest := region.shape[axis] % size) and names:
            part = "".join(f"{name}_all[{':, ' * axis}:{rest}], " for name in names)
            every = "".join(f"{name}_all, " for name in names)
            out.insert(len(self.head), f"{every}= {', '.join(names)},")
            body.insert(0, f"{', '.join(names)}, = ({part}) if i{axis} == {region.shape[axis] - rest} else ({every})")
            self.local.update((f"{name}_all", None) for name in names)
        out += ["    " * len(self.cut) + line for line in body]
        if region.shape[-1] >= BUFFER and any(region.kind(v) not in ("FULL", "SCALAR") for v in self.names if v in region.layout):
            setbufsize = self._bind(np.setbufsize, "setbufsize")  # an error leaves it to the end of the program's np.errstate
            out.insert(0, f"buffer_ = {setbufsize}({BUFFER})")
            self.tail.insert(0, f"{setbufsize}(buffer_)")
        return [*out, *self.tail, f"del {', '.join([*(f'i{a}' for a, _ in self.cut), *self.local])}"]


def reads(e: Equation, dots: dict[Var, Equation], skipped: set[Var]) -> Sequence[Atom]:
    """What an equation reads when products are folded into the sums that read them."""
    return () if e.outputs[0] in skipped else dots[e.outputs[0]].inputs if e.outputs[0] in dots else e.inputs


def _dotted(region: Region) -> bool:
    """Whether dot products may add up the rows of a region: where these are cut into at most DOT elements."""
    n = region.shape[-1]
    return region.rows == len(region.shape) - 1 and (n <= DOT or (n % DOT == 0 and region.rows == 1))


def _dots(region: Region, made: dict[Var, Equation]) -> dict[Var, Equation]:
    """Row sums of a product that nothing else reads: a dot product makes them without storing the product. Only of values that are made here, whose
    memory is contiguous, since BLAS does the others one by one."""
    readers: dict[Var, int] = {}
    for e in region.equations:
        for a in e.inputs:
            if isinstance(a, Var):
                readers[a] = readers.get(a, 0) + 1
    found = {}
    if not _dotted(region):
        return {}

    def stored(a: Atom) -> bool:
        return isinstance(a, Var) and a in made and region.kind(a) == "FULL" and a not in region.outputs and into(made[a]) is not None

    for e in region.equations:
        x = e.inputs[0] if e.inputs else None
        if e.primitive.name != "sum" or not isinstance(x, Var) or region.kind(e.outputs[0]) != "ROW" or e.outputs[0] in region.terminal:
            continue
        product = made.get(x)
        if product is None or product.primitive.name not in ("mul", "square") or readers[x] > 1 or x in region.outputs:
            continue
        if x.dtype.name in _DOTTED and all(map(stored, product.inputs)):
            found[e.outputs[0]] = product
    return found


def taken(region: Region, free: Callable[[Var], bool]) -> dict[Var, Var]:
    """Outputs that may be written over an input, block by block: inputs whose memory is free, and which nothing reads once the output is written."""
    dots = _dots(region, {v: e for e in region.equations for v in e.outputs})
    skipped = {p.outputs[0] for p in dots.values()}
    last: dict[Var, int] = {}
    root: dict[Var, Var] = {}
    for i, e in enumerate(region.equations):
        if e.primitive.name in _VIEWS and isinstance(e.inputs[0], Var):
            root[e.outputs[0]] = root.get(e.inputs[0], e.inputs[0])
        last.update((root.get(a, a), i) for a in (*reads(e, dots, skipped), *e.outputs) if isinstance(a, Var))
    found: dict[Var, Var] = {}
    for i, e in enumerate(region.equations):
        out, kernel = e.outputs[0], into(e)
        if out not in region.outputs or kernel is None or region.kind(out) != "FULL":
            continue
        for v in region.inputs:
            same = v.shape == out.shape and v.dtype is out.dtype and region.kind(v) == "FULL" and v not in found.values()
            here = [n for n, a in enumerate(e.inputs) if isinstance(a, Var) and root.get(a, a) is v]
            if same and free(v) and (last[v] < i or (last[v] == i and set(here) <= set(kernel[1]))):
                found[out] = v
                break
    return found


def written(
    loop: Equation, names: dict[Var, str], env: dict[str, Any], free: Callable[[Var], bool]
) -> tuple[str, Iterable[Var], int]:
    """The text of a loop, the inputs that it writes over, and the bytes of the arrays that it makes. free: whether the memory of an input is."""
    over = taken(loop.params["region"], lambda v: v not in loop.params["products"] and free(v))
    writer = Writer(loop, names, env, over)
    return writer.write(), over.values(), writer.room
