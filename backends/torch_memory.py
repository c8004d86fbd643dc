"""PyTorch on the CPU: where a compiled program's large values lie.

Fresh memory costs a page fault for every 4 KB that is written to, often more than the computing. So values that die inside the program lie in
a workspace, planned from their lifetimes and kept from call to call; what a kernel makes in memory of its own is kept too, until just before the next
one of the size, which the allocator then puts there; and a result is written to memory of an earlier result of which no tensor, view, NumPy array or
DLPack capsule is left (the storage's own count says so).

Promises: results share no memory with inputs or with any result that is still alive; a workspace serves one call at a time, so threads may share a
program; what is kept is at most one workspace for each call that ran at once, and three blocks a result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from minidl.backends.reuse import Reuse
from minidl.backends.torch_rewrite import LAST
from minidl.graph import Equation, Graph, Var

Tensor = torch.Tensor
LARGE = 2**16  # bytes; smaller blocks are the allocator's to reuse
_BLOCKS = 3  # of a result: the one that is read, the one that is written, one to spare
_count: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)  # private, so it may be missing


def _empty(shape: tuple[int, ...], dtype: torch.dtype, order: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=order)


class Result:
    """Gives out memory for one result of a program, once more when nobody else holds it any longer."""

    __slots__ = ("blocks", "dtype", "order", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, order: torch.memory_format = torch.contiguous_format):
        self.shape, self.dtype, self.order = shape, dtype, order
        self.blocks: list[tuple[Tensor, Any]] = []

    def __call__(self) -> Tensor:
        blocks = self.blocks
        for _ in range(len(blocks)):
            try:
                block = blocks.pop(0)  # atomic: two threads never look at one block at once
            except IndexError:
                break
            free = _count is not None and _count(block[1]._cdata) == 2  # the block's own tensor and its storage
            out = block[0].detach() if free else None
            blocks.append(block)
            if out is not None:
                return out
        base = _empty(self.shape, self.dtype, self.order)
        if _count is None or len(blocks) >= _BLOCKS:
            return base
        out = base.detach()
        blocks.append((base, base.untyped_storage()))
        return out

    def copy(self, x: Tensor) -> Tensor:
        """The values of x in such memory."""
        return self().copy_(x)


class Plan:
    """Which equations are given memory: `slots[equation]` is the number of a workspace slot, `results[equation]` a Result; `kept[equation]` is the
    number of a slot that is a list, which holds what the kernel made, a result as well, until the slot's next user.

    takes(equation): whether its kernel writes where it is told to. least: bytes of a value from which on.
    """

    def __init__(self, graph: Graph, reuse: Reuse, takes: Callable[[Equation], bool], native: Callable[[Any], torch.dtype], least: float):
        self.slots: dict[Equation, int] = {}
        self.kept: dict[Equation, int] = {}
        self.results: dict[Equation, Result] = {}
        self.kinds: list[tuple | None] = []  # None: a list
        memory, last = _memory(graph, reuse)
        images = set[Var]().union(*(find(graph) for find in LAST))
        leaves = {memory.get(reuse.root[v]) for v in graph.outputs if isinstance(v, Var)}
        free: dict[tuple, list[int]] = {}
        ends: dict[int, list[tuple[tuple, int]]] = {}
        for i, equation in enumerate(graph.equations):
            out = equation.outputs[0]
            if equation not in reuse.over and out in reuse.owned and out.nbytes >= least:
                kind = (out.shape, native(out.dtype), torch.channels_last if out in images else torch.contiguous_format)
                here = takes(equation)
                if out in leaves and here:
                    self.results[equation] = Result(*kind)
                elif here or not equation.primitive.multiple:
                    size = kind if here else (out.nbytes,)
                    if not free.get(size):
                        free.setdefault(size, []).append(len(self.kinds))
                        self.kinds.append(kind if here else None)
                    slot = (self.slots if here else self.kept)[equation] = free[size].pop()
                    ends.setdefault(last[out], []).append((size, slot))
            for size, slot in ends.pop(i, ()):
                free[size].append(slot)

    def bind(self, program: Callable[..., tuple]) -> Callable[..., tuple]:
        """The program, whose last parameters are the slots, with a workspace at hand."""
        if not self.kinds:
            return program
        kinds, spare = self.kinds, list[list[Any]]()

        @functools.wraps(program)
        def call(*args: Tensor) -> tuple:
            try:
                work = spare.pop()
            except IndexError:
                work = [[] if kind is None else _empty(*kind) for kind in kinds]
            try:
                return program(*args, *work)
            finally:
                spare.append(work)

        return call


def _memory(graph: Graph, reuse: Reuse) -> tuple[dict[Var, Var], dict[Var, int]]:
    """For each variable the one in whose memory it lies, views and overwriting followed; and when each such memory is last used."""
    memory: dict[Var, Var] = {}
    last: dict[Var, int] = {}

    def at(v: Var) -> Var:
        root = reuse.root[v]
        return memory.setdefault(root, root)

    for i, equation in enumerate(graph.equations):
        if equation in reuse.over:
            memory[equation.outputs[0]] = at(equation.inputs[reuse.over[equation]])  # type: ignore[arg-type]
        for a in (*equation.inputs, *equation.outputs):
            if isinstance(a, Var):
                last[at(a)] = i
    for a in graph.outputs:
        if isinstance(a, Var):
            last[at(a)] = len(graph.equations)
    return memory, last


def sole(program: Callable[..., tuple], over: Sequence[int]) -> Callable[..., tuple]:
    """The program, which writes over these arguments, with a copy of each that somebody else may see. Memory that torch did not allocate (NumPy's) is
    not resizable; counts of the tensor and of its storage tell of capsules and views."""
    if not over:
        return program
    count = _count

    def call(*args: Tensor) -> tuple:
        given = list(args)
        for k in over:
            x = given[k]
            storage = x.untyped_storage()
            if count is None or count(storage._cdata) != 2 or x._use_count() != 1 or not storage.resizable():  # type: ignore[attr-defined]
                given[k] = x.clone()
        return program(*given)

    return call
