"""A CUDA device for tests on machines without one: tensors that say they lie on cuda:0, whose elements lie on the CPU and are computed there.

What it shows of the torch backend on a GPU: the values that its paths for CUDA give; that no operation is given tensors of two devices (CUDA takes
0-d tensors of the CPU beside its own, and indices); how often the host waits for the device; and what a replayed graph does: it runs again what was
recorded, on the memory that it was recorded on, and nothing of Python, and an operation that a capture cannot hold fails. What it cannot show: what
CUDA's own kernels compute, streams, the memory pools of graphs, Triton and time.

torch lets a mode answer for every operation (torch.utils._python_dispatch), and asks no driver for the tensors of a mode with FakeTensorMode's key.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
#: The symbol of torch's table of what switches devices around an operation, by device type: 0 is the CPU, 1 is CUDA, which a CPU build does not fill.
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
#: Operations that make the host wait for the device, besides copies to the CPU and masks as indices.
WAITS = frozenset("_local_scalar_dense allclose nonzero equal masked_select unique_dim _unique2 unique_consecutive".split())
INDEXED = frozenset("index index_put index_put_ _index_put_impl_".split())
#: Operations whose tensors may lie on two devices: copies, and indexing, whose indices may come from the CPU.
MIXED = INDEXED | {"copy_", "_to_copy"}


class OnCuda(torch.Tensor):
    """A tensor on the pretended device; `elements` holds its elements."""

    elements: torch.Tensor
    __class__ = torch.Tensor  # as it is of CUDA's own tensors

    @staticmethod
    def __new__(cls, elements: torch.Tensor) -> OnCuda:
        elements = elements.resolve_conj().resolve_neg()
        self = torch.Tensor._make_wrapper_subclass(
            cls, elements.shape, strides=elements.stride(), storage_offset=elements.storage_offset(), dtype=elements.dtype, device=CUDA
        )
        self.elements = elements
        return self

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{function}: a tensor of the pretended device outlived it")


class PretendedCuda(TorchDispatchMode):
    """While it is on, torch's operations on cuda run. waits: how often each operation made the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # so that torch does not look for a driver
        self.waits: Counter[str] = Counter()
        self.ran = 0  # operations on the device
        self.tape: list[tuple[Any, Any, Any, Any]] | None = None  # of a graph that is being captured

    def __enter__(self) -> PretendedCuda:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes the tensor on the CPU and copies it
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), function._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        ours = [x for x in tensors if type(x) is OnCuda]
        if ours and name not in MIXED and any(type(x) is not OnCuda and x.ndim for x in tensors):
            shapes = [tuple(x.shape) for x in tensors]
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cuda:0 and cpu: {shapes}")
        there = type(args[0]) is OnCuda if name == "copy_" else bool(ours)
        if kwargs.get("device") is not None:
            there, kwargs["device"] = torch.device(kwargs["device"]).type == "cuda", CPU
        masks = name in INDEXED and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if ours and (name in WAITS or not there or masks):
            self.waits[name] += 1
        if self.tape is not None and (
            (ours and (name in WAITS or not there or masks)) or (there and any(type(x) is not OnCuda and x.ndim for x in tensors))
        ):
            raise RuntimeError(f"{name}: the host would wait for the device, which a capture cannot hold")
        self.ran += there
        known = {id(x.elements): x for x in ours}
        out = function(*tree_map(_elements, args), **tree_map(_elements, kwargs))

        def result(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            if not there:
                return x.clone() if id(x) in known else x
            return known[id(x)] if id(x) in known else OnCuda(x)

        out = tree_map(result, out)
        if self.tape is not None and there:
            self.tape.append((function, args, kwargs, out))
        return out


class Capture:
    """torch.cuda.CUDAGraph, and what stands around a capture."""

    mode: PretendedCuda
    made = 0

    def __init__(self) -> None:
        self.tape: list[tuple[Any, Any, Any, Any]] = []

    @contextlib.contextmanager
    def capture(self, **_: Any) -> Iterator[None]:
        Capture.made += 1
        self.mode.tape = []
        try:
            yield
            self.tape = self.mode.tape
        finally:
            self.mode.tape = None

    def replay(self) -> None:
        """Run what was recorded on the elements that it was recorded on; a result goes where it lay."""
        with torch._C._DisableTorchDispatch():
            for function, args, kwargs, out in self.tape:
                new = function(*tree_map(_elements, args), **tree_map(_elements, kwargs))
                for old, now in zip(tree_leaves(out), tree_leaves(new), strict=True):
                    if isinstance(now, torch.Tensor) and now.data_ptr() != old.elements.data_ptr():
                        old.elements.copy_(now)


def _elements(x: Any) -> Any:
    return x.elements if type(x) is OnCuda else x


@contextlib.contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """One GPU, as far as torch and minidl can tell, in this thread and in those that start while it is there."""
    guards = (ctypes.c_void_p * 2).in_dll(ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so")), GUARDS)
    if guards[1] is None:
        guards[1] = guards[0]
    mode, run = PretendedCuda(), threading.Thread.run

    def with_mode(self: threading.Thread) -> None:
        with mode:
            run(self)

    answers = {"is_available": True, "device_count": 1, "synchronize": None, "is_current_stream_capturing": False}
    Capture.mode, Capture.made = mode, 0
    parts = dict.fromkeys(("Stream", "Event", "current_stream", "stream", "device"), lambda *_: mock.MagicMock())
    parts |= {"CUDAGraph": Capture, "graph": lambda captured, **how: captured.capture(**how)}
    with contextlib.ExitStack() as stack:
        for name, value in parts.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for name, value in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, value=value: value))
        stack.enter_context(mock.patch.object(threading.Thread, "run", with_mode))
        yield stack.enter_context(mode)
