"""JAX's names (and NumPy's and SciPy's in JAX) for what minidl calls otherwise, with JAX's arguments: aliases and a few lines over public names.

Kept apart from PyTorch's, because none of them is a method. The meaning is JAX's; positions are int64, as everywhere in minidl.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms import of_lax, of_linalg

#: No value, where None is one.
NONE = object()


def array(object: Any, dtype: Any = None, copy: bool = True) -> md.Tensor:
    """md.asarray, which copies unless it is told not to.

    >>> md.array([1.0, 2.0]).shape
    (2,)
    """
    return md.asarray(object, dtype=dtype, copy=True if copy else None)


def percentile(a: Any, q: Any, axis: Any = None, keepdims: bool = False, *, method: str = "linear") -> md.Tensor:
    """md.quantile of q / 100, which may be a Tensor.

    >>> md.percentile(md.tensor([1.0, 2.0, 3.0]), 50).item()
    2.0
    """
    q = [v / 100 for v in q] if isinstance(q, (list, tuple)) else q / 100
    return md.quantile(a, q, axis=axis, keepdims=keepdims, method=method)


def top_k(operand: Any, k: int, *, axis: int = -1) -> Any:
    """md.topk as jax.lax.top_k has it: the k largest values in order, and where they are.

    >>> md.top_k(md.tensor([1.0, 3.0, 2.0]), 2)[1].tolist()
    [1, 2]
    """
    return md.topk(operand, k, axis)


def block_until_ready(x: Any) -> Any:
    """x, a Tensor or a pytree of them, as soon as its values are computed, which a clock should wait for: jax and GPUs work behind Python's back.

    >>> md.block_until_ready(md.ones(2) + 1.0).tolist()
    [2.0, 2.0]
    """
    for leaf in md.tree.leaves(x):
        if isinstance(leaf, md.Tensor) and leaf.xp is md.extend.home(leaf):  # no symbol of a trace, no lane of vmap
            leaf.xp.wait([leaf.payload])
    return x


def segment_sum(
    data: Any, segment_ids: Any, num_segments: int | None = None, indices_are_sorted: bool = False, unique_indices: bool = False
) -> md.Tensor:
    """The sums of the rows of `data` that have one number in `segment_ids`, as jax.ops.segment_sum has them; others than those from 0 to
    num_segments - 1 are left out. indices_are_sorted and unique_indices are accepted and change nothing.

    Inside jit num_segments must be given, since shapes are static.

    >>> md.segment_sum(md.tensor([1.0, 2.0, 4.0]), md.tensor([0, 2, 0]), 3).tolist()
    [5.0, 0.0, 2.0]
    """
    data = md.asarray(data)
    ids = segment_ids if isinstance(segment_ids, md.Tensor) else md.asarray(segment_ids, device=data.device)
    n = int(md.max(ids)) + 1 if num_segments is None else num_segments
    return data.new_zeros((n, *data.shape[1:])).at[md.where(ids < 0, n, ids)].add(data, mode="drop")


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All prefixes of an associative operation along an axis, in about 2 log2(n) calls of fn on whole slices, as jax.lax.associative_scan has it.

    fn(a, b) takes and returns pytrees like `elems`, whose tensors agree in the size of the axis (ValueError where they do not); reverse: all
    suffixes. The method is that of G. Blelloch, Prefix sums and their applications, 1990.

    >>> md.associative_scan(md.add, md.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 3.0, 6.0]
    """
    leaves, structure = md.tree.flatten(elems)
    leaves = [md.moveaxis(md.asarray(v), axis, 0) for v in leaves]
    sizes = {v.shape[0] for v in leaves}
    if len(sizes) != 1:
        raise ValueError(f"associative_scan: the tensors have the sizes {sorted(sizes)} along axis {axis}; they must agree in one")

    def combined(a: list[Any], b: list[Any]) -> list[Any]:
        moved = [[md.moveaxis(v, 0, axis) for v in side] for side in ((b, a) if reverse else (a, b))]
        if reverse:
            moved.reverse()
        return [md.moveaxis(v, axis, 0) for v in md.tree.leaves(fn(*(md.tree.unflatten(structure, side) for side in moved)))]

    def prefixes(xs: list[Any]) -> list[Any]:
        n = xs[0].shape[0]
        if n < 2:
            return xs
        odd = prefixes(combined([v[: n - 1 : 2] for v in xs], [v[1::2] for v in xs]))
        even = [v[:1] for v in xs]
        if n > 2:
            rest = combined([v[: (n - 1) // 2] for v in odd], [v[2::2] for v in xs])
            even = [md.concat(pair, axis=0) for pair in zip(even, rest, strict=True)]
        return [_interleaved(e, o) for e, o in zip(even, odd, strict=True)]

    if reverse:
        leaves = [md.flip(v, axis=0) for v in leaves]
    found = prefixes(leaves)
    found = [md.flip(v, axis=0) for v in found] if reverse else found
    return md.tree.unflatten(structure, [md.moveaxis(v, 0, axis) for v in found])


def _interleaved(even: md.Tensor, odd: md.Tensor) -> md.Tensor:
    k = odd.shape[0]
    pairs = md.reshape(md.stack([even[:k], odd], axis=1), (2 * k, *odd.shape[1:]))
    return md.concat([pairs, even[k:]], axis=0) if even.shape[0] > k else pairs


# ---- x.at[index] ------------------------------------------------------------------------------------------------------------------------
def subtract(at: Any, values: Any, **rules: Any) -> md.Tensor:
    """Less the value; several values for one position are all taken away.

    >>> md.ones(2).at[0].subtract(3.0).tolist()
    [-2.0, 1.0]
    """
    values = values.to(at.x.dtype) if isinstance(values, md.Tensor) else md.asarray(values, dtype=at.x.dtype)
    return at.add(-values, **rules)


def divide(at: Any, values: Any, **rules: Any) -> md.Tensor:
    """Divided by the value; several values for one position all divide. Integers become floats, also where nothing is divided.

    >>> md.ones(2).at[0].divide(4.0).tolist()
    [0.25, 1.0]
    """
    return md.divide(at.x, md.ones_like(at.x).at[at.index].multiply(values, **rules))


def power(at: Any, values: Any, **rules: Any) -> md.Tensor:
    """To the power of the value; of several values for one position, to that of their product.

    >>> md.tensor([3.0, 3.0]).at[0].power(2.0).tolist()
    [9.0, 3.0]
    """
    return md.pow(at.x, md.ones_like(at.x).at[at.index].multiply(values, **rules))


def apply(at: Any, func: Callable[[md.Tensor], md.Tensor], *, unique_indices: bool = False, mode: str | None = None, **rules: Any) -> md.Tensor:
    """func(x) for an elementwise function of one tensor, of the elements there; n times for a position that is named n times. It differentiates as
    func does, and is run on no other elements. unique_indices promises that no position is named twice, which saves the count of them.

    >>> md.tensor([4.0, 4.0, 4.0]).at[[0, 2, 2]].apply(md.sqrt).tolist()
    [2.0, 4.0, 1.4142135381698608]
    """
    rules["mode"] = mode
    read = rules | {"mode": mode and "clip"}  # what is out of range is not written, so that anything may be read for it
    first = at.get(**read)
    once = at.set(func(first), **rules)
    items = at.index if isinstance(at.index, tuple) else (at.index,)
    if unique_indices or all(i is None or i is Ellipsis or isinstance(i, (int, slice)) or _dtype(i) is md.bool for i in items):
        return once
    hits = md.zeros_like(at.x, dtype=md.int32).at[at.index].add(1, **rules)
    times = hits.at[at.index].get(**read)

    def again(k: Any, x: md.Tensor) -> md.Tensor:
        due = times > k
        return x.at[at.index].set(md.where(due, func(md.where(due, x.at[at.index].get(**read), first)), x.at[at.index].get(**read)), **rules)

    values, out = md.extend.seen(hits), once
    if values is None:
        return md.fori_loop(1, md.max(hits), again, once) if hits.size else once
    for k in range(1, int(values[0].max(initial=0))):
        out = again(k, out)
    return out


def _dtype(index: Any) -> Any:
    return index.dtype if isinstance(index, md.Tensor) else None


# ---- md.tree ----------------------------------------------------------------------------------------------------------------------------
def structure(tree: Any) -> Any:
    """The structure of a pytree, without its leaves.

    >>> md.tree.structure((1, [2])) == md.tree.structure((3, [4]))
    True
    """
    return md.tree.flatten(tree)[1]


def all_(tree: Any) -> bool:
    """Whether all leaves are true.

    >>> md.tree.all({"a": True, "b": [1]})
    True
    """
    return all(md.tree.leaves(tree))


def reduce(function: Callable[[Any, Any], Any], tree: Any, initializer: Any = NONE) -> Any:
    """The leaves, from left to right, joined by a function of two.

    >>> md.tree.reduce(lambda a, b: a + b, {"a": 1, "b": (2, 3)})
    6
    """
    return functools.reduce(function, md.tree.leaves(tree), *(() if initializer is NONE else (initializer,)))


def transpose(outer_treedef: Any, inner_treedef: Any, pytree_to_transpose: Any) -> Any:
    """A pytree of pytrees turned inside out: from `outer` of `inner` to `inner` of `outer`. inner_treedef None: that of the first one inside. Raises
    ValueError for another structure.

    >>> pair = md.tree.structure((0, 0))
    >>> md.tree.transpose(md.tree.structure([0, 0, 0]), pair, [(1, 2), (3, 4), (5, 6)])
    ([1, 3, 5], [2, 4, 6])
    """
    if inner_treedef is None:
        at, inner_treedef = outer_treedef, structure(pytree_to_transpose)
        while at.kind is not None and len(at.children) == len(inner_treedef.children) and at.size:
            at, inner_treedef = next((a, b) for a, b in zip(at.children, inner_treedef.children, strict=True) if a.size)
    n, m = outer_treedef.size, inner_treedef.size
    leaves, found = md.tree.flatten(pytree_to_transpose)
    wanted = structure(md.tree.unflatten(outer_treedef, [md.tree.unflatten(inner_treedef, range(m)) for _ in range(n)]))
    if found != wanted:
        raise ValueError(f"tree.transpose: the pytree has the structure {found}, not {wanted}")
    return md.tree.unflatten(inner_treedef, [md.tree.unflatten(outer_treedef, leaves[i::m]) for i in range(m)])


# ---- md.linalg --------------------------------------------------------------------------------------------------------------------------
def solve_triangular(
    a: Any, b: Any, trans: int | str = 0, lower: bool = False, unit_diagonal: bool = False, *,
    upper: bool | None = None, left: bool = True, unitriangular: bool = False,
) -> md.Tensor:  # fmt: skip
    """The y with a y = b, as jax.scipy.linalg has it (trans: 0 or "N", 1 or "T", 2 or "C"), or with the keywords of torch.linalg's (left=False:
    y a = b): md.linalg.triangular_solve. Both read the upper triangle unless told otherwise. Raises ValueError for another trans.

    >>> md.linalg.solve_triangular(md.tensor([[2.0, 0.0], [1.0, 1.0]]), md.tensor([2.0, 3.0]), lower=True).tolist()
    [1.0, 2.0]
    """
    a, b = md.asarray(a), md.asarray(b)
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise ValueError(f"solve_triangular: trans is 0, 1, 2, 'N', 'T' or 'C', not {trans!r}")
    lower, unit = lower if upper is None else not upper, unit_diagonal or unitriangular
    if not left:
        flipped = solve_triangular(md.matrix_transpose(a), md.matrix_transpose(b), trans, not lower, unit)
        return md.matrix_transpose(flipped)
    a = md.conj(a) if trans in (2, "C") else a
    vector = b.ndim == 1
    out = md.linalg.triangular_solve(a, b[:, None] if vector else b, lower=lower, transpose=trans not in (0, "N"), unit=unit)
    return md.reshape(out, out.shape[:-1]) if vector else out


def cho_factor(a: Any, lower: bool = False) -> tuple[md.Tensor, bool]:
    """The Cholesky factor and which triangle it is, for cho_solve; the other triangle is zeros.

    >>> md.linalg.cho_factor(md.tensor([[4.0]]))[0].tolist()
    [[2.0]]
    """
    return md.linalg.cholesky(a, upper=not lower), lower


def cho_solve(c_and_lower: tuple[Any, bool], b: Any) -> md.Tensor:
    """The y with a y = b, from cho_factor(a).

    >>> md.linalg.cho_solve(md.linalg.cho_factor(md.tensor([[4.0]])), md.tensor([8.0])).tolist()
    [2.0]
    """
    c, lower = c_and_lower
    first = solve_triangular(c, b, 0 if lower else 2, lower)
    return solve_triangular(c, first, 2 if lower else 0, lower)


#: Room -> name -> what it is there.
NAMES: dict[str, dict[str, Any]] = {
    "md": {
        **of_lax.NAMES, "array": array, "jacobian": md.jacrev, "percentile": percentile, "top_k": top_k, "segment_sum": segment_sum,
        "associative_scan": associative_scan, "block_until_ready": block_until_ready,
    },
    "At": {"subtract": subtract, "divide": divide, "power": power, "apply": apply},
    "tree": {"structure": structure, "reduce": reduce, "transpose": transpose, "all": all_},
    "linalg": {**of_linalg.NAMES, "solve_triangular": solve_triangular, "cho_factor": cho_factor, "cho_solve": cho_solve},
}  # fmt: skip
#: Room -> name -> what there is for it, in the message of an AttributeError.
ABSENT: dict[str, dict[str, str]] = {
    "md": {
        "numpy": "from minidl.idioms.jax import numpy as jnp; array functions are in md itself, such as md.sin",
        "lax": "from minidl.idioms.jax import lax; its functions are minidl's: md.scan, md.cond, md.while_loop, md.top_k, md.associative_scan",
        "scipy": "from minidl.idioms.jax import scipy; see md.linalg and md.nn.functional",
        "tree_util": "md.tree, or from minidl.idioms.jax import tree_util",
        "tree_map": "md.tree.map",
        "pmap": "md.vmap, or minidl.idioms.jax.vmap with axis_name=; one program runs on one device",
        "device_put": "x.to(device=...)",
        "device_get": "x.numpy()",
        "eval_shape": "md.trace(f)(x).outputs have shapes and dtypes",
        "make_jaxpr": "print(md.trace(f)(x))",
        "ensure_compile_time_eval": "md.eagerly()",
        "checkpoint_policies": "md.jit(f, memory=0.5) chooses what is kept",
        "flatten_util": "md.ravel_pytree",
        "select_n": "md.where(condition, b, a)",
    },
    "tree": {
        "map_with_path": "md.tree.map; the names of a Module's tensors are in named_parameters()",
        "leaves_with_path": "md.tree.leaves; the names of a Module's tensors are in named_parameters()",
    },
    "linalg": {"ldl_factor": "md.linalg.cholesky, or md.linalg.lu_factor"},
}
