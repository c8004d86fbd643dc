"""md.einsum: sums of products by Einstein's notation, as products, sums and diagonals of pairs of arrays."""

from __future__ import annotations

import functools
import string
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.extend import check_all, describe, ns, operand

__all__ = ["einsum"]


def _spelled(arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The text and the arrays of x, [0, 1], y, [1, 2], [0, 2], as NumPy and PyTorch take them, too."""
    letters = string.ascii_uppercase + string.ascii_lowercase  # whose order is that of the numbers: a result that is not said has its axes in order
    n = len(arguments) // 2 * 2
    if n == 0 or not all(isinstance(axes, (list, tuple)) for axes in (*arguments[1::2], *arguments[n:])):
        raise TypeError(f"einsum: subscripts must be a string, or a list of numbers of axes behind each array, not {describe(arguments[0])}")
    if wrong := [a for axes in (*arguments[1:n:2], *arguments[n:]) for a in axes if a is not ... and not 0 <= a < 52]:
        raise ValueError(f"einsum: the number of an axis is from 0 to 51, not {wrong[0]}")
    word = lambda axes: "".join("..." if a is ... else letters[a] for a in axes)
    return ",".join(map(word, arguments[1:n:2])) + "".join("->" + word(axes) for axes in arguments[n:]), arguments[:n:2]


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = True, precision: Any = None) -> Tensor:
    """Sums of products by Einstein's notation: "ij,jk->ik"; repeated labels take diagonals, "..." stands for broadcasting axes.

    More than two arrays are contracted pairwise in the order that opt_einsum finds best; optimize and precision are accepted
    and change nothing, and the arrays may be one list. x, [0, 1], y, [1, 2], [0, 2] says axes by numbers. Source of the order:
    D. Smith and J. Gray, opt_einsum (JOSS 2018).
    Raises ValueError for labels that do not fit and for numbers outside 0 to 51.

    >>> md.einsum("ij,jk->ki", md.ones((2, 3)), md.ones((3, 4))).shape
    (4, 2)
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _spelled((subscripts, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):  # as PyTorch takes them
        operands = tuple(operands[0])
    xs = [operand(x) for x in operands]
    terms, out = _parse(subscripts, tuple(x.shape for x in xs))
    pool: list[tuple[Tensor, str]] = list(zip(xs, terms, strict=True))
    for step in _path(terms, out, tuple(x.shape for x in xs)) if len(xs) > 2 else ():
        picked = [pool.pop(i) for i in sorted(step, reverse=True)][::-1]
        needed = set(out).union(*(labels for _, labels in pool)) if pool else set(out)
        while len(picked) > 1:
            a, b = picked.pop(0), picked.pop(0)
            keep = needed.union(*(labels for _, labels in picked)) if picked else needed
            picked.insert(0, _pair(a, b, keep))
        pool.append(picked[0])
    last = _pair(pool[0], pool[1], set(out)) if len(pool) == 2 else _single(*pool[0], set(out))
    x, labels = last
    sizes = dict(zip(labels, x.shape, strict=True))
    x = _permuted(x, tuple(labels.index(c) for c in out if c in sizes))
    return _reshaped(x, tuple(sizes.get(c, 1) for c in out))


@functools.lru_cache(maxsize=512)
def _parse(subscripts: str, sizes: tuple[tuple[int, ...], ...]) -> tuple[tuple[str, ...], str]:
    """One label per axis for each array and for the result."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(sizes):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} arrays, {len(sizes)} came")
    spare = [c for c in map(chr, range(0x3B1, 0x3B1 + 200)) if c not in text]
    widest = max((len(s) - len(t.replace("...", "")) for t, s in zip(terms, sizes, strict=True) if "..." in t), default=0)
    if widest < 0:
        raise ValueError(f"einsum: {subscripts!r} has more labels than an array has axes")
    hidden, full = "".join(spare[:widest]), []
    known: dict[str, int] = {}
    for t, shape in zip(terms, sizes, strict=True):
        if "..." in t:
            n = len(shape) - len(t.replace("...", ""))
            if n < 0:
                raise ValueError(f"einsum: {t!r} has more labels than {shape} has axes")
            t = t.replace("...", hidden[widest - n :], 1)
        if len(t) != len(shape) or (t and not t.isalpha()):
            raise ValueError(f"einsum: {t!r} does not label an array of shape {shape}")
        for c, n in zip(t, shape, strict=True):
            if known.setdefault(c, n) != n and 1 not in (known[c], n):
                raise ValueError(f"einsum: label {c!r} has sizes {known[c]} and {n}")
            known[c] = n if known[c] == 1 else known[c]
        full.append(t)
    if not arrow:
        joined = left.replace("...", "").replace(",", "")
        right = ("..." if widest else "") + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    out = right.replace("...", hidden, 1)
    if len(set(out)) != len(out) or any(c not in known for c in out):
        raise ValueError(f"einsum: the result {right!r} of {subscripts!r} repeats a label or names one that no array has")
    return tuple(full), out


@functools.lru_cache(maxsize=512)
def _path(terms: tuple[str, ...], out: str, sizes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    import opt_einsum

    path, _ = opt_einsum.contract_path(f"{','.join(terms)}->{out}", *sizes, shapes=True, optimize="auto")
    return tuple(path)


def _single(x: Tensor, labels: str, keep: set[str]) -> tuple[Tensor, str]:
    """Diagonals for repeated labels, sums for labels that nobody needs."""
    while (repeated := next((c for c in labels if labels.count(c) > 1), None)) is not None:
        a = labels.index(repeated)
        b = labels.index(repeated, a + 1)
        if x.shape[a] != x.shape[b]:  # one of them is 1 and broadcasts
            gone = a if x.shape[a] == 1 else b
            x = ns.reshape(x, shape=(*x.shape[:gone], *x.shape[gone + 1 :]))
            labels = labels[:gone] + labels[gone + 1 :]
            continue
        x = md.diagonal(x, axis1=a, axis2=b)
        labels = "".join(c for i, c in enumerate(labels) if i not in (a, b)) + repeated
    dead = tuple(i for i, c in enumerate(labels) if c not in keep)
    if dead:
        x = ns.sum(x, axis=dead, keepdims=False)
    return x, "".join(c for c in labels if c in keep)


def _pair(a: tuple[Tensor, str], b: tuple[Tensor, str], keep: set[str]) -> tuple[Tensor, str]:
    """The product of two arrays summed over what nobody needs; labels that only one of them has, or has with size 1, leave first."""
    (x, lx), (y, ly) = _single(*a, keep | set(b[1])), _single(*b, keep | set(a[1]))
    if any(n == 1 != m for n, m in _common(x, lx, y, ly)) or any(m == 1 != n for n, m in _common(x, lx, y, ly)):
        wide_x, wide_y = dict(zip(lx, x.shape, strict=True)), dict(zip(ly, y.shape, strict=True))
        x, lx = _without(x, lx, {c for c in lx if wide_x[c] == 1 != wide_y.get(c, 1)})
        y, ly = _without(y, ly, {c for c in ly if wide_y[c] == 1 != wide_x.get(c, 1)})
        x, lx = _single(x, lx, keep | set(ly))
        y, ly = _single(y, ly, keep | set(lx))
    shared = [c for c in lx if c in ly]
    inner = [c for c in shared if c not in keep]
    outer_ = [c for c in shared if c in keep]
    if not inner:  # nothing to sum: an elementwise product
        free = "".join(c for c in lx + ly if c not in outer_)
        order = "".join(outer_) + "".join(dict.fromkeys(free))
        return ns.mul(_aligned(x, lx, order), _aligned(y, ly, order)), order
    places = [tuple(labels.index(c) for c in group) for group in (inner, outer_) for labels in (lx, ly)]
    out = ns.dot_general(x, y, contract=(places[0], places[1]), batch=(places[2], places[3]))
    return out, "".join(outer_) + "".join(c for c in lx if c not in shared) + "".join(c for c in ly if c not in shared)


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape == shape else ns.reshape(x, shape=shape)


def _permuted(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x if axes == tuple(range(len(axes))) else ns.permute(x, axes=axes)


def _common(x: Tensor, lx: str, y: Tensor, ly: str) -> list[tuple[int, int]]:
    return [(x.shape[lx.index(c)], y.shape[ly.index(c)]) for c in lx if c in ly]


def _without(x: Tensor, labels: str, gone: set[str]) -> tuple[Tensor, str]:
    kept = [i for i, c in enumerate(labels) if c not in gone]
    return _reshaped(x, tuple(x.shape[i] for i in kept)), "".join(labels[i] for i in kept)


def _aligned(x: Tensor, labels: str, order: str) -> Tensor:
    sizes = dict(zip(labels, x.shape, strict=True))
    return _reshaped(_permuted(x, tuple(labels.index(c) for c in order if c in sizes)), tuple(sizes.get(c, 1) for c in order))


check_all(globals(), __all__)
