"""The eager tape as users meet it: backward, no_grad, grad of outputs with respect to inputs.

`md.autograd.grad` and `Tensor.backward` follow PyTorch; the functional transforms are in transforms.py and use the same passes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Sequence
from typing import Any

from minidl import tape, tree
from minidl.backends import using
from minidl.context import autocasting, busy, grad_mode, hush, record_from_now, state
from minidl.shapes import shown
from minidl.tape import ALIAS, LEAF, PAST, RELEASED, Node
from minidl.tensors import Tensor, describe, home, ns, scalar_payload, write_grad


def _unhush(told: tuple[Any, Any] | None) -> None:
    if told is not None:
        told[0].quiet = told[1]


class no_grad(contextlib.ContextDecorator):
    """Operations inside are not recorded on the tape; works as a context manager and as a decorator, of generators too.

    It is the thread's, as in PyTorch: where a coroutine awaits inside the block, the others run in it.

    >>> x = md.tensor([1.0], requires_grad=True)
    >>> with md.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    on = False

    def __new__(cls, *f: Any) -> Any:
        return cls()(*f) if f and callable(f[0]) else super().__new__(cls)  # @md.no_grad

    def __init__(self) -> None:
        self._stack: list[Any] = []

    def __call__(self, f: Any) -> Any:
        if not inspect.isgeneratorfunction(f):
            return super().__call__(f)

        @functools.wraps(f)
        def steps(*args: Any, **kwargs: Any) -> Any:
            generator = f(*args, **kwargs)
            step, given = generator.send, None
            while True:
                try:
                    with self._recreate_cm():
                        out = step(given)
                except StopIteration as end:
                    return end.value
                try:
                    step, given = generator.send, (yield out)
                except BaseException as error:  # GeneratorExit among them
                    step, given = generator.throw, error

        return steps

    def __enter__(self) -> None:
        told, block = None if state.interpreter is None else hush(self.on), grad_mode(self.on)
        block.__enter__()
        self._stack.append((told, block))

    def __exit__(self, *error: Any) -> None:
        told, block = self._stack.pop()
        block.__exit__(*error)
        _unhush(told)

    def _recreate_cm(self) -> no_grad:
        return type(self)()


class enable_grad(no_grad):
    """Operations inside are recorded, also within no_grad.

    >>> with md.no_grad(), md.enable_grad():
    ...     md.is_grad_enabled()
    True
    """

    on = True


class set_grad_enabled(no_grad):
    """Record operations of this thread, or not, from here on; as a context manager or a decorator until its end.

    >>> x = md.tensor([1.0], requires_grad=True)
    >>> for train in (True, False):
    ...     with md.set_grad_enabled(train):
    ...         print((x * 2).requires_grad)
    True
    False
    """

    def __init__(self, mode: bool):
        self.on, self._before, self._told = bool(mode), (state.grad, state.lasting), hush(bool(mode))
        record_from_now(self.on, not self.on)

    def __enter__(self) -> None:
        record_from_now(self.on, self._before[1], 1)

    def __exit__(self, *error: Any) -> None:
        record_from_now(*self._before, -1)
        _unhush(self._told)

    def __call__(self, f: Any) -> Any:
        record_from_now(*self._before)
        _unhush(self._told)
        return super().__call__(f)

    def _recreate_cm(self) -> set_grad_enabled:
        return type(self)(self.on)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread.

    >>> md.is_grad_enabled()
    True
    """
    return state.grad


def payload_here(t: Tensor) -> Any:
    """The payload of a Tensor in the current context (lifted if it belongs to an outer one)."""
    interp = state.interpreter
    return t.payload if interp is None else interp.lift(t)[0]


def conjugated(g: Any, dtype: Any, xp: Any) -> Any:
    """Cotangents are plain transposes inside the engine and directions of steepest ascent outside: conjugate once at the border."""
    return xp.conj(g) if dtype.is_complex else g


def seeds(name: str, outputs: Sequence[Tensor], grads: Sequence[Tensor | None] | None) -> list[tuple[Node, Tensor]]:
    """The (node, cotangent) pairs that start a reverse pass. Raises RuntimeError for a missing seed, ValueError for one of another shape."""
    out = []
    for i, t in enumerate(outputs):
        if t.node is None:
            raise RuntimeError(
                f"{name}: output {describe(t)} does not require grad; nothing that led to it was recorded (no_grad, or no input does)"
            )
        g = grads[i] if grads is not None else None
        if g is None:
            if t.dtype.is_complex:
                raise RuntimeError(f"{name}: the output {describe(t)} is complex; pass a gradient, or reduce it to a real number (abs, real, imag)")
            if t.size != 1:
                raise RuntimeError(f"{name}: {describe(t)} has {t.size} elements; pass a gradient of that shape, or reduce it with .sum() or .mean()")
            g = constant(t, 1)
        elif not isinstance(g, Tensor):
            raise TypeError(f"{name}: the gradient must be a Tensor, not {type(g).__name__}")
        if g.shape != t.shape:
            raise ValueError(f"{name}: gradient {describe(g)} for output {describe(t)}; the shapes must be equal")
        if g.dtype is not t.dtype:
            g = ns.cast(g, dtype=t.dtype)
        out.append((t.node, ns.conj(g) if t.dtype.is_complex else g))
    return out


def constant(like: Tensor, value: float) -> Tensor:
    """A tensor of one value with the shape and dtype of another, made in the current context and on its backend."""
    xp = state.interpreter or like.xp
    with xp.scope():
        return Tensor(xp.full(shape=like.shape, value=value, dtype=like.dtype), xp, like.dtype)


def _needs_tensors(roots: Sequence[tuple[Node, Tensor]]) -> bool:
    """Inside an interpreter a pass may meet nodes of an outer level, which never run raw."""
    level = state.interpreter if busy[0] else None
    return level is not None and any(n[1] is not LEAF and n[2] is not level for n in tape.above(*(n for n, _ in roots)))


def _accumulate(leaf: tape.Leaf, g: Tensor, hooked: bool = False) -> None:
    interp = state.interpreter
    g = tape.apply_hooks(leaf.hooks, g) if leaf.hooks and not hooked else g
    g = ns.conj(g) if g.dtype.is_complex else g
    have = leaf.grad if interp is None else interp.read_grad(leaf)
    if have is None or interp is not None or have.node is not None or g.node is not None or have.xp is not g.xp:
        new = g if have is None else ns.add(have, g)
        payload, node = (new.payload, new.node) if interp is None else interp.lift(new)
        write_grad(leaf, Tensor(payload, interp or new.xp, new.dtype, node))  # its own: others may have the cotangent, and it grows
    elif have.of is None:
        have.payload = ns.add(have, g).payload
    else:
        with grad_mode(False):
            have.add_(g)  # what it is a view of grows with it
    for hook in [h for h in leaf.hooks if hasattr(h, "after")]:  # register_post_accumulate_grad_hook of md.idioms
        with grad_mode(g.node is not None):
            hook.after()


def _arrive(node: Node, g: Any) -> None:
    """Add the cotangent of a leaf to its gradient."""
    leaf = node[3]
    xp = state.interpreter or node[2]
    dtype = xp.dtype_of(g)
    have = leaf.grad
    if leaf.hooks or state.interpreter is not None or (have is not None and have.of is not None):
        _accumulate(leaf, Tensor(g, xp, dtype))
        return
    new = conjugated(g, dtype, xp)
    if have is None or have.node is not None or have.xp is not xp:
        leaf.grad = Tensor(new if have is None else xp.add(have.payload, new), xp, dtype)
    else:  # who holds the gradient sees it grow, as in PyTorch
        have.payload = xp.add(have.payload, new)


def backward(
    tensor: Tensor | Sequence[Tensor], gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:  # fmt: skip
    """Add the gradient of this tensor, or of several in one pass, to the `.grad` of every leaf that led to it.

    gradient: the cotangent, needed unless the tensor has one element; of several tensors as many, or None. create_graph: record the pass, so that
    it can be differentiated again. retain_graph: keep the tape for another pass (default: create_graph). inputs: the leaves that get it, alone. In
    eager code a `.grad` that is there grows in place, seen by who holds it and in what it is a view of; with create_graph, and in a jitted function,
    another Tensor takes its place. Raises ValueError for another number of gradients than of tensors, RuntimeError for an untracked tensor, a
    released graph, or inputs that are none.

    >>> import minidl as md
    >>> x = md.tensor([3.0], requires_grad=True)
    >>> (x * x).backward()
    >>> x.grad.tolist()
    [6.0]
    """
    if busy[0] and state.autocast is not None:
        with autocasting(None):
            return backward(tensor, gradient, retain_graph, create_graph, inputs)
    retain = create_graph if retain_graph is None else retain_graph
    plain = gradient is None and inputs is None and not create_graph and not busy[0]
    if plain and isinstance(tensor, Tensor) and tensor.node is not None and tensor.dtype.is_float and tensor.payload.shape == ():
        xp = tensor.xp
        if xp.fuses and not state.strong and not tape.crossed:
            from minidl import replay  # a later room, which most backends do not need

            if replay.backward(tensor.node, tensor.dtype, retain, _arrive):
                return
        with tape.scope(xp):
            tape.pull_raw([(tensor.node, scalar_payload(xp, 1, tensor.dtype))], None, None, retain, _arrive)
        return
    one = isinstance(tensor, Tensor)
    tensors: tuple[Any, ...] = (tensor,) if one else tuple(tensor)
    gradients = None if gradient is None else (gradient,) if one else tuple(gradient)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors) or len(gradients or tensors) != len(tensors):
        raise ValueError(f"backward: tensors and as many gradients are wanted, {tensor!r} and {gradient!r} came")
    xp = state.interpreter or tensors[0].xp
    roots = seeds("backward", tensors, gradients)
    if inputs is not None:
        named = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        leaves: dict[Any, Node] = {getattr(t, "leaf", None): getattr(t, "node", None) for t in named}  # type: ignore[misc]
        if not leaves or None in leaves:
            raise RuntimeError(f"backward: inputs are leaves that require grad, not {shown(inputs)}; md.autograd.grad takes other tensors")
        found = pullback("backward", roots, [*leaves.values()], retain, create_graph, through=True)
        with grad_mode(create_graph):
            for leaf, g in zip(leaves, found, strict=True):
                if g is not None:
                    _accumulate(leaf, g, hooked=True)
        return
    if create_graph or _needs_tensors(roots):

        def arrive_tensor(node: Node, g: Tensor) -> None:
            _accumulate(node[3], g)

        with grad_mode(create_graph), using(home(xp)):
            tape.pull_tensors(roots, None, None, arrive_tensor, ns)
        if not retain:
            release([n for n, _ in roots])
        return

    raw = [(n, payload_here(g)) for n, g in roots]
    with tape.scope(xp):
        tape.pull_raw(raw, None, None, retain, _arrive)


def release(roots: Sequence[Node]) -> None:
    """Free the memory of everything recorded below these nodes; another pass over them raises."""
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node[1] not in (LEAF, RELEASED, ALIAS, PAST):
            stack.extend(tape.parents_of(node))
            if node[1].__class__ is not tape.Held:
                node[1] = RELEASED
                del node[3:]


def pullback(
    name: str, roots: Sequence[tuple[Node, Tensor]], targets: Sequence[Node], retain: bool, create_graph: bool | None = None, through: bool = False
) -> list[Tensor | None]:
    """The cotangents of `targets`, None for those to which no root leads. create_graph None: on Tensors exactly where the outcome may be
    differentiated again. through: as in pull_raw."""
    if not roots:
        return [None] * len(targets)
    if busy[0] and state.autocast is not None:
        with autocasting(None):
            return pullback(name, roots, targets, retain, create_graph, through)
    nodes = [n for n, _ in roots]
    _, tracked, leads = tape.reach(nodes, targets, through)
    tracked = tracked or any(g.node is not None for _, g in roots)
    results: dict[int, Any] = dict.fromkeys((t[0] for t in targets), None)
    nothing = lambda node, g: None
    if create_graph if create_graph is not None else tracked and state.grad:
        with using(home(nodes[0][2])):
            tape.pull_tensors(roots, results, leads, nothing, ns, through)
    elif _needs_tensors(roots):
        with grad_mode(False), using(home(nodes[0][2])):
            tape.pull_tensors(roots, results, leads, nothing, ns, through)
    else:
        xp = state.interpreter or nodes[0][2]
        with tape.scope(xp):
            tape.pull_raw([(n, payload_here(g)) for n, g in roots], results, leads, True, nothing, through)
        places = {t[0]: state.interpreter or t[2] for t in targets}
        results = {k: None if g is None else Tensor(g, places[k], places[k].dtype_of(g)) for k, g in results.items()}
    if not retain:
        release(nodes)
    return [results[t[0]] for t in targets]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of outputs with respect to inputs, as a tuple, without touching any `.grad`.

    is_grads_batched: each grad_output has a leading axis, along which it is another one; the gradients have it, too, from one pass (md.vmap). Raises
    RuntimeError for an input that does not require grad, or that was not used (unless allow_unused, which gives None, or materialize_grads, which
    gives zeros); ValueError for materialize_grads with allow_unused=False. only_inputs is accepted and changes nothing.

    >>> x = md.tensor([3.0], requires_grad=True)
    >>> md.autograd.grad(x * x, x)[0].tolist()
    [6.0]
    """
    outs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    ins = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    given = (grad_outputs,) if isinstance(grad_outputs, Tensor) else grad_outputs
    if materialize_grads and allow_unused is False:
        raise ValueError("autograd.grad: materialize_grads gives zeros for what was not used, which allow_unused=False forbids")
    for t in ins:
        if t.node is None:
            raise RuntimeError(f"autograd.grad: input {describe(t)} does not require grad")
    retain = create_graph if retain_graph is None else retain_graph
    if is_grads_batched:
        from minidl.batching import vmap  # a later room

        rows, structure = tree.flatten(list(given or ()))
        one = lambda gs: grad(outs, ins, tree.unflatten(structure, gs), True, create_graph, True, allow_unused, False, materialize_grads)
        result = vmap(one)(rows)
        if not retain:
            release([t.node for t in outs if t.node is not None])
        return result
    roots = seeds("autograd.grad", outs, given)
    found = pullback("autograd.grad", roots, [t.node for t in ins if t.node is not None], retain, create_graph, through=True)
    for t, g in zip(ins, found, strict=True):
        if g is None and not (allow_unused or materialize_grads):
            raise RuntimeError(f"autograd.grad: input {describe(t)} was not used by the outputs; pass allow_unused=True to get None for it")
    none = (lambda t: constant(t, 0)) if materialize_grads else lambda t: None
    return tuple(none(t) if g is None else (ns.conj(g) if g.dtype.is_complex else g) for t, g in zip(ins, found, strict=True))


Tensor.backward = backward  # type: ignore[attr-defined]


def __getattr__(name: str) -> Any:
    """PyTorch's Function and functional."""
    from minidl.ops.methods import idiom

    return idiom(globals(), "autograd", f"module 'minidl.autograd' has no attribute {name!r}", name)
