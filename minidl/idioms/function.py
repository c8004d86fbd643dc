"""`torch.autograd.Function` on md.custom_vjp: a forward pass and its derivative as two static methods."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md


class Context:
    """What forward leaves for backward: saved tensors, and attributes of any kind, whose names are the user's: ctx.constant, ctx.changed."""

    _changed: tuple[md.Tensor, ...] = ()
    _constant: tuple[md.Tensor, ...] = ()

    def __init__(self, needs: tuple[bool, ...] = ()):
        self.needs_input_grad, self.saved_tensors = needs, ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep these for backward, as `ctx.saved_tensors`."""
        self.saved_tensors = tensors  # type: ignore[assignment]

    def mark_non_differentiable(self, *outputs: md.Tensor) -> None:
        """These results do not require grad; their cotangents are zeros."""
        self._constant = outputs

    def mark_dirty(self, *inputs: md.Tensor) -> None:
        """These arguments, which forward changed in place and returns, are changed outside, too."""
        self._changed = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Accepted: cotangents are tensors all the same, of zeros where nothing came."""

    def _marks(self, given: Sequence[Any], outs: Sequence[Any]) -> tuple[dict[int, int], list[int]]:
        """Which argument is which result that was marked as changed, and which results are constants. Raises ValueError for a changed argument that
        is no result."""
        place = lambda t, among: next((i for i, v in enumerate(among) if v is t), -1)
        changed = {place(t, given): place(t, outs) for t in self._changed}
        if -1 in (*changed, *changed.values()):
            raise ValueError("mark_dirty: an argument is wanted that forward changes in place and returns")
        return changed, [place(t, outs) for t in self._constant]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward whose results are not differentiated: RuntimeError where somebody tries, as in PyTorch, instead of a derivative that is wrong.

    >>> class Sign(md.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return md.sign(x)
    ...     @staticmethod
    ...     @md.autograd.function.once_differentiable
    ...     def backward(ctx, g):
    ...         return g
    >>> md.grad(Sign.apply)(md.tensor(3.0)).item()
    1.0
    """
    final = md.custom_vjp(lambda g, *_: md.positive(g))
    final.defvjp(lambda g, *_: (md.positive(g), None), _twice)

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Any) -> Any:
        found = backward(ctx, *grads)
        several = isinstance(found, (tuple, list))
        depends = [*grads, *ctx.saved_tensors]
        out = tuple(final(g, *depends) if isinstance(g, md.Tensor) else g for g in (found if several else (found,)))
        return out if several else out[0]

    return once


def _twice(residuals: Any, g: Any) -> Any:
    raise RuntimeError("once_differentiable: this backward was differentiated, which its author says it cannot be")


class function:
    """torch.autograd.function: what its programs import from there."""

    once_differentiable = staticmethod(once_differentiable)
    FunctionCtx = Context


class _Held:
    """A Module on its way through custom_vjp, to which Modules are pytrees: backward gets this one, with Parameters that require grad."""

    def __init__(self, module: Any):
        self.module = module


def _held(value: Any) -> Any:
    return _Held(value) if isinstance(value, md.nn.Module) else value


def _opened(value: Any) -> Any:
    return value.module if isinstance(value, _Held) else value


class Function:
    """An operation with a derivative of its own, as in PyTorch: subclass it with static methods `forward(ctx, *args)` and `backward(ctx, *grads)`, or
    `forward(*args)` and `setup_context(ctx, inputs, output)`, and call `.apply(*args)`.

    backward returns one gradient (or None) for each argument, and None for those that were left out, if it likes. It works eagerly, under md.jit, and
    at any order. Arguments are positional; `ctx.needs_input_grad` is True for every float inside md.jit and md.vmap, where somebody may ask later.
    Raises TypeError where backward returns another number of gradients.

    >>> class Double(md.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 2 * x
    >>> md.grad(Double.apply)(md.tensor(3.0)).item()
    6.0
    """

    @staticmethod
    def forward(*args: Any) -> Any:
        """The operation."""
        raise NotImplementedError("Function: define the static methods forward and backward")

    @staticmethod
    def backward(ctx: Context, *grads: Any) -> Any:
        """The gradient of each argument, from those of the results."""
        raise NotImplementedError("Function: define the static methods forward and backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Compute forward; backward is what differentiation calls."""
        inside = md.extend.traced() is not None  # a loop or a vmap: who differentiates it later is not known yet
        marked: list[Any] = []
        needs = tuple(isinstance(a, md.Tensor) and (a.requires_grad or (inside and a.dtype.inexact)) for a in args)

        def run(*given: Any) -> tuple[Any, dict[str, Any]]:
            tracked = any(isinstance(a, md.Tensor) and a.requires_grad for a in md.tree.leaves(given))  # where backward is differentiated
            record = tracked or not md.extend.at_once()
            ctx, given = Context(needs), tuple(_opened(a) for a in given)
            with contextlib.nullcontext() if record else md.no_grad():
                if not hasattr(cls, "setup_context"):
                    out = cls.forward(ctx, *given)
                else:
                    out = cls.forward(*given)
                    cls.setup_context(ctx, given, out)
            marked[:] = ctx._marks(given, out if isinstance(out, (tuple, list)) else (out,))
            return out, {k: _held(v) for k, v in vars(ctx).items() if k not in ("_changed", "_constant")}

        def back(left: dict[str, Any], cotangent: Any) -> tuple[Any, ...]:
            ctx = Context()
            vars(ctx).update({k: _opened(v) for k, v in left.items()})
            found = cls.backward(ctx, *(cotangent if isinstance(cotangent, (tuple, list)) else (cotangent,)))
            found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if any(g is not None for g in found[len(args) :]) or len(found) < len(args):
                raise TypeError(f"{cls.__name__}: backward returned {len(found)} gradients for {len(args)} arguments; None stands for one of no use")
            return tuple(
                g.to(a.dtype) if isinstance(g, md.Tensor) and isinstance(a, md.Tensor) and g.dtype is not a.dtype else g
                for g, a in zip(found, args, strict=False)  # None may stand for arguments that were left out
            )

        f = md.custom_vjp(lambda *given: run(*given)[0])
        f.defvjp(run, back)
        out = f(*(_held(a) for a in args))
        changed, constant = marked
        if not changed and not constant:
            return out
        outs = list(out) if (several := isinstance(out, (tuple, list))) else [out]
        for i, k in changed.items():
            outs[k] = args[i].assign(outs[k])
        for k in constant:
            outs[k] = md.stop_gradient(outs[k])
        return type(out)(outs) if several else outs[0]
