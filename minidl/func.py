"""torch.func: minidl's transforms where PyTorch's programs import them from, `from minidl.func import functional_call, vmap, grad`.

They are md's own, with PyTorch's words for arguments. A module is called with other parameters by functional_call, and several are mapped over as one
by stack_module_state.

>>> from minidl.func import grad, vmap
>>> vmap(grad(lambda w, x: (w * x).sum()), in_dims=(None, 0))(md.ones(2), md.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
[[1.0, 2.0], [3.0, 4.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.training import functional_call, grad_and_value, replace_all_batch_norm_modules_, stack_module_state

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "replace_all_batch_norm_modules_",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip
Function = Callable[..., Any]


def grad(func: Function, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Function:
    """md.grad: the gradient of a function that gives a number, or with has_aux (gradient, aux).

    >>> md.func.grad(lambda x: x * x)(md.tensor(3.0)).item()
    6.0
    """
    return md.grad(func, argnums, has_aux)


def hessian(func: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """md.hessian.

    >>> md.func.hessian(lambda x: x**3)(md.tensor(2.0)).item()
    12.0
    """
    return md.hessian(func, argnums)


def jacfwd(func: Function, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error") -> Function:
    """md.jacfwd. randomness is accepted and changes nothing.

    >>> md.func.jacfwd(lambda x: x * x)(md.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    return md.jacfwd(func, argnums, has_aux=has_aux)


def jacrev(func: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """md.jacrev, so many rows at a time where chunk_size says so.

    >>> md.func.jacrev(lambda x: x * x)(md.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    return md.jacrev(func, argnums, has_aux=has_aux, chunk_size=chunk_size)


def jvp(func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """md.jvp: (func(*primals), its derivative along tangents). strict is accepted: what does not depend on an input has a derivative of 0.

    >>> [v.item() for v in md.func.jvp(lambda x: x * x, (md.tensor(3.0),), (md.tensor(1.0),))]
    [9.0, 6.0]
    """
    return md.jvp(func, primals, tangents, has_aux)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """md.linearize: (func(*primals), its derivative as a function of tangents).

    >>> y, tangent = md.func.linearize(lambda x: x * x, md.tensor(3.0))
    >>> tangent(md.tensor(1.0)).item()
    6.0
    """
    return md.linearize(func, *primals)


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> Any:
    """md.vjp: (func(*primals), a function of a cotangent that gives those of primals), and aux with has_aux.

    >>> y, pull = md.func.vjp(lambda x: x * x, md.tensor(3.0))
    >>> pull(md.tensor(1.0))[0].item()
    6.0
    """
    return md.vjp(func, *primals, has_aux=has_aux)


def vmap(func: Function, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *, chunk_size: int | None = None) -> Function:
    """md.vmap. Lanes draw different numbers, also with randomness="error"; chunk_size changes no value. Raises TypeError for randomness="same".

    >>> md.func.vmap(lambda x: x.sum())(md.ones((2, 3))).tolist()
    [3.0, 3.0]
    """
    return md.vmap(func, in_dims, out_dims, randomness=randomness)
