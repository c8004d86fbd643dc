"""Functions whose intermediate values are not kept, but computed again in the backward pass.

Promises: the second run sees what the first saw, in random draws, buffers and settings, and leaves no trace of itself.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minidl import tape, tree
from minidl.autograd import set_grad_enabled
from minidl.bodies import attach, node_of, now
from minidl.context import autocasting, grad_mode, interpreting, state
from minidl.tensors import Tensor, assign_alone
from minidl.tracing import innermost
from minidl.transforms import _push, alias, as_constant, pulled, twin, with_modules, with_node


class _Streams(list[Any]):
    def append(self, stream: Any) -> None:
        """One that is new while checkpointed functions run, for rooms are loaded when first used, began with each of them."""
        super().append(stream)
        journal = state.journal
        while journal is not None:
            with interpreting(journal.level):
                journal.streams.append((stream, stream.key.detach()))
            journal = journal.outer


#: Streams of random numbers that `checkpoint` replays: each has `key`, the Tensor of its state, and `restore(key)`.
streams: list[Any] = _Streams()


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, whose intermediate values are not kept but computed again in the backward pass (less memory for more time).

    The second run starts from the state of the first: random draws are replayed, buffers hold what they held then, and what it writes to them (as
    BatchNorm does) is undone. Inside md.jit it reads its inputs behind a barrier, so that it is not merged with the first run. Tensors changed in
    place are followed so; attributes set to new tensors are not. Source: T. Chen et al., Training deep nets with sublinear memory cost (2016).

    >>> md.grad(md.checkpoint(lambda x: md.sin(md.sin(x))))(md.tensor(0.0)).item()
    1.0
    """

    whole = f

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        f, args = with_modules(whole, args)
        leaves, structure = tree.flatten((args, kwargs))
        if not state.grad:
            return f(*args, **kwargs)
        start = [now(t) for t in leaves]
        live = [i for i, t in enumerate(start) if node_of(t) is not None]
        before, block = [(s, s.key.detach()) for s in streams], state.autocast

        def run(ins: Sequence[Any]) -> tuple[Any, list[Tensor]]:
            aliases = {i: alias(ins[i]) for i in live}
            a, k = tree.unflatten(structure, [twin(aliases.get(i, t)) for i, t in enumerate(ins)])
            with grad_mode(True), autocasting(block):
                results = f(*a, **k)
                left.append(state.grad)
            return results, [*aliases.values()]

        left, born = list[bool](), next(tape.count)
        with _journal() as journal:
            out, aliases = run([*map(as_constant, start)])
        before += journal.streams
        changed = {k: v for k, v in journal.items() if v[0]() is not None}  # the function's own are gone
        outs, out_structure = tree.flatten(out)
        stored = [t for ref, _ in changed.values() if (t := ref()) is not None and t.leaf is None and (n := node_of(t)) and n[0] < born]
        outs, n_out = [now(o) for o in (*outs, *stored)], len(outs)
        outside = _outside([o.node for o in outs if isinstance(o, Tensor) and o.node is not None], {t.node[0] for t in aliases}, born)
        tracked = [isinstance(o, Tensor) and o.node is not None for o in outs]
        outs = [*map(as_constant, outs)]
        like = next((o for o in outs if isinstance(o, Tensor) and o.dtype.inexact), None)
        if like is None or not (live or outside):
            return out
        sources = [*start, *(with_node(like, n) for n in outside)]  # those of the second kind stand for their nodes alone
        del out, aliases, journal

        def again(ins: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
            streams_now = [(s, s.key.detach()) for s, _ in before]
            with _journal() as undo:
                try:
                    _restore(changed)
                    _rewind(before)
                    results, aliases = run(ins[: len(leaves)])
                    return [now(r) for r in (*tree.leaves(results), *stored)], aliases
                finally:
                    _restore(undo)
                    _rewind(streams_now)

        def vjp(ins: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
            trace = innermost()
            with contextlib.nullcontext() if trace is None else trace.apart([_symbol(c) for c in cts]):
                results, aliases = again(ins)
                found = pulled("checkpoint", results, cts, [*aliases, *(with_node(like, n) for n in outside)], tracked)
            result: list[Any] = [None] * len(sources)
            for i, g in zip([*live, *range(len(leaves), len(sources))], found, strict=True):
                result[i] = g
            return result

        def jvp(ins: list[Any], tangents: list[Any]) -> list[Any]:
            results, every = again(ins)  # what has no tangent may have a node
            aliases = [a for i, a in zip(live, every, strict=True) if tangents[i] is not None]
            given = [t for t in tangents if t is not None]
            more = [with_node(t, n) for t, n in zip(tangents[len(leaves) :], outside, strict=True) if t is not None]
            floats = [i for i, r in enumerate(results) if isinstance(r, Tensor) and r.dtype.inexact]
            out = dict(zip(floats, _push([results[i] for i in floats], [*aliases, *more], given), strict=True))
            return [out.get(i) for i in range(len(results))]

        made = attach("checkpoint", sources, outs, vjp, jvp)
        made = [m if follows else o for m, o, follows in zip(made, outs, tracked, strict=True)]
        for t, m in zip(stored, made[n_out:], strict=True):
            assign_alone(t, m)
        if not left[0]:  # what f says of all that comes behind it
            set_grad_enabled(False)
        return tree.unflatten(out_structure, made[:n_out])

    return wrapped


def _symbol(t: Any) -> Any:
    """What a Tensor is in the innermost trace, below all levels of vmap."""
    while isinstance(t, Tensor) and hasattr(t.payload, "inner"):
        t = t.payload.inner
    return t.payload if isinstance(t, Tensor) else None


class Journal(dict[int, Any]):
    """What in-place operations of one level change, as it was before: a reference to the Tensor, and its value. What loops and functions of vmap
    inside write arrives when they are over, or not at all: some are traced only to see what they do."""

    def __init__(self) -> None:
        self.level, self.outer, self.streams = state.interpreter, state.journal, list[tuple[Any, Tensor]]()

    def note(self, t: Tensor) -> None:
        """Keep what a Tensor is, which is about to change, in all journals of this level."""
        if self.level is state.interpreter and id(t) not in self:
            self[id(t)] = weakref.ref(t), now(t)
        if self.outer is not None:
            self.outer.note(t)


@contextlib.contextmanager
def _journal() -> Iterator[Journal]:
    """Collect what changes inside."""
    found = Journal()
    state.journal = found
    try:
        yield found
    finally:
        state.journal = found.outer


def _restore(journal: dict[int, Any]) -> None:
    for target, value in list(journal.values()):
        if (t := target()) is not None:
            with grad_mode(t.leaf is None):  # which keeps its place on the tape
                assign_alone(t, value)


def _rewind(streams: list[tuple[Any, Tensor]]) -> None:
    for stream, key in streams:
        stream.restore(key)


def _outside(roots: Sequence[Any], stop: set[int], born: int) -> list[Any]:
    """The tracked nodes that a function read besides its arguments: parameters, closures, globals."""
    seen, found, stack = set(stop), [], list(roots)
    while stack:
        node = stack.pop()
        if node[0] in seen:
            continue
        seen.add(node[0])
        if node[0] > born or (len(node) > 4 and node[1] is tape.ALIAS):  # numbers fall; the second is how a trace sees what is not its own
            found.append(node)
        else:
            stack.extend(tape.parents_of(node))
    return found
