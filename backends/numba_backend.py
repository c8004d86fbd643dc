"""The numba backend: NumPy when eager; a traced graph becomes a program of kernels compiled in nopython mode.

Promises: values and dtypes are those of the NumPy definitions; kernels are shared between programs and processes (see numba_kernels), so compiling a
graph whose kernels exist takes microseconds an equation; large elementwise chains run as one loop; an equation without a kernel calls NumPy between
two compiled segments. A compiled program may run in several threads at once and holds no interpreter lock while it runs.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from minidl.backends import numba_linear
from minidl.backends.base import brought
from minidl.backends.numba_emit import is_elementwise
from minidl.backends.numba_kernels import DIVIDE, kernel, kernels, machine, pthreads, threads
from minidl.backends.numba_loops import REDUCTIONS, Loops, alone, finish
from minidl.backends.numba_lower import LOWER, move, object_mode, shifted
from minidl.backends.numpy_backend import NumpyBackend
from minidl.backends.numpy_memory import LEAST
from minidl.backends.numpy_memory import empty as memory
from minidl.backends.reuse import VIEWS, narrow_places
from minidl.dtypes import DType
from minidl.emit import load
from minidl.fusion import Region, regions
from minidl.graph import Atom, Equation, Graph, Literal, Var, last_uses
from minidl.lowering import expand, multiplied, swapped
from minidl.recompute import products, recompute
from minidl.shapes import describe

__all__ = ["NumbaBackend", "make", "object_mode"]
Ref = tuple["Storage", int]
_ALIGN = 64
_LARGE, _MANY = 1 << 16, 1500  # from how many bytes on scratch memory is placed by size, and how many blocks at most: that takes their square
_ROWS, _PART = 64, 1 << 19  # rows of a product that are worth a call of BLAS, and bytes of them that a loop waits for
_OPEN = ("softmax", "log_softmax", "logsumexp")  # they have a kernel, which serves where they are small


class Storage:
    """A block of memory of a running program: scratch memory until it is given a number, then an input or an output."""

    __slots__ = ("base", "exact", "first", "last", "nbytes", "offset", "users")

    def __init__(self, nbytes: int, base: int = 0):
        self.exact = nbytes  # what kernels write, for which an output must have room; nbytes is what scratch memory gives
        self.nbytes = -(-max(nbytes, 1) // _ALIGN) * _ALIGN
        self.base = base
        self.offset = self.users = 0  # users: how many variables lie in it
        self.first: int | None = None  # the calls between which scratch memory is alive
        self.last = 0


class Plan:
    """A graph as a table of kernel calls with a static memory plan. What a lowering uses is `at`, `out`, `temp`, `alias`, `const`, `raw`, `call`
    and `nested`."""

    share = 1e5  #: nanoseconds of work for which another thread pays: starting and joining one takes some tens of microseconds

    def __init__(self, graph: Graph, fuse_least: int, fuse_most: int, donate: Sequence[int] | None = None):
        """donate: None for a program inside another, whose results lie where that one says."""
        self.inner, donate = donate is None, donate or ()
        self.calls: list[tuple[str, tuple]] = []
        self.notes: list[str] = []
        self.keep: list[Any] = []  # arrays whose addresses are in the table
        self.constants: dict[Any, int] = {}
        self.place: dict[Var, Ref] = {}
        self.fuse = fuse_least, fuse_most
        self.inputs = [Storage(v.nbytes, 1 + i) for i, v in enumerate(graph.inputs)]
        for v, s in zip(graph.inputs, self.inputs, strict=True):
            self.place[v] = s, 0
        graph = self._opened(graph)
        self.narrow = narrow_places(graph)
        items = recompute(regions(graph, is_elementwise, reductions=REDUCTIONS, terminal=REDUCTIONS, most=fuse_most), graph, is_elementwise)
        self.products = products(items, graph, lambda region: self._is_loop(region) and not region.terminal)
        items = self._beside(items)
        self.leaves = {v for v in graph.outputs if isinstance(v, Var)}
        self.given = {v for v in (graph.inputs[i] for i in donate) if graph.inputs.count(v) == 1}
        self.dying = self._dying(graph, items)
        self.over: dict[Var, Var] = {}  # outputs that are written over a donated input
        for item in items:
            if (isinstance(item, Region) and not item.outputs) or item.outputs[0] in self.products:
                continue  # nobody reads it, or the loop that does makes it
            if self._is_loop(item):
                assert isinstance(item, Region)
                names = "; ".join(e.primitive.name for e in item.equations)
                self.notes.append(f"{', '.join(map(describe, item.outputs))} = loop({names})")
                self.loops(item)
            else:
                for equation in item.equations if isinstance(item, Region) else (item,):
                    self._single(equation)
        self._finish(graph)

    def _beside(self, items: Sequence[Equation | Region]) -> list[Equation | Region]:
        """The items with each product that a loop makes just before that loop, where its operands are read."""
        out: list[Equation | Region] = []
        for item in items:
            if isinstance(item, Region):
                out += [self.products[v] for v in item.inputs if v in self.products]
            if item.outputs and item.outputs[0] in self.products:
                continue
            out.append(item)
        return out

    def _is_loop(self, item: Equation | Region) -> bool:
        """Whether an item is one kernel; the equations of a small region are kernels of their own."""
        return isinstance(item, Region) and math.prod(item.shape) >= self.fuse[0]

    def _dying(self, graph: Graph, items: Sequence[Equation | Region]) -> dict[Var, Equation]:
        """For each value the equation (of a loop: its first) that reads it last, and may overwrite it. Not for what some view shows."""
        last: dict[Var, Equation] = {}
        shown: set[Atom] = set(graph.outputs)
        for item in items:
            for e in item.equations if isinstance(item, Region) else (item,):
                reader = item.equations[0] if self._is_loop(item) else e  # type: ignore[union-attr]
                last.update((a, reader) for a in e.inputs if isinstance(a, Var))
                shown.update(e.inputs if e.primitive.name in VIEWS or e.primitive.name == "copy" else ())
        return {v: e for v, e in last.items() if v not in shown}

    def _spare(self, v: Var) -> bool:
        """Whether a value lies in scratch memory of its own, so much that a kernel which writes over it is worth having beside the plain one."""
        ref = self.place[v]
        return not isinstance(ref, int) and v.nbytes >= _LARGE and ref[0].base == 0 == ref[1] and ref[0].users == 1

    def _opened(self, graph: Graph) -> Graph:
        """The graph with decompositions in place of what has no kernel, and of large equations whose kernel is for small sizes."""

        def choose(e: Equation) -> bool:
            return not _has_kernel(e) or (e.primitive.name in _OPEN and math.prod(e.inputs[0].shape) >= self.fuse[0])

        return multiplied(expand(swapped(graph), choose=choose), _ALIGN**2)

    # what lowerings use
    def at(self, atom: Atom) -> Any:
        """The address of a value."""
        return self.const(atom.value, atom.dtype) if isinstance(atom, Literal) else self.place[atom]

    def temp(self, nbytes: int) -> Ref:
        """Scratch memory."""
        return Storage(nbytes), 0

    def out(self, v: Var) -> Ref:
        """Memory for a variable."""
        self.alias(v, ref := self.temp(v.nbytes))
        return ref

    def alias(self, v: Var, ref: Any) -> None:
        """Let a variable be some memory that exists."""
        self.place[v] = ref
        if not isinstance(ref, int):
            ref[0].users += 1

    def raw(self, value: Any) -> int:
        """The address of constant bytes."""
        value = np.ascontiguousarray(value)
        key = (value.dtype.str, value.tobytes())
        if key not in self.constants:
            self.keep.append(value)
            self.constants[key] = value.ctypes.data
        return self.constants[key]

    def const(self, value: Any, dtype: DType) -> int:
        """The address of a scalar."""
        array = np.array(value, dtype.numpy)
        return self.raw(array.view(np.uint16) if array.dtype.itemsize == 2 else array)

    def call(self, source: str, *args: Any) -> None:
        """Run a kernel on addresses and integers."""
        self.calls.append((source, args))

    def nested(self, graph: Graph) -> int:
        """The address of the program of a loop body or branch."""
        plan = Plan(graph, *self.fuse)
        self.keep.append(plan)
        self.notes += ["  | " + line for line in plan.notes]
        return plan.header.ctypes.data

    def loops(self, region: Region) -> None:
        """Run a region as one kernel."""
        inside = {v: self.products[v] for v in region.inputs if v in self.products}
        busy = {*inside, *(a for e in inside.values() for a in e.inputs)}
        dying = [a for a in region.inputs if self.dying.get(a) is region.equations[0] and a not in busy]
        free = [a for a in dying if a in self.given or self._spare(a)]
        over: dict[Var, Var] = {}
        for v in sorted(region.outputs, key=lambda v: v not in self.leaves):  # a donated input for what leaves, scratch memory for the others
            fits = [a for a in free if a.shape == v.shape and a.dtype is v.dtype and (v in self.leaves) is (a in self.given)]
            if fits:
                over[v] = fits[0]
                free.remove(fits[0])
        made = Loops(region.merged(), over)
        self.over.update((v, a) for v, a in made.over.items() if a in self.given)
        for v, a in made.over.items():
            self.alias(v, self.at(a))
        lanes = min(threads(), int(made.duration() // self.share), made.sizes[0] // 2) or 1
        stores = [self.at(v) if v in made.over else self.out(v) for v in made.stores]
        if inside and lanes == 1 and numba_linear.has_rows(inside.values()):
            self._in_parts(region, made, stores, inside)
            return
        for e in inside.values():
            LOWER["dot_general"](self, e)
        arrays = [*map(self.at, made.atoms), *stores]
        partial = [self.temp(lanes * n) for n in made.partial]
        arrays += [*partial, *([self.temp(lanes * made.scratch)] if made.scratch else [])]
        args = *arrays, 0, made.sizes[0], 0, *made.sizes, made.scratch
        if lanes == 1 or (found := pthreads()) is None:
            self.call(made.source, *args)
        else:
            self.call(DIVIDE, *found, kernel(made.source), lanes, len(arrays), made.sizes[0], len(args), *args)
        for v, ref in zip(made.terminal, partial, strict=True):
            self.call(finish(made.values[v].equation), ref, self.out(v), math.prod(v.shape), lanes)

    def _in_parts(self, region: Region, made: Loops, stores: list[Any], inside: dict[Var, Equation]) -> None:
        """A kernel that takes some rows at a time, and before each turn the products that make these rows of its operands."""
        rows, columns = region.shape
        most = max(_ROWS, _PART // (columns * max(v.dtype.itemsize for v in inside)))
        step = -(-rows // -(-rows // most) // 16) * 16  # parts of one size, in which BLAS has no rows left over
        buffers = {v: self.temp(step * columns * v.dtype.itemsize) for v in inside}
        unit, scratch = made.sizes[0] // rows, [self.temp(made.scratch)] if made.scratch else []
        for first in range(0, rows, step):
            last = min(first + step, rows)
            for v, e in inside.items():
                numba_linear.product_rows(self, e, first, last, buffers[v])
                self.place[v] = shifted(buffers[v], -first * columns, v.dtype)
            self.call(made.source, *map(self.at, made.atoms), *stores, *scratch, first * unit, last * unit, 0, *made.sizes, made.scratch)

    # equations
    def _single(self, equation: Equation) -> None:
        first = len(self.calls)
        if not _has_kernel(equation):  # only empty arrays are not decomposed
            for v in equation.outputs:
                self.out(v)
            return
        if is_elementwise(equation):
            self.loops(alone(equation))
            self.notes.append(f"{', '.join(map(describe, equation.outputs))} = loop({equation.primitive.name})")
            return
        LOWER[equation.primitive.name](self, equation)
        used = len(self.calls) - first
        self.notes.append(f"{', '.join(map(describe, equation.outputs))} = {equation.primitive.name}  # {used} kernel{'s' * (used != 1)}")

    # outputs and memory
    def _finish(self, graph: Graph) -> None:
        inputs, taken = set(self.inputs), set[Storage]()
        self.overwritten: dict[int, int] = {}  # output → input
        for i, atom in enumerate(graph.outputs):
            if atom in self.over and (over := graph.inputs.index(self.over[atom])) not in self.overwritten.values():  # type: ignore[index, arg-type]
                self.overwritten[i] = over
                continue
            ref, number, nbytes = self.at(atom), 1 + len(self.inputs) + i, math.prod(atom.shape) * atom.dtype.itemsize
            if not isinstance(ref, int) and ref[0] not in inputs | taken and ref[1] == 0 and ref[0].exact == nbytes:
                ref[0].base = number  # computed where it leaves
                taken.add(ref[0])
            else:
                move(self, ref, (Storage(nbytes, number), 0), atom.dtype, (math.prod(atom.shape),), (1,), (1,))
        arena = self._arrange()
        values: list[int] = []
        bases: list[int] = []
        starts: list[int] = []
        for _, args in self.calls:
            starts.append(len(values))
            for a in args:
                values.append(a if isinstance(a, int) else a[1] + a[0].offset)
                bases.append(-1 if isinstance(a, int) else a[0].base)
        functions = kernels([source for source, _ in self.calls])
        table = [np.array(column, np.int64) for column in (functions, starts, bases, values)]
        addresses = [t.ctypes.data for t in table]
        header = [len(functions), addresses[0], addresses[1], len(values), *addresses[2:], 1 + len(self.inputs) + len(graph.outputs), arena]
        self.keep += table
        self.arena = arena
        self.header = np.array(header, np.int64)

    def _arrange(self) -> int:
        """Give scratch memory its offsets: blocks that are alive at the same time lie apart. Returns the size of it all, but for what lies where a
        result will, and is dead when that is written."""
        for i, (_, args) in enumerate(self.calls):
            for s in {a[0] for a in args if not isinstance(a, int)}:
                s.first = i if s.first is None else s.first
                s.last = i
        every = dict.fromkeys(a[0] for _, args in self.calls for a in args if not isinstance(a, int))
        blocks = [s for s in every if s.base == 0]
        large = sorted((s for s in blocks if s.nbytes >= _LARGE), key=lambda s: -s.nbytes)[:_MANY]
        late = [s for s in every if s.base > len(self.inputs) and s.exact >= LEAST and not self.inner]
        top = _by_size(large, sorted(late, key=lambda s: s.first or 0))
        return _in_turn([s for s in blocks if s not in set(large)], top)


def _by_size(blocks: Sequence[Storage], late: Sequence[Storage] = ()) -> int:
    """The largest first, each as low as it fits beside those that are alive at the same time; where that is above all others rather in one of the
    results that are written `late`. Returns the end of the highest.

    Greedy by size comes nearest to the least there can be (Y. Pisarchyk and J. Lee, Efficient memory management for deep neural net inference, 2020).
    """
    top = 0
    placed: dict[Storage | None, list[Storage]] = {None: [], **{s: [] for s in late}}  # in order of their offsets
    for s in blocks:
        for home in (None, *late, None):  # the second time round it has to be there
            at = 0
            for t in placed[home]:
                if t.first <= s.last and s.first <= t.last:  # type: ignore[operator]
                    if t.offset - at >= s.nbytes:
                        break
                    at = max(at, t.offset + t.nbytes)
            if at + s.nbytes <= top if home is None else s.last < home.first and at + s.nbytes <= home.exact:  # type: ignore[operator]
                break
        s.offset = at
        if home is None:
            top = max(top, at + s.nbytes)
        else:
            s.base = home.base
        bisect.insort(placed[home], s, key=lambda t: t.offset)
    return top


def _in_turn(blocks: Sequence[Storage], bottom: int) -> int:
    """Above bottom: in the order in which they are needed, each where a dead one was."""
    ends: dict[int, list[Storage]] = {}
    starts: dict[int, list[Storage]] = {}
    for s in blocks:
        ends.setdefault(s.last, []).append(s)
        starts.setdefault(s.first or 0, []).append(s)
    free: list[tuple[int, int]] = []  # (offset, size), sorted
    top = bottom
    for i in sorted(ends.keys() | starts):
        for s in starts.get(i, ()):
            fitting = min(((size, at) for at, size in free if size >= s.nbytes), default=None)
            if fitting is None:
                s.offset, top = top, top + s.nbytes
            else:
                size, s.offset = fitting
                free.remove((s.offset, size))
                if size > s.nbytes:
                    free.append((s.offset + s.nbytes, size - s.nbytes))
        for s in ends.get(i, ()):
            free.append((s.offset, s.nbytes))
        free = _coalesced(free)
    return top


def _coalesced(free: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for at, size in sorted(free):
        if out and out[-1][0] + out[-1][1] == at:
            out[-1] = out[-1][0], out[-1][1] + size
        else:
            out.append((at, size))
    return out


# ---- calling a plan from Python -------------------------------------------------------------------------------------------------------------
# Asking NumPy for an array's address costs 1.2 µs; reading it from the array object in memory costs nothing. Where the layout is not the
# one of CPython 3.11 and NumPy 2, the slow way is taken.
_DATA, _BYTES = 16, 32


@functools.cache
def _layout_is_known() -> bool:
    array, packed = np.zeros(3), struct.pack("2q", 7, 9)
    try:
        there = ctypes.c_int64.from_address(id(array) + _DATA).value == array.ctypes.data
        return there and ctypes.string_at(id(packed) + _BYTES, 16) == packed
    except (ValueError, OSError):
        return False


def fix(value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An argument as the contiguous array that the program was compiled for."""
    array = np.asarray(value)
    if array.dtype != dtype or array.shape != shape:
        raise TypeError(f"compiled program: got {array.dtype}{list(array.shape)}, wanted {dtype}{list(shape)}; trace and compile again for new types")
    return np.require(array, None, ["C", "ALIGNED"])


_ENTRY = """def {name}({args}):
{checks}    scratch = memory({arena}, u8, {arena})
{outs}    {pointers}
    return ({results})
"""
_FAST = "places = pack({ids})\n    run({header}, id(places) + {bytes}, {data})"
_SLOW = "places = addresses({arrays})\n    run({header}, places.ctypes.data, 0)"


def _addresses(*arrays: np.ndarray) -> np.ndarray:
    """Where the addresses of arrays are to be found: pointers to pointers."""
    n = len(arrays)
    out = np.empty(2 * n, np.int64)
    out[n:] = [a.ctypes.data for a in arrays]
    out[:n] = out.ctypes.data + 8 * np.arange(n, 2 * n)
    return out


def entry(plan: Plan, graph: Graph) -> Callable[..., tuple]:
    """The Python function that checks arguments, allocates results and runs the plan."""
    name = f"{graph.name}_"  # none of the names that its text uses
    ins, outs = [f"x{i}" for i in range(len(graph.inputs))], [f"y{i}" for i in range(len(graph.outputs))]
    arrays = ["scratch", *ins, *outs]
    env: dict[str, Any] = {
        "memory": memory, "empty": np.empty, "u8": np.uint8, "fix": fix, "ndarray": np.ndarray, "run": machine(), "plan": plan,
        "pack": struct.Struct(f"{len(arrays)}q").pack, "addresses": _addresses,
    }  # fmt: skip

    def dtype(d: DType) -> str:
        env[d.name] = d.numpy
        return d.name

    checks = "".join(
        f"    if type({x}) is not ndarray or {x}.dtype is not {dtype(v.dtype)} or {x}.shape != {v.shape!r} or not {x}.flags.c_contiguous:\n"
        f"        {x} = fix({x}, {v.dtype.name}, {v.shape!r})\n"
        for x, v in zip(ins, graph.inputs, strict=True)
    )
    # what may be overwritten in turn must own its memory: of anything else nobody knows who sees it
    for x in (f"x{i}" for i in plan.overwritten.values()):
        checks += f"    if not ({x}.flags.owndata and {x}.flags.writeable):\n        {x} = {x}.copy()\n"
    makes = ""
    for i, (y, v) in enumerate(zip(outs, graph.outputs, strict=True)):
        fresh = f"memory({v.shape!r}, {dtype(v.dtype)}, {v.nbytes})" if v.nbytes >= LEAST else f"empty({v.shape!r}, {dtype(v.dtype)})"
        makes += f"    {y} = {f'x{plan.overwritten[i]}' if i in plan.overwritten else fresh}\n"
    header = plan.header.ctypes.data
    text = _FAST if _layout_is_known() else _SLOW
    pointers = text.format(ids=", ".join(f"id({a})" for a in arrays), arrays=", ".join(arrays), header=header, bytes=_BYTES, data=_DATA)
    results = "".join(y + ", " for y in outs)
    source = _ENTRY.format(name=name, args=", ".join(ins), checks=checks, arena=plan.arena + _ALIGN, outs=makes, pointers=pointers, results=results)
    program = load(source, env, name)
    program.listing = plan.notes
    program.plan = plan
    return program


# ---- the backend ----------------------------------------------------------------------------------------------------------------------------
class NumbaBackend(NumpyBackend):
    """Eager operations are NumPy's; graphs are compiled.

    fuse_least: the number of elements from which a chain of elementwise equations becomes one kernel of its own. Below it the loop saves less than
    its compilation costs (0.1 s), and kernels of single equations are shared by all programs. fuse_most: equations in one kernel.
    """

    name = "numba"
    version = numba.__version__
    donates = True
    fuse_least = 4096
    fuse_most = 24

    def complete(self) -> None:
        """Libraries' lowerings, too."""
        LOWER.update(brought("numba"))
        super().complete()

    def expected(self, graph: Graph, mode: str | None = None) -> float:
        """LLVM takes milliseconds for an equation, where the kernels are not on disk already."""
        return 1.5 + 0.006 * len(graph.equations)

    def compile(self, graph: Graph, donate: Sequence[int] = (), mode: str | None = None) -> Callable[..., tuple]:
        """The program as kernels; `listing` on the result says what each became, one line per loop or primitive."""
        key = (self, "compile", self.fuse_least, self.fuse_most, tuple(donate))
        if key not in graph.cache:
            if all(_compilable(e) for e in graph.equations):
                graph.cache[key] = entry(Plan(graph, self.fuse_least, self.fuse_most, tuple(donate)), graph)
            else:
                graph.cache[key] = self._segmented(graph)
        return graph.cache[key]

    def _segmented(self, graph: Graph) -> Callable[..., tuple]:
        """Compiled stretches with NumPy calls between them."""
        parts: list[tuple[bool, list[Equation]]] = []
        for e in graph.equations:
            fast = _compilable(e)
            if fast and parts and parts[-1][0]:
                parts[-1][1].append(e)
            else:
                parts.append((fast, [e]))
        steps: list[tuple[Callable[..., Any], list[Atom], list[Var]]] = []
        position, last = 0, {v: i for i, dead in last_uses(graph).items() for v in dead}
        for fast, equations in parts:
            position += len(equations)
            made = {v: None for e in equations for v in e.outputs}
            if fast:
                read = list(dict.fromkeys(a for e in equations for a in e.inputs if isinstance(a, Var) and a not in made))
                outs = [v for v in made if last.get(v, len(graph.equations)) >= position]
                steps.append((self.compile(Graph(read, equations, outs)), list(read), outs))
            else:
                (e,) = equations
                call = functools.partial(getattr(self, e.primitive.name), **e.params)
                steps.append((call if e.primitive.multiple else _one(call), list(e.inputs), list(e.outputs)))
        return _Segments(self, graph, steps)


class _Segments:
    def __init__(self, backend: NumbaBackend, graph: Graph, steps: list[tuple[Callable[..., Any], list[Atom], list[Var]]]):
        self.backend, self.graph, self.steps = backend, graph, steps
        self.listing = [line for f, _, outs in steps for line in getattr(f, "listing", [f"{', '.join(map(describe, outs))} = NumPy"])]

    def __call__(self, *args: Any) -> tuple:
        env: dict[Any, Any] = dict(zip(self.graph.inputs, args, strict=True))

        def read(a: Atom) -> Any:
            return self.backend.scalar(a.value, a.dtype) if isinstance(a, Literal) else env[a]

        for f, ins, outs in self.steps:
            env.update(zip(outs, f(*map(read, ins)), strict=True))
        return tuple(np.array(read(a)) for a in self.graph.outputs)


def _one(f: Callable[..., Any]) -> Callable[..., tuple]:
    return lambda *args: (f(*args),)


def _has_kernel(equation: Equation) -> bool:
    return is_elementwise(equation) or equation.primitive.name in LOWER


def _from_nothing(equation: Equation) -> bool:
    """Whether numbers come of empty arrays: decompositions are not asked for that."""
    return any(0 in a.shape for a in equation.inputs) and any(0 not in v.shape for v in equation.outputs)


def _compilable(equation: Equation) -> bool:
    from minidl.graph import subgraphs

    name, decompose = equation.primitive.name, equation.primitive.decompose
    if name in object_mode or not (_has_kernel(equation) or (decompose is not None and not _from_nothing(equation))):
        return False
    return all(_compilable(e) for g in subgraphs(equation.params) for e in g.equations)


def make(device: str | None = None) -> NumbaBackend:
    """The backend on a device. Raises ValueError for any device but the CPU; without numba its import says what to install."""
    if device not in (None, "cpu"):
        raise ValueError(f"backend numba: no device {device!r}; it runs on 'cpu' only (for accelerators use the torch or jax backend)")
    return NumbaBackend()
