"""The NumPy backend: the kernels of numpy_kernels without their warnings, and programs that reuse their own memory.

Promises: no floating-point warning leaves a kernel or a program, and NumPy's error state is never changed for the user; a program's results share
no memory with its inputs or with each other, and inputs are never written to unless they were donated, and then only when nothing can fail any more.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minidl import dtypes
from minidl.backends.base import Backend, Functions, beside, brought
from minidl.backends.numpy_complex import COMPLEX
from minidl.backends.numpy_helpers import NOISY, SILENT, turned
from minidl.backends.numpy_into import INTO, elementwise, into
from minidl.backends.numpy_kernels import EAGER, KERNELS, STEPS, add_at_slice
from minidl.backends.numpy_linear import matmul, put_along_into
from minidl.backends.numpy_memory import LEAST, SMALL, aligned, apart, boundaries, empty, owned
from minidl.backends.reuse import Reuse, narrow_places, with_copies
from minidl.dtypes import DType, float32
from minidl.emit import emit, load, static
from minidl.graph import Atom, Equation, Graph, Var
from minidl.lowering import expand, multiplied, swapped
from minidl.passes import inlined
from minidl.primitives.core import table

Array = np.ndarray
_MULTIPLIED = 2**14  # from how many bytes on an outer product is a multiplication
_SWAPPED = 2**20  # from how many bytes on a transposed product is made the other way round, so that a loop can make it in parts
Kernel = Callable[..., Any]
_loops = functools.partial(beside, "minidl.rewrites.loops", "numpy")

# NumPy keeps its error state in a context variable. Running a kernel inside a context where it is "ignore" costs 0.05 µs, setting the variable 0.1,
# np.errstate 1; but only one thread at a time can be inside a context: the others get a RuntimeError.
_silent = contextvars.Context()
_silent.run(np.seterr, all="ignore")
((_errors, _ignored),) = _silent.items()


def quiet(f: Kernel) -> Kernel:
    """f without floating-point warnings; `__wrapped__` is f itself."""

    def kernel(*arrays: Any, **params: Any) -> Any:
        before = _errors.set(_ignored)
        try:
            return f(*arrays, **params)
        finally:
            _errors.reset(before)

    return functools.update_wrapper(kernel, f, ("__name__", "__doc__"), ())


class _Quiet(contextlib.AbstractContextManager[None]):
    def __enter__(self) -> None:
        self.before = _errors.set(_ignored)

    def __exit__(self, *error: Any) -> None:
        _errors.reset(self.before)


class NumpyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"
    version = np.__version__
    widens = True
    takes_numpy = True
    donates = True
    array_types: tuple[type, ...] = (np.ndarray, np.generic)

    def __init__(self) -> None:
        super().__init__()
        self.quick = Functions(self, {n: functools.partial(_silent.run, f) for n, f in NOISY.items()})
        self.bare = Functions(self, KERNELS | STEPS | {"add_at_slice": add_at_slice})

    def complete(self) -> None:
        """Libraries' kernels are among the noisy ones."""
        for name, kernel in brought("numpy").items():
            if table[name].apply is not None:
                setattr(NumpyBackend, name, quiet(kernel))
                continue
            KERNELS[name] = kernel
            setattr(NumpyBackend, name, staticmethod(quiet(kernel)))
        super().complete()

    def asarray(self, value: np.ndarray, dtype: DType) -> Array:
        """A copy of the data."""
        value = np.asarray(value)
        if value.dtype != dtype.numpy:
            return np.asarray(self.cast(value, dtype=dtype))
        return aligned(value) if value.nbytes >= SMALL and value.flags.c_contiguous else np.array(value)

    def adopt(self, value: np.ndarray) -> Array:
        """The array itself."""
        return value

    def to_numpy(self, native: Array) -> np.ndarray:
        """The array itself."""
        return np.asarray(native)

    def scalar(self, value: Any, dtype: DType) -> Array:
        """A 0-d array: NumPy takes it faster than one of its own scalars."""
        return np.array(value, dtype.numpy)

    def native_dtype(self, dtype: DType) -> np.dtype:
        """NumPy's dtype."""
        return dtype.numpy

    def dtype_of(self, native: Array) -> DType:
        """The minidl dtype of an array."""
        return dtypes.from_numpy(native.dtype)

    def is_native(self, value: Any) -> bool:
        """Whether this is a NumPy array or scalar."""
        return isinstance(value, self.array_types)

    def from_dlpack(self, value: Any, copy: bool | None = None) -> Array:
        """An array that shares the memory of another library's, or of one of NumPy's subclasses, where it can."""
        if not self.is_native(value):
            return np.from_dlpack(value)
        if not value.dtype.isnative:
            raise BufferError("its bytes are in another order than this machine's")
        return np.asarray(value)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """No floating-point warnings: for code that uses operators on arrays, such as a whole backward pass. Kernels need no scope."""
        return _Quiet()

    # programs
    def callable(self, graph: Graph) -> Kernel:
        """The program over the bare kernels: results may show the memory of arguments, and warnings are the caller's business."""
        return self._program(graph, copy=False)

    def compile(self, graph: Graph, donate: Sequence[int] = (), mode: str | None = None) -> Kernel:
        """The program over the bare kernels, writing over its own dead values, and at its end over donated inputs: a call that fails (a kernel that
        refuses its operands, memory that is not to be had) leaves them as they were. What does not own its memory is copied first, once."""
        return self._program(graph, copy=True, donate=donate)

    def _program(self, graph: Graph, copy: bool, donate: Sequence[int] = ()) -> Kernel:
        key = (self, copy, tuple(donate))
        if key not in graph.cache:
            program = _lowered(graph) if copy else graph
            given = [v for v in (graph.inputs[k] for k in donate) if graph.inputs.count(v) == 1]
            reuse = _reuse(program, given)
            if copy and reuse.shared:
                program = with_copies(program, reuse.shared)
                reuse = _reuse(program, given)
            lines = _Lines(self, program, reuse, copy)
            source, env = emit(program, lines, self.literal, release=True)
            run = load(lines.checked(source, env), env, graph.name)
            if copy:
                run = quiet(run) if not (lines.bounds and lines.bounds.all) else boundaries().program(run, _errors, _ignored)
            graph.cache[key] = run
        return graph.cache[key]


class _Lines:
    """How the equations of one program read, and the end of it: from the first line that writes over a donated input nothing may fail."""

    def __init__(self, backend: NumpyBackend, program: Graph, reuse: Reuse, copy: bool):
        self.backend, self.program, self.reuse, self.copy = backend, program, reuse, copy
        self.places = {e: i for i, e in enumerate(program.equations)}
        self.narrow = narrow_places(program)
        self.written: dict[Var, None] = {}  # donated inputs that are written over
        self.room = 0  # bytes that the end asks for
        self.bounds = boundaries().Bounds(program, reuse) if copy and boundaries() else None

    def __call__(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        begun = bool(self.written)
        line, over, room = self._line(equation, inputs, outputs, env)
        self.written.update((root, None) for v in over if isinstance(v, Var) and (root := self.reuse.root[v]) in self.reuse.given)
        if self.places[equation] >= self.reuse.since:
            self.room += room
        return line if begun or not self.written else f"reserve(room)\n{line}"

    def checked(self, source: str, env: dict[str, Any]) -> str:
        """The source of the program; of an array that does not own its memory nobody knows who else sees it."""
        env.update(reserve=_reserve, room=self.room, owned=owned)
        names = self.program.names()
        head, _, rest = source.partition("\n")
        checks = (f"    if not ({n}.flags.owndata and {n}.flags.writeable): {n} = owned({n})" for n in (names[v] for v in self.written))
        return "\n".join([head, *checks, rest])

    def _line(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> tuple[str, Iterable[Atom], int]:
        """The text, what it writes over, and the bytes of the arrays that it makes."""
        name, params = equation.primitive.name, equation.params
        reuse, size, bound = self.reuse, sum(v.nbytes for v in equation.outputs), self.bounds or (lambda e, call, env: call)
        if name == "loop":
            i, names = self.places[equation], dict(zip((*equation.inputs, *equation.outputs), (*inputs, *outputs), strict=True))
            return _loops().written(equation, names, env, lambda v: reuse.dies(i, equation, v))  # type: ignore[no-any-return]
        if name == "copy":
            env["aligned"] = aligned
            return f"{outputs[0]} = {f'aligned({inputs[0]})' if size >= LEAST else bound(equation, f'{inputs[0]}.copy()', env)}", (), size
        if name in ("reshape", "permute"):
            method, argument = ("reshape", params["shape"]) if name == "reshape" else ("transpose", params["axes"])
            return f"{outputs[0]} = {inputs[0]}.{method}({argument!r})", (), 0
        if name in COMPLEX and equation.inputs[0].dtype.is_complex:
            env[COMPLEX[name].__name__] = COMPLEX[name]
            return f"{outputs[0]} = {COMPLEX[name].__name__}({inputs[0]})", (), size
        matmul = _spell_matmul(equation, inputs, env) if name == "dot_general" else None
        line = f"{outputs[0]} = {matmul}" if matmul else self.backend.spell(equation, inputs, outputs, env)
        if name == "max_pool" and equation.outputs[1] in self.narrow:
            line = f"{line[:-1]}, narrow=True)"
        if name in KERNELS:
            env[name] = KERNELS[name]
        out, operand = equation.outputs[0], reuse.over.get(equation)
        place = None
        if operand is not None:
            place, size = inputs[operand], 0
        elif self.copy and out.nbytes >= LEAST and (matmul or _writes(equation)):
            env["empty"] = empty
            place = f"empty({out.shape}, {static(out.dtype.numpy, env)}, {out.nbytes})"
        if place is None:
            left, call = line.split(" = ", 1)
            return f"{left} = {bound(equation, call, env)}", (), size
        if name in INTO or name == "put_along":
            env[f"{name}_into"] = INTO[name][0] if name in INTO else put_along_into
            line = line.replace(f" = {name}(", f" = {name}_into(", 1)
        return f"{line[:-1]}, out={place})", () if operand is None else (equation.inputs[operand],), size


def _reserve(nbytes: int) -> None:
    """Raise MemoryError now if so much is not to be had."""
    np.empty(nbytes, np.uint8)


_SURE = frozenset("loop copy full iota cast reshape permute broadcast_to barrier alias sum max min any all".split())


def _reuse(program: Graph, given: Sequence[Var]) -> Reuse:
    """The plan of a program; donated memory is written to only after the last equation that might refuse its operands."""
    unsure = [i for i, e in enumerate(program.equations) if e.primitive.name not in _SURE and not elementwise(e)]
    return Reuse(program, _is_fresh, _writes, given, max(unsure, default=-1) + 1)


def _lowered(graph: Graph) -> Graph:
    """The graph as it is compiled: with what rooms bring to write less, and with loops in the places of its large regions."""
    graph = multiplied(_expanded(swapped(inlined(graph), _SWAPPED)), _MULTIPLIED)
    graph = room.rewrite(graph) if (room := beside("minidl.rewrites", "numpy")) else graph
    return loops.blocked(graph) if (loops := _loops()) else graph  # type: ignore[no-any-return]


def _expanded(graph: Graph) -> Graph:
    """Without the primitives that have no kernel, and without a softmax whose exponentials such a one needs besides."""
    needed = {(e.inputs[0], e.params["axis"]) for e in graph.equations if e.primitive.name == "log_softmax_at"}
    if not needed:
        return expand(graph, keep=KERNELS)

    def choose(e: Equation) -> bool:
        return e.primitive.name != "softmax" or (e.inputs[0], e.params["axis"]) in needed

    return expand(graph, keep=KERNELS.keys() - {"softmax"}, choose=choose)


def _spell_matmul(equation: Equation, inputs: list[str], env: dict[str, Any]) -> str | None:
    """`matmul(a, b.T)` for two matrices, which is what dot_general would do."""
    x, y = equation.inputs
    (xc, yc), (xb, _) = equation.params["contract"], equation.params["batch"]
    if x.ndim != 2 or y.ndim != 2 or len(xc) != 1 or xb or x.dtype.bits == 16:
        return None
    operands = f"{inputs[0]}{'' if xc[0] else '.T'}, {inputs[1]}{'.T' if yc[0] else ''}"
    m, n = x.shape[1 - xc[0]], y.shape[1 - yc[0]]
    if yc[0] and x.dtype is float32 and turned(m, n, x.shape[xc[0]]):
        env.update(matmul_turned=matmul, empty=empty, f32=x.dtype.numpy)
        return f"matmul_turned({operands}, room=empty({(n, m)}, f32, {m * n * 4}))"
    env["matmul"] = np.matmul
    return f"matmul({operands})"


def _is_fresh(equation: Equation) -> bool:
    return equation.primitive.name in KERNELS or equation.primitive.name in ("copy", "loop")


def _writes(equation: Equation) -> Sequence[int]:
    """The operands over which an equation's kernel can write; none for a kernel that takes no `out`."""
    if equation.primitive.name == "put_along":
        return (0,) if equation.outputs[0].dtype.inexact and equation.outputs[0].dtype.bits > 16 else ()
    found = into(equation) if elementwise(equation) else None
    return found[1] if found else ()


for _name, _kernel in SILENT.items():
    setattr(NumpyBackend, _name, staticmethod(_kernel))
for _name, _kernel in (NOISY | EAGER).items():
    setattr(NumpyBackend, _name, staticmethod(quiet(_kernel)))


def _full(*, shape: tuple[int, ...], value: Any, dtype: DType) -> Array:
    """An array that is not small lies on a boundary, as the state does that begins with zeros and that programs then write over."""
    nbytes, full = math.prod(shape) * dtype.itemsize, KERNELS["full"]
    if nbytes < LEAST:
        room = boundaries() if nbytes >= SMALL else None
        return room.on_boundary(full, shape=shape, value=value, dtype=dtype) if room else full(shape=shape, value=value, dtype=dtype)
    out = apart(shape, dtype.numpy, nbytes)
    out[...] = full(shape=(), value=value, dtype=dtype)
    return out


NumpyBackend.full = staticmethod(_full)  # type: ignore[attr-defined]


def make(device: str | None = None) -> NumpyBackend:
    """The backend on a device. Raises ValueError for any device but the CPU."""
    if device not in (None, "cpu"):
        raise ValueError(f"backend numpy: no device {device!r}; NumPy runs on 'cpu' only (for accelerators use the torch or jax backend)")
    return NumpyBackend()
