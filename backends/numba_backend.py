"""The numba backend: NumPy when eager; a traced graph becomes a program of kernels compiled in nopython mode.

Promises: values and dtypes are those of the NumPy definitions; kernels are shared between programs and processes (see numba_kernels), so compiling a
graph whose kernels exist takes microseconds an equation; large elementwise chains run as one loop; an equation without a kernel calls NumPy between
two compiled segments. A compiled program may run in several threads at once and holds no interpreter lock while it runs.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from minidl.backends.base import brought
from minidl.backends.numba_kernels import machine
from minidl.backends.numba_lower import LOWER, object_mode
from minidl.backends.numba_plan import ALIGN, Plan, has_kernel
from minidl.backends.numpy_backend import NumpyBackend
from minidl.backends.numpy_memory import LEAST, owned
from minidl.backends.numpy_memory import empty as memory
from minidl.dtypes import DType
from minidl.emit import load
from minidl.graph import Atom, Equation, Graph, Literal, Var, last_uses
from minidl.shapes import describe

__all__ = ["NumbaBackend", "make", "object_mode"]


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
        "memory": memory, "empty": np.empty, "u8": np.uint8, "fix": fix, "ndarray": np.ndarray, "plan": plan, "owned": owned,
        "run": plan.crew.alone(machine()) if plan.alone else machine(), "pack": struct.Struct(f"{len(arrays)}q").pack, "addresses": _addresses,
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
        checks += f"    if not ({x}.flags.owndata and {x}.flags.writeable):\n        {x} = owned({x})\n"
    makes = ""
    for i, (y, v) in enumerate(zip(outs, graph.outputs, strict=True)):
        fresh = f"memory({v.shape!r}, {dtype(v.dtype)}, {v.nbytes})" if v.nbytes >= LEAST else f"empty({v.shape!r}, {dtype(v.dtype)})"
        makes += f"    {y} = {f'x{plan.overwritten[i]}' if i in plan.overwritten else fresh}\n"
    header = plan.header.ctypes.data
    text = _FAST if _layout_is_known() else _SLOW
    pointers = text.format(ids=", ".join(f"id({a})" for a in arrays), arrays=", ".join(arrays), header=header, bytes=_BYTES, data=_DATA)
    results = "".join(y + ", " for y in outs)
    source = _ENTRY.format(name=name, args=", ".join(ins), checks=checks, arena=plan.arena + ALIGN, outs=makes, pointers=pointers, results=results)
    program = load(source, env, name)
    program.listing = plan.notes
    program.plan = plan
    return program


# ---- the backend ----------------------------------------------------------------------------------------------------------------------------
class NumbaBackend(NumpyBackend):
    """Eager operations are NumPy's; graphs are compiled.

    fuse_least: the number of elements from which a chain of elementwise equations becomes one kernel of its own. Below it the loop saves less than
    its compilation costs (0.1 s), and kernels of single equations are shared by all programs. fuse_most: equations in one kernel,
    enough for a loss of rows and its gradient, which then share their exponentials.
    """

    name = "numba"
    version = numba.__version__
    donates = True
    fuse_least = 4096
    fuse_most = 48

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


def _from_nothing(equation: Equation) -> bool:
    """Whether numbers come of empty arrays: decompositions are not asked for that."""
    return any(0 in a.shape for a in equation.inputs) and any(0 not in v.shape for v in equation.outputs)


def _compilable(equation: Equation) -> bool:
    from minidl.graph import subgraphs

    name, decompose = equation.primitive.name, equation.primitive.decompose
    if name in object_mode or not (has_kernel(equation) or (decompose is not None and not _from_nothing(equation))):
        return False
    return all(_compilable(e) for g in subgraphs(equation.params) for e in g.equations)


def make(device: str | None = None) -> NumbaBackend:
    """The backend on a device. Raises ValueError for any device but the CPU; without numba its import says what to install."""
    if device not in (None, "cpu"):
        raise ValueError(f"backend numba: no device {device!r}; it runs on 'cpu' only (for accelerators use the torch or jax backend)")
    return NumbaBackend()
