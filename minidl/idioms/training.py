"""What PyTorch's programs call around a model: files, stateless calls, ensembles, derivatives of functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import minidl as md

__all__ = ["Generator", "functional_call", "load", "save", "stack_module_state"]

Generator = md.random.Generator


def save(obj: Any, f: Any) -> None:
    """Write a state_dict, or a dict with several of them and numbers, to a file: md.saving.save(f, obj).

    The file is safetensors, not a pickle, so only what `md.saving.save` lists can be in it; no module or function.
    """
    md.saving.save(f, obj)


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What `save` wrote; map_location: the device that the tensors go to. Nothing is ever run from a file: weights_only=False is a ValueError.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> md.save({"epoch": 3, "model": {"w": md.ones(2)}}, path)
    >>> md.load(path)["epoch"]
    3
    """
    if not weights_only:
        raise ValueError("load: weights_only=False would run code from the file, which minidl never does")
    return md.saving.load(f, device=None if map_location is None else str(map_location))


def functional_call(
    module: Any, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
    strict: bool = False,
) -> Any:  # fmt: skip
    """module(*args, **kwargs) with these tensors in the place of its own: md.nn.utils.stateless.functional_call."""
    return md.nn.utils.stateless.functional_call(module, parameter_and_buffer_dicts, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, md.Tensor], dict[str, md.Tensor]]:
    """The parameters and the buffers of models of one kind, stacked along a new first axis: what md.vmap maps over.
    Raises RuntimeError for no model.

    >>> nets = [md.nn.Linear(2, 3) for _ in range(4)]
    >>> params, buffers = md.stack_module_state(nets)
    >>> md.vmap(lambda p: md.functional_call(nets[0], p, (md.ones(2),)))(params).shape
    (4, 3)
    """
    if not models:
        raise RuntimeError("stack_module_state: at least one model is wanted")

    def stacked(of: Callable[[Any], Any]) -> dict[str, md.Tensor]:
        each = [dict(of(m)) for m in models]
        out = {k: md.stack([e[k].detach() for e in each]) for k in each[0]}
        return {k: v.requires_grad_() if each[0][k].requires_grad else v for k, v in out.items()}

    return stacked(lambda m: m.named_parameters()), stacked(lambda m: m.named_buffers())


class functional:
    """torch.autograd.functional: derivatives of a function of tensors at its inputs, by md's transforms."""

    @staticmethod
    def _of(transform: Any, func: Callable[..., Any], inputs: Any) -> Any:
        if isinstance(inputs, md.Tensor):
            return transform(func)(inputs.detach())
        return transform(func, argnums=tuple(range(len(inputs))))(*(x.detach() for x in inputs))

    @staticmethod
    def jacobian(func: Callable[..., Any], inputs: Any) -> Any:
        """The Jacobian at the inputs (a tensor, or a tuple of them): md.jacrev.

        >>> md.autograd.functional.jacobian(lambda x: x * x, md.tensor([1.0, 2.0])).tolist()
        [[2.0, 0.0], [0.0, 4.0]]
        """
        return functional._of(md.jacrev, func, inputs)

    @staticmethod
    def hessian(func: Callable[..., Any], inputs: Any) -> Any:
        """The Hessian of a number at the inputs: md.hessian."""
        return functional._of(md.hessian, func, inputs)

    @staticmethod
    def vjp(func: Callable[..., Any], inputs: Any, v: Any = None) -> tuple[Any, Any]:
        """(func(inputs), the gradient of its product with v)."""
        out, pull = md.vjp(func, *(x.detach() for x in (inputs if isinstance(inputs, tuple) else (inputs,))))
        found = pull(md.ones_like(out) if v is None else v)
        return out, found if isinstance(inputs, tuple) else found[0]

    @staticmethod
    def jvp(func: Callable[..., Any], inputs: Any, v: Any) -> tuple[Any, Any]:
        """(func(inputs), its derivative in the direction v)."""
        primals, tangents = ((x if isinstance(x, tuple) else (x,)) for x in (inputs, v))
        return md.jvp(func, tuple(x.detach() for x in primals), tuple(tangents))
