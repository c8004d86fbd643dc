"""PyTorch: other ways to compile a program than to emit its calls by rules: torch's inductor, replayed CUDA graphs, and images in another order.

Promises: a program guards what was compiled for it (dtype, shape, order in memory) and never computes on anything else; results share no memory
with inputs or with any other result; what a mode cannot run is refused with a reason, before anything has changed.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from minidl.backends.torch_elementwise import NATIVE
from minidl.backends.torch_linear import HALF, SIGNED, _linear
from minidl.backends.torch_memory import Result
from minidl.backends.torch_rewrite import WAYS
from minidl.emit import load
from minidl.graph import Equation, Graph, subgraphs

Tensor = torch.Tensor
Program = Callable[..., tuple]
Kinds = Sequence[tuple[tuple[int, ...], torch.dtype]]
_aten = torch.ops.aten
_KEPT = 2**20  # bytes of a result from which its memory is kept
_MOST = 6000  # equations, loops unrolled: beyond, compiling takes minutes
#: Orders of images, which torch_rewrite.WAYS makes; and what modes there are for a device that is none of CUDA's, and for one that is.
ORDERS = ("channels_first", "channels_last")
MODES = ("inductor", *ORDERS), ("inductor", "cudagraph")
#: How a program reads that a mode compiles, see TorchBackend.callable.
READS = {"inductor": "traced", "cudagraph": "compiled"}
_lock = threading.Lock()  # torch's compiler keeps global state


def _guarded(run: Callable[..., Any], inputs: Kinds, name: str) -> Program:
    """run behind a check of every input; one that lies in memory in another order is copied. The text is generated: a loop costs twice as much."""
    names = [f"x{i}" for i in range(len(inputs))]
    tests = [f"{n}.dtype is d{i} and {n}.shape == s{i}" for i, n in enumerate(names)]
    lines = [f"def guarded({', '.join(names)}):"]
    if names:
        lines.append(f"    if not ({' and '.join(tests)}): raise TypeError(wrong(({', '.join(names)},)))")
    lines += [f"    if not {n}.is_contiguous(): {n} = {n}.contiguous()" for n in names]
    lines.append(f"    return run({', '.join(names)})")

    def wrong(found: tuple[Tensor, ...]) -> str:
        k = next(i for i, (x, kind) in enumerate(zip(found, inputs, strict=True)) if (tuple(x.shape), x.dtype) != kind)
        return f"{name}: compiled for {inputs[k][1]} of shape {inputs[k][0]} as input {k}, called with {found[k].dtype} of {tuple(found[k].shape)}"

    env: dict[str, Any] = {"run": run, "wrong": wrong}
    for i, (shape, dtype) in enumerate(inputs):
        env[f"d{i}"], env[f"s{i}"] = dtype, shape
    return load("\n".join(lines) + "\n", env, "guarded")


# ---- inductor -------------------------------------------------------------------------------------------------------------------------
def unrolled(graph: Graph) -> int:
    """How many there are once every loop is unrolled, as tracing does."""
    return sum(1 + e.params.get("length", 1) * sum(map(unrolled, subgraphs(e.params))) for e in graph.equations)


def expected(graph: Graph, mode: str) -> float:
    """Inductor takes seconds to load, a sixth of one for each loop that a C++ compiler makes, alike ones once, and reads each turn of a loop. An
    order that the rule chooses by itself is no other way."""
    if mode != "inductor":
        return math.inf if mode in ORDERS and (mode not in WAYS or WAYS[mode](graph) is None) else 0.0
    return 8.0 + 0.14 * len({repr(e) for e in graph.walk()}) + 0.005 * unrolled(graph)


def _check_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            raise RuntimeError("mode='inductor' on CUDA needs the package triton; install it, or leave mode out") from None
        return
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(wanted.split()[0]) is None:
        raise RuntimeError(f"mode='inductor' needs a C++ compiler and found no {wanted!r}; install one, name it in CXX, or leave mode out")


def _acosh(x: Tensor) -> Any:
    """The square of x overflows in inductor's."""
    if not x.is_floating_point():
        return NotImplemented
    t = x - 1
    near = torch.log1p(t + torch.sqrt(t * (t + 2)))
    return torch.where(x > 1e6, torch.log(x) + math.log(2), torch.where(x >= 1, near, math.nan))


def _remainder(x: Tensor, y: Tensor) -> Any:
    """Inductor's is nan for an infinite divisor; this is how torch's own is made."""
    if not x.is_floating_point():
        return NotImplemented
    r = torch.fmod(x, y)
    return torch.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


def _floor_divide(x: Tensor, y: Tensor) -> Any:
    """Inductor's is the floor of a rounded quotient; this is how torch's own is made."""
    if not x.is_floating_point():
        return NotImplemented
    r = torch.fmod(x, y)
    q = (x - r) / y
    q = torch.where((r != 0) & ((r < 0) != (y < 0)), q - 1, q)
    down = torch.floor(q)
    out = torch.where(q - down > 0.5, down + 1, down)
    return torch.where(y == 0, x / y, torch.where(q == 0, torch.copysign(torch.zeros_like(q), x / y), out))


def _nextafter(x: Tensor, y: Tensor) -> Any:
    """Inductor computes half precision in float32, whose next number rounds to x again. What is not rounded yet is as it shows its bits."""
    if x.dtype not in HALF:
        return NotImplemented
    a, b = (v.view(torch.int16).to(torch.int32) for v in torch.broadcast_tensors(x, y))
    i, j = (torch.where(v < 0, -(v & 0x7FFF), v) for v in (a, b))  # integers in the order of the numbers
    k = i + torch.where(j > i, 1, -1)
    k = torch.where(i == j, b, torch.where((k < 0) | ((k == 0) & (i < 0)), -k - 0x8000, k))
    top = 0x7C00 if x.dtype is torch.float16 else 0x7F80
    return torch.where(((a & 0x7FFF) > top) | ((b & 0x7FFF) > top), math.nan, k.to(torch.int16).view(x.dtype))


def _where(c: Tensor, x: Tensor, y: Tensor) -> Any:
    """Inductor's has no unsigned integers but uint8; their bits are chosen."""
    signed = SIGNED.get(x.dtype)
    return NotImplemented if signed is None else torch.where(c, x.view(signed), y.view(signed)).view(x.dtype)


_ours = torch.library.Library("minidl", "FRAGMENT")
_ours.define("product(Tensor x, Tensor w, Tensor? b) -> Tensor")
_ours.impl("product", lambda x, w, b: _linear(x, w, b, "none", [], ""), "CPU")
_ours.impl("product", lambda x, w, b: x.new_empty((*x.shape[:-1], w.shape[0])), "Meta")


def _product(x: Tensor, w: Tensor, b: Tensor | None, *rest: Any) -> Tensor:
    """oneDNN's product, which inductor knows for constants only, by a name that it calls as it stands. What oneDNN copies first inductor copies in a
    quarter of the time, or makes in that order."""
    return torch.ops.minidl.product(x.contiguous(), w, b)


#: Where inductor's own text for a function misses the value contract, or lacks.
_RIGHT: dict[Any, Callable[..., Any]] = {
    _aten.acosh.default: _acosh, _aten.remainder.Tensor: _remainder, _aten.floor_divide.default: _floor_divide,
    _aten.nextafter.default: _nextafter, _aten.where.self: _where,
    **({} if _linear is None else {_linear: _product}),
}  # fmt: skip


def inductor(program: Program, inputs: Kinds, device: torch.device, graph: Graph) -> Program:
    """The program through torch's compiler, which fuses what lies between library calls. It takes .5 to 20 s, once: torch keeps the code on disk.

    Raises RuntimeError where there is no C++ compiler, NotImplementedError for a program whose course depends on values, or that is too long.
    Source: J. Ansel et al., PyTorch 2 (ASPLOS 2024); the entry without torch.compile's frame evaluation is torch._inductor.standalone_compile.
    """
    _check_compiler(device)
    for e in graph.walk():
        if e.primitive.name in ("while_loop", "cond"):
            raise NotImplementedError(f"mode='inductor': {e.primitive.name} decides by values what runs next; leave mode out for {graph.name!r}")
    if (count := unrolled(graph)) > _MOST:
        said = f"{graph.name!r} has {count} equations, loops unrolled, and at most {_MOST} are compiled"
        raise NotImplementedError(f"mode='inductor': {said}; leave mode out")
    from torch._inductor import standalone_compile
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    kept = {} if device.type != "cpu" else _kept(graph)
    n, given = len(inputs), [(r.shape, r.dtype) for r in kept.values()]

    def flat(*args: Tensor) -> tuple:
        outs = program(*args[:n])
        for memory, k in zip(args[n:], kept, strict=True):
            memory.copy_(outs[k])
        return tuple(o for k, o in enumerate(outs) if k not in kept)

    with _lock, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's parts about each other
        with FakeTensorMode(allow_non_fake_inputs=True):
            fakes: list[Any] = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in (*inputs, *given)]
            traced = make_fx(flat, decomposition_table=_RIGHT, _allow_non_fake_inputs=True)(*fakes)
        made = standalone_compile(traced, fakes, dynamic_shapes="from_graph")

    def run(*args: Tensor) -> tuple:
        memory = [r() for r in kept.values()]
        outs = list(made(*args, *memory))
        for k, m in zip(kept, memory, strict=True):
            outs.insert(k, m)
        return tuple(outs)

    return _guarded(run if kept else made, inputs, graph.name)


def _kept(graph: Graph) -> dict[int, Result]:
    """Memory for the large results, by their numbers, that a loop over their elements makes and that nothing else reads. Inductor's own goes back to
    the system when the caller drops the result, or not, as the heap happens to lie: then each call pays a page fault for every 4 KB, or none."""
    made = {v: e for e in graph.equations for v in e.outputs}
    found, read = {}, {a for e in graph.equations for a in e.inputs}
    for k, v in enumerate(graph.outputs):
        e = made.get(v)  # type: ignore[arg-type]
        if e is None or v in read or graph.outputs.count(v) > 1 or e.outputs[0].nbytes < _KEPT:
            continue
        if getattr(e.primitive, "elementwise", False) or _outer(e):
            found[k] = Result(e.outputs[0].shape, NATIVE[e.outputs[0].dtype])
    return found


def _outer(e: Equation) -> bool:
    """Whether a product is one of each row with each row."""
    if e.primitive.name != "dot_general":
        return False
    (x, _), (contract, _) = e.inputs, e.params["contract"]
    return all(x.shape[a] == 1 for a in contract)


# ---- CUDA graphs ----------------------------------------------------------------------------------------------------------------------
def cudagraph(program: Program, inputs: Kinds, device: torch.device, graph: Graph) -> Program:
    """The program captured on the first call and replayed in one launch: arguments are copied into memory of the capture, results out of it. Where it
    read a number of the host's (a beta of Adam's, see TorchBackend.scalar), it is captured anew when that has changed.

    Raises RuntimeError off CUDA, NotImplementedError for a program that has to look at values (a while loop, a branch).
    Source: torch.cuda.graphs, after the CUDA programming guide.
    """
    if device.type != "cuda":
        raise RuntimeError(f"mode='cudagraph' replays work of a GPU, and this is {device}; move the data to cuda, or leave mode out")
    for e in graph.walk():
        if e.primitive.name in ("while_loop", "cond"):
            raise NotImplementedError(f"mode='cudagraph': {e.primitive.name} decides by values what runs next; leave mode out for {graph.name!r}")
    recorded: list[tuple[Any, list[Tensor], tuple[Tensor, ...], Any, list[tuple[int, Any]]]] = []
    turn = threading.Lock()  # the memory of the capture serves one call at a time

    def record(args: tuple[Tensor, ...]) -> None:
        held: list[Any] = [a.clone() for a in args]
        for mine, a in zip(held, args, strict=True):
            mine.number, mine.read = getattr(a, "number", None), False
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose algorithms and take workspaces on the first calls, which a capture must not see
                program(*held)
        torch.cuda.current_stream(device).wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, capture_error_mode="thread_local"):  # other threads may allocate meanwhile
            out = program(*held)
        last = torch.cuda.Event()
        last.record(torch.cuda.current_stream(device))
        recorded.append((captured, held, tuple(out), last, [(k, a.number) for k, a in enumerate(held) if a.read]))

    def replay(*args: Tensor) -> tuple:
        with turn, torch.cuda.device(device):
            if recorded and any(getattr(args[k], "number", None) != number for k, number in recorded[0][4]):
                recorded.clear()
            if not recorded:
                record(args)
            captured, held, out, last, _ = recorded[0]
            last.wait()  # a call on another stream may still read the results of its replay
            if held:
                torch._foreach_copy_(held, args)
            captured.replay()
            results = tuple(o.clone() for o in out)
            last.record()
            return results

    return _guarded(replay, inputs, graph.name)
