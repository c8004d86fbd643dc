"""Jacobians: the columns or rows of a derivative, all of them at once by vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl import Tensor, tree
from minidl.extend import argument_numbers, home, inexact, ns, using

__all__ = ["hessian", "jacfwd", "jacrev"]

Function = Callable[..., Any]


def _basis(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """For each tensor, the standard basis of all of them restricted to it: [total, *shape] with ones on its own rows."""
    total = sum(t.size for t in tensors)
    out, row = [], 0
    for t in tensors:
        with using(home(t)):
            rows = ns.reshape(ns.iota(size=total, dtype=md.int64), shape=(total, 1))
            unit = ns.cast(ns.eq(rows, ns.add(ns.iota(size=int(t.size), dtype=md.int64), row)), dtype=t.dtype)
            out.append(ns.reshape(unit, shape=(total, *t.shape)))
        row += t.size
    return out


def _split_rows(columns: Tensor, owners: Sequence[Tensor], front: bool) -> list[Tensor]:
    """Cut the basis axis (first) into blocks, one per owner, and give each the owner's shape."""
    out, row = [], 0
    for t in owners:
        block = columns[row : row + t.size]
        row += t.size
        block = md.reshape(block, (*t.shape, *columns.shape[1:]))
        if not front:
            n, rest = len(t.shape), len(columns.shape) - 1
            block = md.moveaxis(block, tuple(range(n)), tuple(range(rest, rest + n)))
        out.append(block)
    return out


def _of_chosen(f: Function, nums: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Function:
    """f of the arguments at nums alone, the others being what they are."""

    def call(*chosen: Any) -> Any:
        full = list(args)
        for i, a in zip(nums, chosen, strict=True):
            full[i] = a
        return f(*full, **kwargs)

    return call


def jacfwd(f: Function, argnums: int | Sequence[int] = 0, holomorphic: bool = False, has_aux: bool = False) -> Function:
    """The Jacobian by forward mode: one pass for all inputs at once (vmapped); best where outputs outnumber inputs. has_aux: f
    returns (value, aux), and this (Jacobian, aux).

    >>> md.jacfwd(lambda x: x * x)(md.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nums = argument_numbers("jacfwd", argnums, len(args))
        leaves, structure = tree.flatten([args[i] for i in nums])
        leaves = inexact("jacfwd", leaves)
        call = _of_chosen(f, nums, args, kwargs)
        along = lambda ts: md.jvp(lambda *xs: call(*tree.unflatten(structure, xs)), tuple(leaves), tuple(ts), has_aux)[1:]
        moved, *aux = md.vmap(along, out_axes=(0, None) if has_aux else (0,))(_basis(leaves))

        def assemble(columns: Tensor) -> Any:
            nested = tree.unflatten(structure, _split_rows(columns, leaves, front=False))
            return nested[0] if isinstance(argnums, int) else tuple(nested)

        found = tree.map(assemble, moved)
        return (found, *aux) if has_aux else found

    return wrapped


def jacrev(
    f: Function, argnums: int | Sequence[int] = 0, holomorphic: bool = False, has_aux: bool = False, chunk_size: int | None = None
) -> Function:
    """The Jacobian by reverse mode: one pass for all outputs at once (vmapped); best where inputs outnumber outputs. has_aux: f
    returns (value, aux), and this (Jacobian, aux). chunk_size, PyTorch's, is accepted and changes nothing.

    >>> md.jacrev(lambda x: x * x)(md.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nums = argument_numbers("jacrev", argnums, len(args))
        call = _of_chosen(f, nums, args, kwargs)
        out, pull, *aux = md.vjp(call, *(args[i] for i in nums), has_aux=has_aux)
        outs, structure = tree.flatten(out)
        rows = md.vmap(lambda cts: pull(tree.unflatten(structure, cts)))(_basis(outs))
        if holomorphic:
            rows = tree.map(lambda g: ns.conj(g) if g.dtype.is_complex else g, rows)
        leaves, in_structure = tree.flatten(rows)
        blocks = [_split_rows(r, outs, front=True) for r in leaves]
        per_out = []
        for k in range(len(outs)):
            nested = tree.unflatten(in_structure, [b[k] for b in blocks])
            per_out.append(nested[0] if isinstance(argnums, int) else tuple(nested))
        found = tree.unflatten(structure, per_out)
        return (found, *aux) if has_aux else found

    return wrapped


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The matrix of second derivatives, forward over reverse.

    >>> md.hessian(lambda x: (x * x * x).sum())(md.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacfwd(jacrev(f, argnums), argnums)
