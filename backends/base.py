"""What a backend is: a namespace of native functions, a few conversions, and `compile(graph)`.

Promises: a backend knows nothing of differentiation, tracing or batching; a primitive that it does not spell itself falls back on the
primitive's decomposition, and where there is none the error names both.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.dtypes import DType, from_numpy
from minidl.emit import emit, load
from minidl.graph import Equation, Graph
from minidl.primitives.core import decomposed, table

#: The reference count of what one name alone has, as a call with that name sees it: 2, and 1 from Python 3.14 on, where a call borrows the reference.
NAMED = (lambda value: sys.getrefcount(value))(object()) if hasattr(sys, "getrefcount") else 2


class Backend:
    """The base of all backends: an instance is one array library on one device. Conversions that it does not say raise NotImplementedError.

    >>> isinstance(md.extend.get_backend("numpy"), md.extend.Backend)
    True
    """

    name: str = ""
    device: str = "cpu"
    version: str = ""
    needs_scope: bool = False
    modes: tuple[str, ...] = ()  # other ways to compile a graph than the first choice, which `md.jit(mode=...)` names and "auto" tries
    fuses: bool = False  # whether `fuse(rule, static)` makes a rule one dispatch, for backends whose dispatch is dear
    shape_path: str = "shape"  # by which attributes the shape of an array is read at the least cost
    refuses_shapes: bool = False  # whether compiled programs raise TypeError for arrays of other shapes, before they do anything
    compiles_operations: bool = False  # whether each operation of a new shape is a compilation, so that a draw is better one program
    if TYPE_CHECKING:  # the primitives, which `complete` fills in

        def __getattr__(self, name: str) -> Any: ...

    takes_numpy: bool = False  # whether compiled programs take NumPy arrays as they are, without a copy where their memory allows it
    donates: bool = False  # whether compiled programs use the memory of donated inputs
    widens: bool = False  # whether native operators widen bfloat16 next to a Python number

    def __init__(self) -> None:
        self.scalars = Scalars(self)  # (Python scalar, class, dtype) -> native 0-d array, filled by the tensor layer
        self.numbers: dict[tuple, Any] = {}  # the same by native dtype, filled by `number`
        # The same functions with less in front of them, where a backend has such: `quick` may raise RuntimeError for no reason of the user's
        # (the general path is then taken) and enters its own scope, `bare` is for use inside scope().
        self.quick: Any = self
        self.bare: Any = self
        self.complete()

    def complete(self) -> None:
        """Fill in the primitives that the class does not spell. (Done at once: a class with __getattr__ is slow to read every attribute of.)
        Before that a subclass takes `brought(name)` into its tables."""
        for name in table:
            if not hasattr(self, name):
                setattr(self, name, self.fallback(name))

    def __repr__(self) -> str:
        return f"<backend {self.name} on {self.device}>"

    def __reduce__(self) -> tuple:
        from minidl.backends import get

        return get, (self.name, self.device)

    def fallback(self, name: str) -> Callable[..., Any]:
        """A primitive without a native function: its decomposition over the others, what plain Python makes of one that carries graphs, or a function
        that names both."""
        if table[name].decompose is not None:
            return self.decomposed(name, self)
        if table[name].apply is not None and (plain := brought("numpy").get(name)) is not None:
            return functools.partial(plain, self)

        def kernel(*args: Any, **params: Any) -> Any:
            raise NotImplementedError(f"{name}: the {self.name} backend cannot do this; move the data with .to(backend=...) first")

        return kernel

    def decomposed(self, name: str, xp: Any) -> Callable[..., Any]:
        """A primitive by its decomposition over the kernels of xp."""

        def kernel(*args: Any, **params: Any) -> Any:
            with self.scope():  # the operators in its text are the library's own, not kernels
                return decomposed(table[name], xp, args, params)

        kernel.__name__ = name
        return kernel

    # conversions: each backend says these for itself
    def asarray(self, value: np.ndarray, dtype: DType) -> Any:
        """A native array with a copy of the data."""
        raise NotImplementedError(f"backend {self.name!r} is missing the required asarray")

    def adopt(self, value: np.ndarray) -> Any:
        """A native array of NumPy data that nobody writes to again: shares its memory where the library can. Needs no scope."""
        with self.scope():
            return self.asarray(value, from_numpy(value.dtype))

    def to_numpy(self, native: Any) -> np.ndarray:
        """The data as a NumPy array; may share memory."""
        raise NotImplementedError(f"backend {self.name!r} is missing the required to_numpy")

    def scalar(self, value: Any, dtype: DType) -> Any:
        """A native 0-d array of a Python scalar."""
        return self.asarray(np.asarray(value, dtype.numpy), dtype)

    def dtype_of(self, native: Any) -> DType:
        """The minidl dtype of a native array."""
        raise NotImplementedError(f"backend {self.name!r} is missing the required dtype_of")

    def is_native(self, value: Any) -> bool:
        """Whether this is an array of the backend's own library."""
        raise NotImplementedError(f"backend {self.name!r} is missing the required is_native")

    def devices(self) -> tuple[str, ...]:
        """The devices that this library can use here."""
        return (self.device,)

    def number(self, value: Any, like: Any) -> Any:
        """A Python number, not zero, as a native 0-d array of the dtype of another; kept in `numbers`."""
        out = self.numbers[value, like.dtype] = self.scalar(value, self.dtype_of(like))
        return out

    def synchronize(self) -> None:
        """Wait until the device has done all work given to it."""

    def wait(self, natives: Sequence[Any]) -> None:
        """Wait until these results of a program are computed."""
        self.synchronize()

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What must surround every call into the library; entered only where needs_scope is true."""
        return contextlib.nullcontext()

    # programs
    def spell(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        """One line of the emitted program; binds the native function under the primitive's name."""
        from minidl.emit import spell

        env[equation.primitive.name] = getattr(self, equation.primitive.name)
        return spell(equation, inputs, outputs, env)

    def literal(self, atom: Any, env: dict[str, Any]) -> str:
        """A scalar constant of the emitted program: a native 0-d array bound by name."""
        name = f"k{len(env)}"
        env[name] = self.scalar(atom.value, atom.dtype)
        return name

    def callable(self, graph: Graph) -> Callable[..., tuple]:
        """The program as plain Python over the namespace, without any compiler."""
        key = (self, "callable")
        if key not in graph.cache:
            source, env = emit(graph, self.spell, self.literal, release=True)
            graph.cache[key] = load(source, env, graph.name)
        return graph.cache[key]

    def pieces(self, x: Any, axis: int, ends: Sequence[int], drop: bool) -> Sequence[Any]:
        """The slices of an array between these positions of an axis, without the axis if drop; they may show its memory."""
        start, stop, found = [0] * x.ndim, list(x.shape), []
        for start[axis], stop[axis] in itertools.pairwise(ends):
            v = self.slice(x, start=tuple(start), stop=tuple(stop), step=(1,) * x.ndim)
            found.append(self.reshape(v, shape=tuple(x.shape[:axis]) + tuple(x.shape[axis + 1 :])) if drop else v)
        return found

    def expected(self, graph: Graph, mode: str | None = None) -> float:
        """About how many seconds compiling takes: backend="auto" stays within its budget by it. Infinite: a mode makes what the first choice does."""
        return 0.0

    def compile(self, graph: Graph, donate: tuple[int, ...] = (), mode: str | None = None) -> Callable[..., tuple]:
        """The program as fast as this backend can make it. donate: numbers of inputs whose memory may be reused; mode: one of `modes`, or None."""
        return self.callable(graph)


@functools.cache
def beside(home: str, backend: str) -> Any:
    """The module of a package that it has for a backend, such as its kernels; None without one."""
    import importlib.util

    try:
        module = f"{home}.on_{backend}"
        return importlib.import_module(module) if importlib.util.find_spec(module) else None
    except ModuleNotFoundError as error:  # a room that is not there
        if not home.startswith(str(error.name)):
            raise
    return None


def brought(backend: str) -> dict[str, Any]:
    """The kernels by name that libraries have for a backend, beside the primitives that they define. Those of primitives that carry graphs
    are methods of the backend, which makes functions of these (`callable`)."""
    homes = {name: beside(p.kernels, backend) for name, p in table.items() if p.kernels}
    return {name: getattr(module, name) for name, module in homes.items() if hasattr(module, name)}


class Scalars(dict[Any, Any]):
    """Native 0-d arrays of Python scalars. The two zeros of floats are equal as keys, and so are kept by their text."""

    def __init__(self, backend: Backend):
        self.backend = backend

    def __missing__(self, key: tuple[Any, ...]) -> Any:
        value, kind, dtype = key
        if value != 0 or kind is not float or self.backend.needs_scope:
            raise KeyError(key)
        sign = repr(value), dtype
        if sign not in self:
            self[sign] = self.backend.scalar(value, dtype)
        return self[sign]


class Functions:
    """A namespace for `quick` or `bare`: some functions of its own, the others the backend's."""

    def __init__(self, backend: Backend, functions: dict[str, Callable[..., Any]]):
        self.__dict__.update({name: getattr(backend, name) for name in table} | functions)
        self.numbers, self.number, self.dtype_of = backend.numbers, backend.number, backend.dtype_of
