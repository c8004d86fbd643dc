"""JAX (XLA) on CPU, CUDA or TPU: an eager operation is one cached dispatch of a jitted kernel, a graph is one program compiled ahead of time.

Promises: float64 and int64 are real while the user's `jax_enable_x64` stays as it is, in every thread; arrays live on the instance's device;
data are copied in, never shared with the user's NumPy memory; jax.grad and its relatives are not used. Compiled programs are called without
entering the scope: their dtypes were settled when they were compiled.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, signature
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from minidl.backends import jax_linear  # noqa: F401  its kernels enter the same namespace
from minidl.backends.base import Backend, beside, brought
from minidl.backends.jax_elementwise import plus_zero
from minidl.backends.jax_helpers import REWRITES, isnan, kernels, wide
from minidl.backends.jax_kernels import pad_with, plain_max
from minidl.backends.numpy_kernels import cast
from minidl.dtypes import DType, all_dtypes
from minidl.emit import emit, load
from minidl.graph import Emitted, Equation, Graph, Literal, Var, subgraphs
from minidl.primitives.core import table
from minidl.primitives.reductions import exponentials

_DTYPES = {d.numpy: d for d in all_dtypes}
_x64 = jax.enable_x64


class _Scope:
    """64-bit types in this thread while entered: `jax.enable_x64(True)` at half its price. Not to be entered twice."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = _x64.swap_local(True)

    def __exit__(self, *_: object) -> None:
        _x64.set_local(self.before)


if not hasattr(_x64, "swap_local"):  # another version of jax: the documented spelling
    _Scope = partial(jax.enable_x64, True)  # type: ignore[misc,assignment]


_KIN = ("softmax", "log_softmax", "log_softmax_at", "logsumexp")


class Namespace:
    """The primitives for use inside a trace: plain lax code, and decompositions over itself."""

    def __init__(self, backend: JaxBackend, **functions: Any):
        self.backend = backend
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        f = kernels.get(name)
        if f is None and (primitive := table.get(name)) and primitive.decompose:
            f = self.backend.decomposed(name, Namespace(self.backend, max=plain_max) if name in _KIN else self)
        if f is None:
            return getattr(self.backend, name)
        setattr(self, name, f)
        return f

    def max_beside(self, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        """`max` in a program with a softmax of the same: the sum of exponentials, which XLA computes once, knows of a nan."""

        def call(x: Any) -> Any:
            _, _, total, high = exponentials(Namespace(self.backend, max=plain_max), x, axis)
            return lax.select(isnan(total), total, high)

        return wide(call)(x) if keepdims else lax.squeeze(wide(call)(x), axis)


class _Scoped:
    """The backend's functions, each inside a scope of its own: what single eager operations call."""

    def __init__(self, backend: JaxBackend):
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        f = getattr(self._backend, name)

        def call(*arrays: Any, **params: Any) -> Any:
            before = swap(True)
            try:
                return f(*arrays, **params)
            finally:
                back(before)

        def call_public(*arrays: Any, **params: Any) -> Any:
            with _Scope():
                return f(*arrays, **params)

        swap: Any = getattr(_x64, "swap_local", None)
        back: Any = getattr(_x64, "set_local", None)
        found = call if swap else call_public
        setattr(self, name, found)
        return found


class JaxBackend(Backend):
    """One jax device. `scope()` must surround eager calls; compiled programs need none."""

    name = "jax"
    version = jax.__version__
    needs_scope = True
    donates = True
    compiles_operations = True
    shape_path = "aval.shape"
    refuses_shapes = True
    scope = _Scope

    def __init__(self, device: jax.Device):
        self.native_device = device
        self.device = _device_name(device)
        self.takes_numpy = self.device == "cpu"
        self.placement = SingleDeviceSharding(device)
        self.raw = Namespace(self)
        self._brought = jax.jit(lambda x: lax.reshape(x, ()), out_shardings=self.placement)  # an array also under jax.disable_jit
        self._constants: dict[tuple[bytes, DType], Any] = {}
        super().__init__()
        self.quick = _Scoped(self)

    def complete(self) -> None:
        """Each primitive as one jitted function of its own (decompositions whole), params being static."""
        for name, f in brought("jax").items():
            if table[name].apply is None:
                kernels[name] = f
            else:
                setattr(self.raw, name, partial(f, self))
                setattr(self, name, partial(self._kept, name))
        for name, primitive in table.items():
            if hasattr(self, name):
                continue
            vars(self.raw).pop(name, None)
            if name in kernels:
                f = kernels[name]
                static = [p.name for p in signature(f).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
            elif primitive.decompose is not None:
                static, f = list(primitive.params), getattr(self.raw, name)
            else:
                setattr(self, name, self.fallback(name))
                continue
            setattr(self, name, jax.jit(f, static_argnames=static or None, out_shardings=None if primitive.args else self.placement))

    # conversions
    def asarray(self, value: np.ndarray, dtype: DType) -> Any:
        """A copy on this device; XLA may take the memory of what it is given for its own, so it is given a private copy."""
        value = np.asarray(value)
        with _Scope(), np.errstate(all="ignore"):
            own = np.array(value, order="C") if value.dtype == dtype.numpy else np.asarray(cast(value, dtype=dtype), order="C")
            return jax.device_put(own, self.native_device)

    def scalar(self, value: Any, dtype: DType) -> Any:
        """A native 0-d array of a Python scalar, by way of a program: that takes a fifth of the time of a transfer."""
        return self._brought(np.array(value, dtype.numpy))

    def adopt(self, value: np.ndarray) -> Any:
        """The memory itself where this device is the CPU and the memory aligned to 64 bytes; XLA never writes to memory that is not its own."""
        with _Scope():
            return jax.device_put(value, self.native_device)

    def to_numpy(self, native: Any) -> np.ndarray:
        """The data, read-only, shared where the device is the CPU."""
        return np.asarray(native)

    def dtype_of(self, native: Any) -> DType:
        """The minidl dtype."""
        return _DTYPES[native.dtype]

    def native_dtype(self, dtype: DType) -> np.dtype:
        """JAX uses NumPy's dtypes."""
        return dtype.numpy

    def is_native(self, value: Any) -> bool:
        """Whether it is a jax.Array (or one of jax's tracers)."""
        return isinstance(value, jax.Array)

    def devices(self) -> tuple[str, ...]:
        """The names of jax's devices, the CPU among them."""
        return tuple(_devices())

    def from_dlpack(self, value: Any, copy: bool | None = None) -> Any:
        """An array from another library by DLPack, sharing memory; where that does not start on 64 bytes, or its axes lie in an order that compiled
        programs do not take, a copy, or an error if copy is False."""
        if isinstance(value, jax.Array):  # itself: by another object for its memory nobody could see that it is held
            if isinstance(value, jax.core.Tracer) or not (value.weak_type or value.is_deleted() or value.sharding != self.placement):
                return value
            raise BufferError("it is weakly typed, deleted or placed elsewhere")
        with _Scope():
            native = jax.device_put(jax.dlpack.from_dlpack(value, copy=copy), self.native_device)
            if native.format.layout.major_to_minor == tuple(range(native.ndim)):
                return native
            if copy is False:
                raise BufferError("its axes lie in memory in another order than XLA's programs take")
            return jax.device_put(np.ascontiguousarray(native), self.native_device)

    def synchronize(self) -> None:
        """Wait for every array that is still alive; JAX has no other way to ask for the whole device."""
        for native in jax.live_arrays():
            if not native.is_deleted():
                native.block_until_ready()

    def wait(self, natives: Sequence[Any]) -> None:
        """Wait for these arrays."""
        jax.block_until_ready(natives)

    # what jax.jit's cache of static params would get wrong: it takes 0.0 for -0.0, never finds NaN again, and keeps graphs alive
    def _constant(self, value: Any, dtype: DType) -> Any:
        with np.errstate(over="ignore"):
            rounded = np.asarray(value, dtype.numpy)
        key = rounded.tobytes(), dtype  # the bits tell both zeros and both signs of nan apart
        native = self._constants.get(key)
        if native is None:
            if len(self._constants) >= 1000:
                self._constants.clear()
            native = self._constants[key] = self.asarray(rounded, dtype)
        return native

    def full(self, *, shape: tuple[int, ...], value: Any, dtype: DType) -> Any:
        """A constant array; a fresh one each time, since programs may be given its memory."""
        return self.broadcast_to(self._constant(value, dtype), shape=shape)

    def pad(self, x: Any, *, widths: tuple[tuple[int, int], ...], value: Any) -> Any:
        """Pad with a constant."""
        return self._pad(x, self._constant(value, _DTYPES[x.dtype]), widths=widths)

    _pad = staticmethod(jax.jit(pad_with, static_argnames="widths"))

    def slice(self, x: Any, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Any:
        """A block: where it starts is data, so that x[0], x[1], … share one compiled program."""
        if any(s != 1 for s in step) or not start:
            return self._slice(x, start=start, stop=stop, step=step)
        return self._block(x, np.array(start), sizes=tuple(max(b - a, 0) for a, b in zip(start, stop, strict=True)))

    _slice = staticmethod(jax.jit(kernels["slice"], static_argnames=("start", "stop", "step")))
    _block = staticmethod(jax.jit(lambda x, start, sizes: lax.dynamic_slice(x, list(start), sizes), static_argnames="sizes"))

    def _kept(self, name: str, *operands: Any, **params: Any) -> tuple:
        """A loop or a branch as one program, kept with its first graph."""
        graph, key = next(subgraphs(params)), (self, name, *params.values())
        if key not in graph.cache:
            graph.cache[key] = jax.jit(partial(getattr(self.raw, name), **params))
        return graph.cache[key](*operands)

    fuses = True

    def fuse(self, rule: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        """`rule(xp, *values)` as one dispatch instead of one an operation; static: the numbers of the values that are no arrays."""
        return jax.jit(partial(rule, self.raw), static_argnums=static)

    # programs
    def spell(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        """Programs call plain lax code: nothing in them is jitted by itself."""
        from minidl.emit import spell

        if (k := _plus_zero(equation)) is not None:
            env["plus_zero"] = plus_zero
            return f"{outputs[0]} = plus_zero({inputs[k]})"
        env[equation.primitive.name] = getattr(self.raw, equation.primitive.name)
        return spell(equation, inputs, outputs, env)

    def literal(self, atom: Literal, env: dict[str, Any]) -> str:
        """A NumPy scalar: XLA folds it, and no transfer takes place while tracing."""
        name = f"k{len(env)}"
        env[name] = np.asarray(atom.value, atom.dtype.numpy)[()]
        return name

    def expected(self, graph: Graph, mode: str | None = None) -> float:
        """XLA takes milliseconds for an equation."""
        return 0.3 + 0.003 * len(graph.equations)

    def compile(self, graph: Graph, donate: tuple[int, ...] = (), mode: str | None = None) -> Callable[..., tuple]:
        """One XLA program, compiled here and now for the graph's shapes and dtypes.

        An input is donated only where an output of its type can take its memory (JAX warns of any other). The result raises TypeError for
        arguments of other shapes or dtypes than the graph's.
        """
        pairs = _pairs(graph, donate)
        order, outputs = list(range(len(graph.outputs))), list(graph.outputs)
        if pairs != _as_jax_pairs(graph, sorted(pairs.values())):
            order.sort(key=lambda k: pairs.get(k, len(graph.inputs)))
            outputs = [outputs[k] for k in order]
        whole = Graph(graph.inputs, graph.equations, outputs, graph.name)
        for rewrite in REWRITES:
            whole = rewrite(whole, self.device.startswith("cpu"))
        program = load(*emit(Graph(whole.inputs, _beside(whole.equations), outputs, graph.name), self.spell, self.literal), graph.name)
        avals = [jax.ShapeDtypeStruct(v.shape, v.dtype.numpy, sharding=self.placement) for v in graph.inputs]
        with _Scope():
            jitted = jax.jit(program, donate_argnums=tuple(sorted(pairs.values())), out_shardings=self.placement)
            heap = beside("minidl.rewrites.heap", "jax") if self.device.startswith("cpu") else None
            compiled = heap.compiled(jitted.lower(*avals)) if heap else jitted.lower(*avals).compile()
        try:  # the C++ call behind Compiled.__call__, which adds 0.4 µs of Python and builds the same thing on first use
            call = compiled._executable.create_cpp_call(compiled._params) or compiled
        except AttributeError:
            call = compiled
        back = itemgetter(*sorted(order, key=order.__getitem__)) if order != sorted(order) else None
        return (lambda *natives: back(call(*natives))) if back else call


_MAX_BESIDE = Emitted("max_beside")


def _beside(equations: Sequence[Equation]) -> list[Equation]:
    """With max_beside for each maximum of what a softmax or its like is taken of, over the same axis."""
    over = {e: (e.inputs[0], *np.ravel(e.params["axis"])) for e in equations if e.primitive.name in ("max", *_KIN)}
    shared = {over[e] for e in over if e.primitive.name in _KIN}
    return [
        Equation(_MAX_BESIDE, e.inputs, e.params, e.outputs, e.where) if e.primitive.name == "max" and over[e] in shared else e for e in equations
    ]


def _plus_zero(e: Equation) -> int | None:
    """The number of the operand to which an equation adds the constant 0.0, or from which it takes -0.0: no identity, since -0.0 becomes 0.0."""
    zeros = {"add": ("0.0", "0.0"), "sub": ("", "-0.0")}.get(e.primitive.name, ())
    for k, (a, zero) in enumerate(zip(e.inputs, zeros, strict=False)):
        if isinstance(a, Literal) and a.dtype.is_float and repr(a.value) == zero:
            return 1 - k
    return None


_NEAR = 8  # steps back from an output within which the state it replaces is looked for


def _as_jax_pairs(graph: Graph, donated: Sequence[int]) -> dict[int, int]:
    """{output: input whose memory it takes} as JAX finds it: the first output of a type gets the first input of that type. Where the one is not
    made from the other, XLA copies."""
    free, pairs = list(donated), {}
    for k, v in enumerate(graph.outputs):
        for i in free:
            if (graph.inputs[i].shape, graph.inputs[i].dtype) == (v.shape, v.dtype):
                pairs[k] = i
                free.remove(i)
                break
    return pairs


def _pairs(graph: Graph, donate: Sequence[int]) -> dict[int, int]:
    """{output: the donated input whose memory it takes}: of the outputs of its type, the one that is made from it in the fewest steps."""
    made = {v: e for e in graph.equations for v in e.outputs}
    read = {a for e in graph.equations for a in e.inputs}
    wanted = {v: i for i in donate if (v := graph.inputs[i]) in read and v not in graph.outputs}
    places = {v: k for k, v in reversed(list(enumerate(graph.outputs))) if isinstance(v, Var) and v in made}
    near = []  # (steps, input, output)
    for v, k in places.items() if wanted else ():
        like = {u: i for u, i in wanted.items() if (u.shape, u.dtype) == (v.shape, v.dtype)}
        near += [(_NEAR, i, k) for i in like.values()]
        seen = front = {v} if like else set()
        for steps in range(_NEAR):
            near += [(steps, like[u], k) for u in front if u in like]
            front = {a for u in front if u in made for a in made[u].inputs if isinstance(a, Var)} - seen
            seen = seen | front
    pairs: dict[int, int] = {}
    for _, i, k in sorted(near):
        if k not in pairs and i not in pairs.values():
            pairs[k] = i
    return pairs


# ---- devices --------------------------------------------------------------------------------------------------------------------------
def _device_name(device: jax.Device) -> str:
    kind = {"gpu": "cuda"}.get(device.platform, device.platform)
    return "cpu" if (kind, device.id) == ("cpu", 0) else f"{kind}:{device.id}"


@contextlib.contextmanager
def _without_preallocation() -> Iterator[None]:
    """JAX's CUDA client takes three quarters of the memory when it starts, which breaks torch in the same process. Where the user chose
    nothing and the client has not started, it starts without; the environment is put back, and one line of log says so."""
    key = "XLA_PYTHON_CLIENT_PREALLOCATE"
    try:
        started = jax._src.xla_bridge.backends_are_initialized()
    except AttributeError:
        started = False
    if started or key in os.environ:
        yield
        return
    os.environ[key] = "false"
    try:
        yield
    finally:
        del os.environ[key]
    if any(d.platform == "gpu" for d in jax.devices()):
        logging.getLogger("minidl").info("jax: started its CUDA client without preallocation; set %s to choose for yourself", key)


def _devices() -> dict[str, jax.Device]:
    with _without_preallocation():
        found = [*jax.devices(), *jax.devices("cpu")]
    return {_device_name(d): d for d in found}


def make(device: str | None = None) -> JaxBackend:
    """The backend on a device: "cpu", "cuda:0", "tpu:0"; None is JAX's own default device.

    Raises ValueError that lists the devices there are.

    >>> make("cpu")
    <backend jax on cpu>
    """
    found = _devices()
    name = next(iter(found)) if device is None else device
    if name not in found and f"{name}:0" in found:
        name += ":0"
    if name not in found:
        raise ValueError(f"jax: there is no device {device!r}; this process has {', '.join(map(repr, found))}")
    return JaxBackend(found[name])
