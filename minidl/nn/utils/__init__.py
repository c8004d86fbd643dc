"""Gradients clipped by their norm or value, and parameters as one vector, as torch.nn.utils; clipping also as pure functions of pytrees.

By room: fusion (batch norm folded), parametrize and parametrizations (weights computed from others; orthogonal, and normed under PyTorch's first
names), prune, rnn (sequences of unequal lengths), stateless (a module as a function of its weights).

Promises: everything may stand in a jitted step; a gradient that is not clipped keeps its values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.nn import init
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.module import Module
from minidl.nn.utils import fusion, parametrizations, parametrize, prune, rnn, stateless
from minidl.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights, fuse_linear_bn_eval, fuse_linear_bn_weights
from minidl.nn.utils.normed import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = [
    "clip_by_global_norm", "clip_by_value", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "fuse_conv_bn_eval",
    "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights", "fusion", "get_total_norm", "parameters_to_vector", "parametrizations",
    "parametrize", "prune", "remove_spectral_norm", "remove_weight_norm", "rnn", "skip_init", "spectral_norm", "stateless",
    "vector_to_parameters", "weight_norm",
]  # fmt: skip


def get_total_norm(tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None) -> md.Tensor:
    """The norm of all elements of all tensors (a pytree of them) as one vector; norm_type may be inf. A 0-d tensor; 0 for no tensors.

    With error_if_nonfinite, raises RuntimeError where it is infinite or nan, and TypeError where it has no value yet: inside md.jit and md.vmap.

    >>> float(get_total_norm([md.asarray([3.0]), md.asarray([4.0])]))
    5.0
    """
    leaves = md.tree.leaves(tensors)
    p = float(norm_type)
    if not leaves:
        return md.asarray(0.0)
    total = _norm(*leaves) if p == 2.0 else _total(p)(*leaves)
    if error_if_nonfinite and not _known(md.isfinite(total)):
        raise RuntimeError(f"clip: the norm of order {p} of the gradients is {total.item()}; error_if_nonfinite=False clips by it all the same")
    return total


@by_kernel("norm")
def _norm(*xs: md.Tensor) -> md.Tensor:
    return _total(2.0)(*xs)


@functools.lru_cache(16)
def _total(p: float) -> Any:
    return md.extend.fused(lambda *xs: md.linalg.vector_norm(md.stack([md.linalg.vector_norm(x, ord=p) for x in xs]), ord=p))


@by_kernel("times")
@md.extend.fused
def _times(scale: md.Tensor, *xs: md.Tensor) -> list[md.Tensor]:
    return [x * scale.to(x.dtype) for x in xs]


def _known(finite: md.Tensor) -> bool:
    try:
        return bool(finite)
    except (TypeError, ValueError) as e:
        raise TypeError(
            "clip: error_if_nonfinite=True raises by the value of the norm, which has none yet inside md.jit, md.trace and md.vmap; leave it False "
            "there, return the norm and look at it outside, or choose inside, as with md.where(md.isfinite(norm), g, 0.0)"
        ) from e


def clip_by_global_norm(grads: Any, max_norm: float | md.Tensor, norm_type: float = 2.0) -> tuple[Any, md.Tensor]:
    """(gradients, norm before): a pytree scaled so that the norm of all its elements is at most max_norm. Pure; PyTorch's 1e-6 in the quotient.

    >>> clipped, norm = clip_by_global_norm({"w": md.asarray([30.0, 40.0])}, 5.0)
    >>> [round(v, 4) for v in clipped["w"].tolist()], float(norm)
    ([3.0, 4.0], 50.0)
    """
    total = get_total_norm(grads, norm_type)
    return _scaled(grads, max_norm, total), total


def _scaled(grads: Any, max_norm: Any, total: md.Tensor) -> Any:
    scale = md.minimum(max_norm / (total + 1e-6), 1.0)
    leaves, structure = md.tree.flatten(grads)
    return md.tree.unflatten(structure, list(_times(scale, *leaves)) if leaves else [])


def clip_by_value(grads: Any, clip_value: float) -> Any:
    """A pytree of gradients with every element between -clip_value and clip_value. Pure.

    >>> clip_by_value([md.asarray([3.0, -0.5])], 1.0)[0].tolist()
    [1.0, -0.5]
    """
    return md.tree.map(lambda g: md.clip(g, -clip_value, clip_value), grads)


def _with_grad(parameters: md.Tensor | Iterable[md.Tensor]) -> tuple[list[md.Tensor], list[md.Tensor]]:
    """The parameters that have a gradient, and these."""
    given = [parameters] if isinstance(parameters, md.Tensor) else parameters
    found = [(p, g) for p in given if (g := p.grad) is not None]
    return [p for p, _ in found], [g for _, g in found]


def _store(parameters: list[md.Tensor], grads: list[md.Tensor]) -> None:
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g


def clip_grad_norm_(
    parameters: md.Tensor | Iterable[md.Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> md.Tensor:
    """Scale all gradients by one factor so that their norm is at most max_norm; returns the norm before, a 0-d tensor.

    Parameters without a gradient are left out. Raises RuntimeError and TypeError as get_total_norm does.

    >>> w = md.nn.Parameter(md.ones(2))
    >>> (w * md.tensor([3.0, 4.0])).sum().backward()
    >>> md.nn.utils.clip_grad_norm_([w], 1.0).item()
    5.0
    """
    with md.no_grad():
        params, grads = _with_grad(parameters)
        total = get_total_norm(grads, norm_type, error_if_nonfinite)
        _store(params, _scaled(grads, max_norm, total))
    return total


def clip_grads_with_norm_(parameters: md.Tensor | Iterable[md.Tensor], max_norm: float, total_norm: md.Tensor, foreach: bool | None = None) -> None:
    """Scale all gradients as clip_grad_norm_ does, by a norm that is known.

    >>> w = md.nn.Parameter(md.ones(2))
    >>> (w * md.tensor([3.0, 4.0])).sum().backward()
    >>> md.nn.utils.clip_grads_with_norm_([w], 10.0, md.tensor(5.0))
    >>> w.grad.tolist()
    [3.0, 4.0]
    """
    with md.no_grad():
        params, grads = _with_grad(parameters)
        _store(params, _scaled(grads, max_norm, total_norm))


def clip_grad_value_(parameters: md.Tensor | Iterable[md.Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clip every element of every gradient to [-clip_value, clip_value].

    >>> w = md.nn.Parameter(md.ones(2))
    >>> (w * md.tensor([3.0, -4.0])).sum().backward()
    >>> md.nn.utils.clip_grad_value_([w], 1.0)
    >>> w.grad.tolist()
    [1.0, -1.0]
    """
    with md.no_grad():
        params, grads = _with_grad(parameters)
        _store(params, clip_by_value(grads, clip_value))


def parameters_to_vector(parameters: Iterable[md.Tensor]) -> md.Tensor:
    """All elements of all parameters in one 1-d tensor; gradients flow back. Raises ValueError for none.

    >>> md.nn.utils.parameters_to_vector(md.nn.Linear(2, 3).parameters()).shape
    (9,)
    """
    flat = [p.reshape(-1) for p in parameters]
    if not flat:
        raise ValueError("parameters_to_vector: got no parameters")
    return md.concat(flat)


def vector_to_parameters(vec: md.Tensor, parameters: Iterable[md.Tensor]) -> None:
    """Give parameters the values of a vector, in order and in place. Raises ValueError where the sizes differ; then nothing is changed.

    >>> w = md.tensor([[0.0, 0.0]], requires_grad=True)
    >>> vector_to_parameters(md.asarray([1.0, 2.0]), [w])
    >>> w.tolist()
    [[1.0, 2.0]]
    """
    params = list(parameters)
    if vec.ndim != 1 or vec.size != sum(p.size for p in params):
        raise ValueError(f"vector_to_parameters: a vector of shape {vec.shape} for parameters of {sum(p.size for p in params)} elements")
    at = 0
    with md.no_grad():
        for p in params:
            p.assign(vec[at : at + p.size].reshape(p.shape).to(p.dtype))
            at += p.size


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """module_cls(*args, **kwargs) without drawing initial values, for weights that are loaded anyway: they are zeros, and the stream of md.random
    stays where it was. Raises TypeError for what is no class of Modules.

    >>> skip_init(md.nn.Linear, 2, 1).weight.tolist()
    [[0.0, 0.0]]
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise TypeError(f"skip_init: a class of Modules is wanted, not {module_cls!r}")
    with init.skipped():
        return module_cls(*args, **kwargs)
