"""PyTorch as a backend, on the CPU and on CUDA: one instance per device.

Promises: native arrays are torch.Tensors that never require grad, and torch.autograd is never used; no setting of torch is changed (which precision
products have on CUDA is said in torch_linear); a compiled program's results share no memory with its inputs or with each other, and inputs are
never written to but those that are donated and that torch alone holds, once: a tensor, view, NumPy array or DLPack capsule besides keeps them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from minidl import dtypes
from minidl.backends.base import Backend, Functions, beside, brought
from minidl.backends.reuse import Reuse, with_copies
from minidl.backends.torch_elementwise import COMPLEX, KERNELS, METHODS, NATIVE, PLAIN, SUMS, caster
from minidl.backends.torch_kernels import add_at_slice, places_kernel, short_rows, slices
from minidl.backends.torch_linear import HALF, SIGNED, dot_plan, quicker
from minidl.backends.torch_memory import LARGE, Plan, Result, sole
from minidl.backends.torch_rewrite import EMITTED, OVER, WAYS, rewritten
from minidl.dtypes import DType, float32
from minidl.emit import emit, load, spell
from minidl.graph import Equation, Graph, subgraphs
from minidl.lowering import multiplied
from minidl.passes import inlined
from minidl.primitives.core import table
from minidl.shapes import prod

Tensor = torch.Tensor
Kernel = Callable[..., Any]
OURS = {native: ours for ours, native in NATIVE.items()}
_UNSIGNED = frozenset(OURS[d] for d in SIGNED)
_HALF = frozenset(OURS[d] for d in HALF)
_below: Any = getattr(torch._C, "_AutoDispatchBelowAutograd", contextlib.nullcontext)  # private, so it may be missing
_WORK = "work_"  # the workspace among a program's parameters
_HOISTED = 2**16  # a constant of up to so many elements is made once for the program, a larger one in each call
_MULTIPLIED = 2**16  # from how many bytes on an outer product is a multiplication, into planned memory


@functools.cache
def _unwarned() -> None:
    """torch warns, once in a process, of the first read-only array that it is given, which somebody might write to. minidl writes to no array."""
    array = np.zeros(1)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.from_numpy(array)


class TorchBackend(Backend):
    """PyTorch on one device."""

    name = "torch"
    version = torch.__version__

    def __init__(self, device: str = "cpu"):
        self.log_softmax_at_dx = places_kernel(self.fallback("log_softmax_at_dx"))
        super().__init__()
        self.device = device
        self.torch_device = torch.device(device)
        self.donates = device == "cpu"
        quick = PLAIN | METHODS
        bare = {n: KERNELS[n] for n in COMPLEX} | SUMS | {"add_at_slice": add_at_slice}
        self.quick, self.bare = Functions(self, quick), Functions(self, quick | bare)

    def complete(self) -> None:
        """Libraries' kernels are like our own."""
        for name, f in brought("torch").items():
            if table[name].apply is None:
                KERNELS[name] = f
            setattr(TorchBackend, name, f if table[name].apply is not None else staticmethod(f))
        super().complete()

    # conversions
    def asarray(self, value: np.ndarray, dtype: DType) -> Tensor:
        """A copy of the data on this device, in memory that torch allocates: NumPy's could not be given to a program."""
        value = np.asarray(value)
        source = dtypes.from_numpy(value.dtype)
        native = torch.empty(value.shape, dtype=NATIVE[source], device="cpu")
        np.copyto(native.view(torch.int16).numpy().view(source.numpy) if source is dtypes.bfloat16 else native.numpy(), value)
        native = native.to(self.torch_device)
        return native if source is dtype else caster(native.dtype, NATIVE[dtype])(native)

    def adopt(self, value: np.ndarray) -> Tensor:
        """The memory itself on the CPU, a copy on another device or where torch has no name for the layout."""
        if not value.flags.writeable:
            _unwarned()
        if self.device == "cpu":
            try:
                return torch.from_numpy(value)
            except (TypeError, ValueError):  # a dtype that torch does not know from NumPy, or a negative stride
                if value.dtype == dtypes.bfloat16.numpy and min(value.strides, default=0) >= 0:
                    return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
        return self.asarray(value, dtypes.from_numpy(value.dtype))

    def to_numpy(self, native: Tensor) -> np.ndarray:
        """The data; shares memory on the CPU."""
        try:
            return native.numpy()
        except (RuntimeError, TypeError):  # on another device, or in a form that NumPy does not have
            native = _plain(native).detach().cpu()
        if native.dtype is torch.bfloat16:
            return native.view(torch.int16).numpy().view(dtypes.bfloat16.numpy)
        return native.resolve_conj().resolve_neg().numpy()

    def scalar(self, value: Any, dtype: DType) -> Tensor:
        """A 0-d tensor, which keeps the number: from a GPU the host cannot read it without waiting."""
        native: Any = torch.tensor(value, dtype=NATIVE[dtype], device=self.torch_device)
        native.number = value
        return native

    def native_dtype(self, dtype: DType) -> torch.dtype:
        """torch's dtype."""
        return NATIVE[dtype]

    def dtype_of(self, native: Tensor) -> DType:
        """The minidl dtype of a tensor."""
        return OURS[native.dtype]

    def is_native(self, value: Any) -> bool:
        """Whether this is a torch.Tensor."""
        return isinstance(value, Tensor)

    @staticmethod
    def devices() -> tuple[str, ...]:
        """The CPU and the GPUs."""
        return ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)))

    def from_dlpack(self, value: Any, copy: bool | None = None) -> Tensor:
        """A tensor that shares the memory of another library's array, or of one of torch's, where the device is the same."""
        if isinstance(value, Tensor):
            if value.is_conj() or value.is_inference() or (copy is False and value.device != self.torch_device):
                raise BufferError("it is on another device, one of inference_mode, or conjugated when it is read")
            return _plain(value).detach().as_subclass(Tensor).to(self.torch_device)
        if any(n < 0 for n in getattr(value, "strides", None) or ()):  # torch ends the process
            raise BufferError("torch has no negative strides")
        return torch.from_dlpack(value).detach().to(self.torch_device)

    def synchronize(self) -> None:
        """Wait for the device's queue; the CPU has none."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)

    def scope(self) -> Any:
        """For a whole backward pass: past torch's autograd layer, which has nothing to do there and is a tenth of a small operation."""
        return _below()

    # creation
    def full(self, *, shape: Sequence[int], value: Any, dtype: DType) -> Tensor:
        """A tensor of one value. torch refuses a number beyond the largest of the dtype, even one that rounds to it."""
        try:
            return torch.full(shape, value, dtype=NATIVE[dtype], device=self.torch_device)
        except RuntimeError:
            if not dtype.inexact:
                raise
            with np.errstate(over="ignore"):
                rounded = np.asarray(value).astype(dtype.numpy).astype(np.complex128 if dtype.is_complex else np.float64).item()
            return torch.full(shape, rounded, dtype=NATIVE[dtype], device=self.torch_device)

    def iota(self, *, size: int, dtype: DType) -> Tensor:
        """0, 1, …, size - 1."""
        return torch.arange(size, device=self.torch_device).to(NATIVE[dtype])

    def pieces(self, x: Tensor, axis: int, ends: Sequence[int], drop: bool) -> Sequence[Tensor]:
        """torch's own, which is one call."""
        return x.unbind(axis) if drop else x.split([b - a for a, b in itertools.pairwise(ends)], axis)

    # programs
    def callable(self, graph: Graph, how: str = "open") -> Kernel:
        """The program in torch calls: results may show the memory of arguments and constants. how: as for `_program`."""
        return self._program(graph, how)

    @property
    def modes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What minidl.modes has for the device: inductor, torch's compiler, which fuses and takes seconds; on the CPU two orders of images,
        channels_first and channels_last; on a GPU cudagraph, the program recorded and replayed in one launch."""
        return room.MODES[self.torch_device.type == "cuda"] if (room := beside("minidl.modes", "torch")) else ()

    def expected(self, graph: Graph, mode: str | None = None) -> float:
        """Seconds where torch's compiler makes loops of a C++ compiler's."""
        return beside("minidl.modes", "torch").expected(inlined(graph), mode) if mode else 0.0

    def compile(self, graph: Graph, donate: Sequence[int] = (), mode: str | None = None) -> Kernel:
        """The program in torch calls, writing over its own dead values; results share no memory with anything. mode: see `modes`."""
        if mode is not None and mode not in self.modes:
            raise ValueError(f"compile: torch on {self.device} has no mode {mode!r}; it has {', '.join(map(repr, self.modes))}")
        key, room = (self, mode), beside("minidl.modes", "torch")
        if mode is None or mode in room.ORDERS:
            return self._program(graph, "compiled", tuple(donate) if self.donates else (), WAYS.get(mode or ""))
        if key not in graph.cache:
            inputs = [(v.shape, NATIVE[v.dtype]) for v in graph.inputs]
            graph.cache[key] = getattr(room, mode)(self._program(graph, room.READS[mode]), inputs, self.torch_device, graph)
        return graph.cache[key]

    def _program(self, graph: Graph, how: str, donate: tuple[int, ...] = (), way: Callable[[Graph], Graph | None] | None = None) -> Kernel:
        """The emitted program. how: "open" may show the memory of arguments, "compiled" reuses memory, "traced" is for another compiler to read."""
        key = (self, how, donate, way)
        if key not in graph.cache:
            given = [v for v in (graph.inputs[k] for k in donate) if graph.inputs.count(v) == 1]
            place, program = self.device if how == "compiled" else "", inlined(graph)
            program = rewritten(multiplied((way and way(program)) or program, _MULTIPLIED), place)
            writes = _can_overwrite if how != "traced" else lambda e: False
            reuse = Reuse(program, _is_fresh, writes, given)
            if how != "open" and reuse.shared:
                program = with_copies(program, reuse.shared)
                reuse = Reuse(program, _is_fresh, writes, given)
            lines = _Lines(self, program, reuse, how, LARGE if place == "cpu" else math.inf)
            source, env = emit(program, lines, self.literal, release=True)
            if kinds := lines.plan.kinds:
                work = "".join(f", {_WORK}{i}" for i in range(len(kinds)))
                source = source.replace("):\n", f"{work if program.inputs else work[2:]}):\n", 1)
            made = lines.plan.bind(load(source, env, graph.name))
            over = {reuse.root[e.inputs[k]] for e, k in reuse.over.items()}  # type: ignore[index]
            over |= {e.inputs[k] for e, blocks in lines.into.items() for k, block in enumerate(blocks) if block is None}  # type: ignore[misc]
            graph.cache[key] = sole(made, [k for k in donate if graph.inputs[k] in over])
        return graph.cache[key]


class _Lines:
    """How the equations of one program read, and where their results lie. least: the bytes of a value from which on its memory is planned."""

    def __init__(self, backend: TorchBackend, program: Graph, reuse: Reuse, how: str, least: float):
        self.backend, self.reuse, self.traced = backend, reuse, how == "traced"
        self.plan, self.into = Plan(program, reuse, _takes_memory, NATIVE.__getitem__, least), _into(program, reuse)

    def __call__(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        line = self._line(equation, inputs, outputs, env)
        if equation not in self.plan.kept:
            return line
        kept = f"{_WORK}{self.plan.kept[equation]}"  # holds the result's memory until the slot's next user
        return f"{kept}.clear()\n{line}\n{kept}.append({outputs[0]})"

    def _line(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        over, name = inputs[self.reuse.over[equation]] if equation in self.reuse.over else None, equation.primitive.name
        if equation in self.plan.slots:
            over = f"{_WORK}{self.plan.slots[equation]}"
        elif equation in self.plan.results:
            over = f"{_bind(env, 'block', self.plan.results[equation])}()"
        if (text := self._direct(equation, inputs, env, over)) is not None:
            return f"{outputs[0]} = {text}"
        if name in EMITTED:
            env[name] = EMITTED[name]
            line = spell(equation, inputs, outputs, env)
            return f"{line[:-1]}, into={_bind(env, 'into', self.into[equation])})" if equation in self.into else line
        line = self.backend.spell(equation, inputs, outputs, env)
        if self.traced and any(subgraphs(equation.params)):
            return f"{line[:-1]}, how='traced')"
        return f"{line[:-1]}, out={over})" if over else line

    def _direct(self, equation: Equation, inputs: list[str], env: dict[str, Any], over: str | None) -> str | None:
        """The call that the primitive's function would end in, where shapes and dtypes decide it; None to call that function."""
        name, params = equation.primitive.name, equation.params
        x = equation.inputs[0] if equation.inputs else None
        if name in ("full", "iota") and prod(equation.outputs[0].shape) <= (0 if self.traced else _HOISTED):
            return _bind(env, "constant", getattr(self.backend, name)(**params))
        if x is None:
            return None
        a, unsigned = inputs[0], any(i.dtype in _UNSIGNED for i in equation.inputs)
        into = f", out={over}" if over else ""
        if name in PLAIN and not unsigned and not (name in COMPLEX and x.dtype.is_complex):
            return f"{_bind(env, 'torch_' + name, PLAIN[name])}({', '.join(inputs)}{into})"
        if name in ("keep_positive", "keep_inside"):
            return f"{_bind(env, name, EMITTED[name])}({', '.join(inputs)}{into}{''.join(f', {k}={v!r}' for k, v in params.items())})"
        if name == "relu" and not unsigned:
            return f"{_bind(env, *(('torch_relu_', torch.relu_) if over else ('torch_relu', torch.relu)))}({a})"
        if name == "copy":
            return f"{a}.clone()"
        if name in ("reshape", "permute", "broadcast_to"):
            method = {"broadcast_to": "expand"}.get(name, name)
            return f"{a}.{method}({params['axes' if name == 'permute' else 'shape']!r})"
        if name == "slice":
            return f"{a}[{_bind(env, 'index', slices(**params))}]"
        if name == "cast":
            return f"{_bind(env, 'cast', caster(NATIVE[x.dtype], NATIVE[params['dtype']]))}({a})"
        # what the kernel adds up more accurately than torch.sum, or faster
        own = name == "sum" and (prod(x.shape[a] for a in params["axis"]) > 4096 or short_rows(x.shape, params["axis"]))
        if name in ("sum", "max", "min") and params["axis"] and x.dtype.inexact and not own:
            function = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}[name]
            return f"{_bind(env, 'torch_' + name, function)}({a}, {params['axis']!r}, {params['keepdims']})"
        if name == "dot_general" and x.dtype.inexact and x.dtype not in _HALF:
            cx, cy = params["contract"]
            if _is_mm(equation):
                mm = (self.backend.device == "cpu" and _quicker(equation)) or torch.mm
                y = f"{inputs[1]}{'.t()' if cy[0] else ''}{into if mm is torch.mm else ''}"
                return f"{_bind(env, 'torch_' + mm.__name__, mm)}({a}{'' if cx[0] else '.t()'}, {y})"
            return f"{_bind(env, 'product', dot_plan(x.ndim, equation.inputs[1].ndim, **params))}({a}, {inputs[1]})"
        return None


def _into(graph: Graph, reuse: Reuse) -> dict[Equation, tuple]:
    """For each equation that writes over operands what copies one for its result: None where it was given and dies there."""
    found: dict[Equation, tuple] = {}
    for i, e in enumerate(graph.equations):
        if e.primitive.name in OVER:
            free = [a in reuse.given and reuse.dies(i, e, a) for a in e.inputs[: len(e.outputs)]]
            copies = (torch.clone if v.nbytes < LARGE else Result(v.shape, NATIVE[v.dtype]).copy for v in e.outputs)
            found[e] = tuple(None if f else copy for f, copy in zip(free, copies, strict=True))
    return found


def _bind(env: dict[str, Any], stem: str, value: Any) -> str:
    """The name of a value among the program's globals; the digits keep it apart from every variable."""
    name = f"{stem}_0"
    if env.setdefault(name, value) is not value:
        name = f"{stem}_{len(env)}"
        env[name] = value
    return name


def _is_fresh(equation: Equation) -> bool:
    """Whether the results are new memory: not where a function hands its argument back, or a constant of the program."""
    name, params = equation.primitive.name, equation.params
    if name in ("copy", "attention", "attention_grad") or name in EMITTED:
        return True
    if name == "cast":
        return params["dtype"] is not equation.inputs[0].dtype
    if name == "full":
        return prod(params["shape"]) > _HOISTED
    if name in ("abs", "relu", "floor", "ceil", "round", "trunc"):
        return equation.inputs[0].dtype not in _UNSIGNED
    return name in KERNELS and params.get("axis") != ()


def _can_overwrite(equation: Equation) -> bool | Sequence[int]:
    """Whether the result may take the memory of any operand, or which operands."""
    name = equation.primitive.name
    if name == "put_along" or (name == "scatter" and equation.params["mode"] == "add"):
        return () if equation.outputs[0].dtype in _UNSIGNED else (0,)
    if name in COMPLEX and equation.inputs[0].dtype.is_complex:
        return False
    return (name in PLAIN or name in ("relu", "keep_positive", "keep_inside")) and not any(a.dtype in _UNSIGNED for a in equation.inputs)


def _is_mm(equation: Equation) -> bool:
    """Whether this is the product of two matrices in a dtype that torch multiplies."""
    x, y, p = *equation.inputs, equation.params
    return x.ndim == y.ndim == 2 and len(p["contract"][0]) == 1 and not p["batch"][0] and x.dtype.inexact and x.dtype not in _HALF


def _quicker(equation: Equation) -> Kernel | None:
    """See torch_linear.quicker."""
    if not _is_mm(equation) or equation.inputs[0].dtype is not float32:
        return None
    (x, y), ((c,), (d,)) = (a.shape for a in equation.inputs), equation.params["contract"]
    return quicker(x[1 - c], x[c], y[1 - d])


def _takes_memory(equation: Equation) -> bool:
    name = equation.primitive.name
    if name in ("gelu", "gelu_dx", "softmax"):
        return equation.outputs[0].dtype not in _HALF
    if name == "dot_general":
        return _is_mm(equation) and _quicker(equation) is None
    return name not in ("relu", "put_along", "scatter") and bool(_can_overwrite(equation))


for _name, _kernel in KERNELS.items():
    setattr(TorchBackend, _name, staticmethod(_kernel))


def _plain(x: Tensor) -> Tensor:
    """The tensor itself, if it is one whose elements lie in memory, of a dtype that minidl has. Raises TypeError for any other."""
    if x.is_nested or x.layout is not torch.strided or x.is_meta:
        raise TypeError("a torch tensor that is nested, sparse or without data has no elements in rows; convert it with .to_dense() first")
    if x.dtype not in OURS:
        raise TypeError(f"minidl has no dtype for torch's {x.dtype}; convert it with .dequantize() or .to() first")
    return x


def make(device: str | None = None) -> TorchBackend:
    """The backend on a device: "cpu" (the default), "cuda" (the first GPU) or "cuda:<n>".

    Raises ValueError for a device that torch does not have here, and lists those that it has.
    """
    usable = TorchBackend.devices()
    wanted = "cpu" if device is None else "cuda:0" if device == "cuda" else device
    if wanted not in usable:
        raise ValueError(f"backend torch: no device {device!r} here; it can use {', '.join(usable)}")
    return TorchBackend(wanted)
