"""A graph as a table of kernel calls: which equations are loops of their own, where every value lies, and what is written over what is dead.

Promises: values that are alive at the same time lie apart; a donated input is written over only by the last that reads it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.backends import numba_linear
from minidl.backends.base import beside
from minidl.backends.numba_emit import is_elementwise
from minidl.backends.numba_kernels import kernel, kernels
from minidl.backends.numba_loops import REDUCTIONS, Loops, alone, finish
from minidl.backends.numba_lower import LOWER, move, shifted
from minidl.backends.numpy_memory import ALIGN as APART
from minidl.backends.numpy_memory import LEAST
from minidl.backends.reuse import VIEWS, narrow_places
from minidl.dtypes import DType
from minidl.fusion import Region, regions
from minidl.graph import Atom, Equation, Graph, Literal, Var
from minidl.lowering import expand, multiplied, swapped
from minidl.shapes import describe

Ref = tuple["Storage", int]
ALIGN = 64
_LARGE = 1 << 16  # bytes of scratch memory from which on a kernel that writes over it is worth having
_SIZED, _MANY = 1 << 12, 1500  # from how many bytes on scratch memory is placed by size, and how many blocks at most: that takes their square
_PARTS, _LITTLE = 8, 1 << 14  # parts of a kernel for each of its threads, where each takes at most so many bytes of its own
_ROWS, _PART = 64, 1 << 19  # rows of a product that are worth a call of BLAS, and bytes of them that a loop waits for


class Storage:
    """A block of memory of a running program: scratch memory until it is given a number, then an input or an output."""

    __slots__ = ("base", "exact", "first", "last", "nbytes", "offset", "users")

    def __init__(self, nbytes: int, base: int = 0):
        self.exact = nbytes  # what kernels write, for which an output must have room; nbytes is what scratch memory gives
        unit = APART if nbytes >= LEAST else ALIGN
        self.nbytes = -(-max(nbytes, 1) // unit) * unit
        self.base = base
        self.offset = self.users = 0  # users: how many variables lie in it
        self.first: int | None = None  # the calls between which scratch memory is alive
        self.last = 0


class Plan:
    """A graph as a table of kernel calls with a static memory plan. What a lowering uses is `at`, `out`, `temp`, `alias`, `const`, `raw`, `call`,
    `lanes`, `divide` and `nested`. alone: whether BLAS has one thread while it runs."""

    share = 4e4  #: nanoseconds of work for which another thread pays: starting and joining one takes some tens of microseconds

    def __init__(self, graph: Graph, fuse_least: int, fuse_most: int, donate: Sequence[int] | None = None, threads: bool = True):
        """donate: None for a program inside another, whose results lie where that one says. threads: whether it may use others."""
        self.inner, donate = donate is None, donate or ()
        self.calls: list[tuple[str, tuple]] = []
        self.notes: list[str] = []
        self.keep: list[Any] = []  # arrays and kernels whose addresses are in the table
        self.constants: dict[Any, int] = {}
        self.place: dict[Var, Ref] = {}
        self.fuse = fuse_least, fuse_most
        self.inputs = [Storage(v.nbytes, 1 + i) for i, v in enumerate(graph.inputs)]
        for v, s in zip(graph.inputs, self.inputs, strict=True):
            self.place[v] = s, 0
        graph = multiplied(expand(swapped(graph), choose=lambda e: not has_kernel(e)), ALIGN**2)
        self.narrow = narrow_places(graph)
        self.crew = beside("minidl.rewrites.threads", "numba")
        heavy = numba_linear.heaviest(graph) >= numba_linear.UNDIVIDED
        self.threads = self.crew.threads() if threads and self.crew and (not heavy or self.crew.blas()) else 1
        self.alone = heavy and self.threads > 1
        items = regions(graph, is_elementwise, reductions=REDUCTIONS, terminal=REDUCTIONS, most=fuse_most)
        self.products: dict[Var, Equation] = {}
        if room := beside("minidl.rewrites.regions", "numba"):
            items = room.recompute(items, graph, is_elementwise)
            self.products = room.products(items, graph, lambda region: self._is_loop(region) and not region.terminal)
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
        return not isinstance(ref, int) and v.nbytes >= _LARGE and ref[0].base == 0 and ref[0].users == 1

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

    def lanes(self, duration: float, most: int) -> int:
        """How many threads a kernel of so many nanoseconds is worth."""
        return min(self.threads, int(duration // self.share), most) or 1

    def divide(self, source: str, parts: int, arrays: Sequence[Any], size: int, *numbers: Any) -> None:
        """Run a kernel of (arrays; first, last and number of the part to do; numbers) in so many parts, on the threads of this program."""
        args = (*arrays, 0, size, 0, *numbers)
        if parts > 1 and self.crew:
            self.keep.append(kernel(source))
            head = self.crew.crew(), self.threads - 1, self.keep[-1].address, parts, len(arrays), size, len(args)
            source, args = self.crew.DIVIDE, (*head, *args)
        self.call(source, *args)

    def nested(self, graph: Graph, threads: bool = True) -> int:
        """The address of the program of a loop body or branch."""
        plan = Plan(graph, *self.fuse, threads=threads)
        self.alone = self.alone or plan.alone  # also for products of what is decomposed there
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
        lanes = self.lanes(made.duration(), made.most)
        if lanes > 1 and sum(made.partial) + made.scratch <= _LITTLE:  # smaller parts, of which who comes late does fewer
            lanes = min(_PARTS * lanes, made.most)
        stores = [self.at(v) if v in made.over else self.out(v) for v in made.stores]
        if inside and self.threads == 1 and numba_linear.has_rows(inside.values()):
            self._in_parts(region, made, stores, inside)
            return
        for e in inside.values():
            LOWER["dot_general"](self, e)
        partial = [self.temp(lanes * n) for n in made.partial]
        arrays = [*map(self.at, made.atoms), *stores, *partial, *([self.temp(lanes * made.scratch)] if made.scratch else [])]
        self.divide(made.source, lanes, arrays, made.sizes[0], *made.sizes, made.scratch)
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
        if not has_kernel(equation):  # only empty arrays are not decomposed
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
        table = [np.array(column, np.int64) for column in ([f.address for f in functions], starts, bases, values)]
        addresses = [t.ctypes.data for t in table]
        header = [len(functions), addresses[0], addresses[1], len(values), *addresses[2:], 1 + len(self.inputs) + len(graph.outputs), arena]
        self.keep += table + functions
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
        large = sorted((s for s in blocks if s.nbytes >= _SIZED), key=lambda s: -s.nbytes)[:_MANY]
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
    """Above bottom: in the order in which they are needed, each where a dead one of its size was."""
    ends: dict[int, list[Storage]] = {}
    starts: dict[int, list[Storage]] = {}
    for s in blocks:
        ends.setdefault(s.last, []).append(s)
        starts.setdefault(s.first or 0, []).append(s)
    free: dict[int, list[int]] = {}  # offsets by size
    top = bottom
    for i in sorted(ends.keys() | starts):
        for s in starts.get(i, ()):
            if idle := free.get(s.nbytes):
                s.offset = idle.pop()
            else:
                s.offset, top = top, top + s.nbytes
        for s in ends.get(i, ()):
            free.setdefault(s.nbytes, []).append(s.offset)
    return top


def has_kernel(equation: Equation) -> bool:
    """Whether it need not be decomposed."""
    return is_elementwise(equation) or equation.primitive.name in LOWER
