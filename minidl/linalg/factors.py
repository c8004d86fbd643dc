"""Factorisations of matrices: the last two axes are the matrix, all axes before them are a batch.

Factors that belong together come as one array, one under the other, because an operation has one differentiable result: [q; r], [v; w] with the
eigenvalues w as a last row, [u; v; s] with the singular values. Eigenvectors and singular vectors have any sign or phase here;
`md.linalg` chooses one. Where the true derivative does not exist (equal eigenvalues or singular values, but for what does not mix them) the rules
give nan. Rules are written for the gradient of a real function and its conjugate is taken at both ends; Hermitian matrices are read from their lower
triangle, and so only that has a gradient.

Sources: I. Murray, Differentiation of the Cholesky decomposition (arXiv 1602.07527); S. Walter and L. Lehmann, Algorithmic differentiation of
linear algebra functions (arXiv 1001.1654), for QR; M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic
differentiation (2008), for eigenvalues and singular values; G. Golub and V. Pereyra, The differentiation of pseudo-inverses (1973).
"""

from __future__ import annotations

from typing import Any

from minidl import int64
from minidl.extend import Primitive, batch_leading, define, describe
from minidl.linalg.systems import conjugate, infer_square, mm, turned


def _adjoint(xp: Any, x: Any) -> Any:
    return conjugate(xp, turned(xp, x))


def _part(xp: Any, x: Any, rows: tuple[int, int], columns: tuple[int, int] | None = None) -> Any:
    """A block of each matrix."""
    lead = tuple(x.shape[:-2])
    (r0, r1), (c0, c1) = rows, columns or (0, x.shape[-1])
    return xp.slice(x, start=(*[0] * len(lead), r0, c0), stop=(*lead, r1, c1), step=(1,) * len(x.shape))


def _under(xp: Any, *xs: Any) -> Any:
    return xp.concat(*xs, axis=len(xs[0].shape) - 2)


def _on_diagonal(xp: Any, n: int) -> Any:
    place = xp.iota(size=n, dtype=int64)
    return xp.eq(xp.reshape(place, shape=(n, 1)), place)


def _real(xp: Any, x: Any) -> Any:
    """The real part, in x's own dtype."""
    dtype = xp.dtype_of(x)
    return xp.cast(xp.real(x), dtype=dtype) if dtype.is_complex else x


def _diagonal(xp: Any, x: Any) -> Any:
    """The diagonal of square matrices, as a row."""
    return xp.sum(xp.where(_on_diagonal(xp, x.shape[-1]), x, 0), axis=(len(x.shape) - 2,), keepdims=True)


def _hermitian(xp: Any, t: Any) -> Any:
    low = xp.tril(t, k=-1) + xp.where(_on_diagonal(xp, t.shape[-1]), t * 0.5, 0)
    return low + _adjoint(xp, low)


def _hermitian_vjp(xp: Any, b: Any) -> Any:
    b = b + _adjoint(xp, b)
    return xp.tril(b, k=-1) + xp.where(_on_diagonal(xp, b.shape[-1]), b * 0.5, 0)


def _ratio(xp: Any, x: Any, d: Any) -> Any:
    """x / d; where d is 0, 0 for x = 0 and nan for any other."""
    zero = xp.eq(d, 0)
    return xp.where(zero, xp.where(xp.eq(x, 0), x, float("nan")), x / xp.where(zero, 1, d))


def _infer_matrix(name: str) -> Any:
    def infer(x: Any) -> Any:
        if len(x.shape) < 2:
            raise ValueError(f"{name}: {describe(x)} is no matrix (or batch of them)")
        if not x.dtype.inexact:
            raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a float or complex dtype")
        return x.shape, x.dtype

    return infer


# ---- Cholesky -------------------------------------------------------------------------------------------------------------------------
def _lower_half(xp: Any, x: Any) -> Any:
    return xp.tril(x, k=-1) + xp.where(_on_diagonal(xp, x.shape[-1]), x * 0.5, 0)


def _cholesky_vjp(xp: Any, g: Any, out: Any) -> Any:
    p = _lower_half(xp, mm(xp, turned(xp, out), g))
    p = xp.triangular_solve(out, p, lower=True, transpose=True, unit=False)
    s = xp.triangular_solve(out, _adjoint(xp, p), lower=True, transpose=True, unit=False)
    return _hermitian_vjp(xp, s)  # the upper triangle is not read


def _cholesky_jvp(xp: Any, t: Any, out: Any) -> Any:
    m = xp.triangular_solve(out, _hermitian(xp, t), lower=True, transpose=False, unit=False)
    m = xp.triangular_solve(out, _adjoint(xp, m), lower=True, transpose=False, unit=False)
    return mm(xp, out, _lower_half(xp, m))


cholesky = Primitive(
    "cholesky", "x", infer=infer_square("cholesky", False), promote="float", batch=batch_leading, check_first=True,
    vjps=(_cholesky_vjp,), jvps=(_cholesky_jvp,),
)  # fmt: skip


# ---- QR -------------------------------------------------------------------------------------------------------------------------------
def _infer_qr(x: Any, *, complete: bool) -> Any:
    _infer_matrix("qr")(x)
    *lead, m, n = x.shape
    if m < n:
        raise ValueError(f"qr: {describe(x)} has fewer rows than columns; factor its first {m} columns and multiply the others by q's adjoint")
    return (*lead, m + n, m if complete else n), x.dtype


def _qr_parts(xp: Any, x: Any, m: int, n: int) -> tuple[Any, Any, Any]:
    """q (its first n columns), what completes it, and r."""
    width = x.shape[-1]
    return _part(xp, x, (0, m), (0, n)), _part(xp, x, (0, m), (n, width)) if width > n else None, _part(xp, x, (m, m + n), (0, n))


def _real_diagonal(xp: Any, x: Any) -> Any:
    return xp.where(_on_diagonal(xp, x.shape[-1]), _real(xp, x), 0)


def _completion(xp: Any, q: Any) -> tuple[Any, Any, Any]:
    """(E1 - q, the top of it, X) for orthonormal columns q [m, n] that n reflectors made: their last columns are E2 + (E1 - q) X.

    E1 and E2 are columns of the unit matrix. Reflectors multiply to I - V T Vᴴ, so E1 - q = V T V1ᴴ, V1 being the top of V; then V1ᴴ⁻¹ V2ᴴ, which is
    what E2 - V T V2ᴴ takes of it, is the adjoint of -q2 (E1 - q)1⁻¹.
    """
    m, n = q.shape[-2:]
    rows, columns = xp.reshape(xp.iota(size=m, dtype=int64), shape=(m, 1)), xp.iota(size=n, dtype=int64)
    left = xp.where(xp.eq(rows, columns), 1 - q, -q)
    top = _part(xp, left, (0, n))
    return left, top, xp.solve(_adjoint(xp, top), _adjoint(xp, _part(xp, q, (n, m))))


def _qr_vjp(xp: Any, g: Any, out: Any, x_shape: Any, complete: bool) -> Any:
    m, n = x_shape[-2:]
    q, _, r = _qr_parts(xp, out, m, n)
    gq, more, gr = _qr_parts(xp, conjugate(xp, g), m, n)
    if more is not None:
        left, top, x = _completion(xp, q)
        y = xp.solve(top, mm(xp, _adjoint(xp, left), more))
        gq = gq - mm(xp, more, _adjoint(xp, x)) + _under(xp, mm(xp, x, _adjoint(xp, y)), _adjoint(xp, y))
    c = mm(xp, xp.triu(gr, k=0), _adjoint(xp, r)) - mm(xp, _adjoint(xp, q), gq)
    above = xp.triu(c, k=1)
    z = gq + mm(xp, q, above + _adjoint(xp, above) + _real_diagonal(xp, c))
    solved = xp.triangular_solve(r, _adjoint(xp, z), lower=False, transpose=False, unit=False)
    return turned(xp, solved)


def _qr_jvp(xp: Any, t: Any, out: Any, x_shape: Any, complete: bool) -> Any:
    m, n = x_shape[-2:]
    q, rest, r = _qr_parts(xp, out, m, n)
    z = turned(xp, xp.triangular_solve(r, turned(xp, t), lower=False, transpose=True, unit=False))
    c = mm(xp, _adjoint(xp, q), z)
    turn = xp.triu(c, k=1) + _adjoint(xp, xp.tril(c, k=-1)) + _real_diagonal(xp, c)
    dq, dr = z - mm(xp, q, turn), mm(xp, turn, r)
    if rest is None:
        return _under(xp, dq, dr)
    left, top, x = _completion(xp, q)
    dx = xp.solve(_adjoint(xp, top), _adjoint(xp, _part(xp, dq, (n, m))) + mm(xp, _adjoint(xp, _part(xp, dq, (0, n))), x))
    moved = mm(xp, left, dx) - mm(xp, dq, x)
    return xp.concat(_under(xp, dq, dr), _under(xp, moved, _part(xp, moved, (0, n)) * 0.0), axis=len(out.shape) - 1)


qr = Primitive(
    "qr", "x", "complete", infer=_infer_qr, promote="float", batch=batch_leading, check_first=True, vjps=(_qr_vjp,), jvps=(_qr_jvp,),
)  # fmt: skip


# ---- eigenvalues ----------------------------------------------------------------------------------------------------------------------
def _infer_eigh(x: Any) -> Any:
    (*lead, n, _), dtype = infer_square("eigh", False)(x)
    return (*lead, n + 1, n), dtype


def _eigh_parts(xp: Any, out: Any) -> tuple[Any, Any]:
    n = out.shape[-1]
    return _part(xp, out, (0, n)), _part(xp, out, (n, n + 1))


def _eigh_vjp(xp: Any, g: Any, out: Any) -> Any:
    (v, w), (gv, gw) = _eigh_parts(xp, out), _eigh_parts(xp, g)
    on, c = _on_diagonal(xp, v.shape[-1]), mm(xp, turned(xp, v), gv)
    mixed = _ratio(xp, xp.where(on, 0, c), w - turned(xp, w))
    b = mm(xp, conjugate(xp, v), mm(xp, xp.where(on, _real(xp, gw), mixed), turned(xp, v)))
    return _hermitian_vjp(xp, b)


def _eigh_jvp(xp: Any, t: Any, out: Any) -> Any:
    v, w = _eigh_parts(xp, out)
    c = mm(xp, _adjoint(xp, v), mm(xp, _hermitian(xp, t), v))
    mixed = _ratio(xp, xp.where(_on_diagonal(xp, v.shape[-1]), 0, c), w - turned(xp, w))
    return _under(xp, mm(xp, v, mixed), _real(xp, _diagonal(xp, c)))


eigh = Primitive("eigh", "x", infer=_infer_eigh, promote="float", batch=batch_leading, check_first=True, vjps=(_eigh_vjp,), jvps=(_eigh_jvp,))


def _row(xp: Any, g: Any, like: Any) -> Any:
    """Real numbers [..., n] as a row in the dtype of matrices."""
    g = xp.reshape(g, shape=(*g.shape[:-1], 1, g.shape[-1]))
    return xp.cast(g, dtype=xp.dtype_of(like)) if xp.dtype_of(like).is_complex else g


def _flat_row(xp: Any, x: Any) -> Any:
    x = xp.real(x) if xp.dtype_of(x).is_complex else x
    return xp.reshape(x, shape=(*x.shape[:-2], x.shape[-1]))


def _eigvalsh_vjp(xp: Any, g: Any, x: Any) -> Any:
    v, _ = _eigh_parts(xp, xp.eigh(x))
    return _hermitian_vjp(xp, mm(xp, conjugate(xp, v) * _row(xp, g, v), turned(xp, v)))


def _eigvalsh_jvp(xp: Any, t: Any, x: Any) -> Any:
    v, _ = _eigh_parts(xp, xp.eigh(x))
    return _flat_row(xp, xp.sum(conjugate(xp, v) * mm(xp, _hermitian(xp, t), v), axis=(len(v.shape) - 2,), keepdims=True))


eigvalsh = Primitive(
    "eigvalsh", "x", infer=lambda x: (infer_square("eigvalsh", False)(x)[0][:-1], x.dtype.real), promote="float", batch=batch_leading,
    check_first=True, vjps=(_eigvalsh_vjp,), jvps=(_eigvalsh_jvp,), decompose=lambda xp, x: _flat_row(xp, _eigh_parts(xp, xp.eigh(x))[1]),
)  # fmt: skip


# ---- eigenvalues of any square matrix ---------------------------------------------------------------------------------------------------
def _infer_eig(x: Any) -> Any:
    (*lead, n, _), dtype = infer_square("eig", False)(x)
    return (*lead, n + 1, n), dtype.complex


def _eig_vjp(xp: Any, g: Any, out: Any, x_dtype: Any) -> Any:
    (v, w), (gv, gw) = _eigh_parts(xp, out), _eigh_parts(xp, g)
    on, tv = _on_diagonal(xp, v.shape[-1]), turned(xp, v)
    mixed = _ratio(xp, xp.where(on, 0, mm(xp, tv, gv)), w - turned(xp, w))
    return _like(xp, xp.solve(tv, mm(xp, xp.where(on, gw, mixed), tv)), x_dtype)


def _like(xp: Any, x: Any, dtype: Any) -> Any:
    """Complex numbers as the cotangent of an array of this dtype."""
    x = x if dtype.is_complex else xp.real(x)
    return x if xp.dtype_of(x) is dtype else xp.cast(x, dtype=dtype)


def _eig_jvp(xp: Any, t: Any, out: Any) -> Any:
    v, w = _eigh_parts(xp, out)
    c = xp.solve(v, mm(xp, xp.cast(t, dtype=xp.dtype_of(v)), v))
    mixed = _ratio(xp, xp.where(_on_diagonal(xp, v.shape[-1]), 0, c), w - turned(xp, w))
    return _under(xp, mm(xp, v, mixed), _diagonal(xp, c))


eig = Primitive("eig", "x", infer=_infer_eig, promote="float", batch=batch_leading, check_first=True, vjps=(_eig_vjp,), jvps=(_eig_jvp,))


def _vector(xp: Any, row: Any) -> Any:
    return xp.reshape(row, shape=(*row.shape[:-2], row.shape[-1]))


def _eigvals_vjp(xp: Any, g: Any, x: Any, x_dtype: Any) -> Any:
    v, _ = _eigh_parts(xp, xp.eig(x))
    tv = turned(xp, v)
    return _like(xp, xp.solve(tv, xp.reshape(g, shape=(*g.shape, 1)) * tv), x_dtype)


def _eigvals_jvp(xp: Any, t: Any, x: Any) -> Any:
    v, _ = _eigh_parts(xp, xp.eig(x))
    return _vector(xp, _diagonal(xp, xp.solve(v, mm(xp, xp.cast(t, dtype=xp.dtype_of(v)), v))))


eigvals = Primitive(
    "eigvals", "x", infer=lambda x: (infer_square("eigvals", False)(x)[0][:-1], x.dtype.complex), promote="float", batch=batch_leading,
    check_first=True, vjps=(_eigvals_vjp,), jvps=(_eigvals_jvp,), decompose=lambda xp, x: _vector(xp, _eigh_parts(xp, xp.eig(x))[1]),
)  # fmt: skip


# ---- singular values ------------------------------------------------------------------------------------------------------------------
def _infer_svd(x: Any) -> Any:
    (*lead, m, n), dtype = _infer_matrix("svd")(x)
    return (*lead, m + n + 1, min(m, n)), dtype


def _svd_parts(xp: Any, x: Any, m: int, n: int) -> tuple[Any, Any, Any]:
    """u, v (not its adjoint), s as a row."""
    return _part(xp, x, (0, m)), _part(xp, x, (m, m + n)), _part(xp, x, (m + n, m + n + 1))


def _svd_turns(xp: Any, s: Any, x: Any, diagonal: Any) -> Any:
    """x over the differences of squared singular values, and a diagonal, which is 0 for real numbers, over four times the singular values."""
    column = turned(xp, s)
    on = _on_diagonal(xp, s.shape[-1])
    return xp.where(on, _ratio(xp, diagonal, s * 4.0), _ratio(xp, xp.where(on, 0, x), (s - column) * (s + column)))


def _svd_vjp(xp: Any, g: Any, out: Any, x_shape: Any) -> Any:
    m, n = x_shape[-2:]
    (u, v, s), (gu, gv, gs) = _svd_parts(xp, out, m, n), _svd_parts(xp, g, m, n)
    k, tv = s.shape[-1], turned(xp, v)
    x, y = mm(xp, turned(xp, u), gu), mm(xp, tv, gv)
    sx, sy = x - _adjoint(xp, x), y - _adjoint(xp, y)
    p = _svd_turns(xp, s, sx * s + turned(xp, s) * sy, sx - sy)
    p = p + xp.where(_on_diagonal(xp, k), _real(xp, gs) * xp.sign(s), 0)
    p = mm(xp, p, tv)
    if n > k:
        p = p + _adjoint(xp, _ratio(xp, gv - mm(xp, conjugate(xp, v), y), s))
    p = mm(xp, conjugate(xp, u), p)
    return p + mm(xp, _ratio(xp, gu - mm(xp, conjugate(xp, u), x), s), tv) if m > k else p


def _svd_jvp(xp: Any, t: Any, out: Any, x_shape: Any) -> Any:
    m, n = x_shape[-2:]
    u, v, s = _svd_parts(xp, out, m, n)
    k, tv, column = s.shape[-1], mm(xp, t, v), turned(xp, s)
    p = mm(xp, _adjoint(xp, u), tv)
    q, skew = _adjoint(xp, p), p - _adjoint(xp, p)
    du = mm(xp, u, _svd_turns(xp, s, p * s + column * q, skew))
    dv = mm(xp, v, _svd_turns(xp, s, column * p + q * s, -skew))
    if m > k:
        du = du + _ratio(xp, tv - mm(xp, u, p), s)
    if n > k:
        dv = dv + _ratio(xp, mm(xp, _adjoint(xp, t), u) - mm(xp, v, q), s)
    return _under(xp, du, dv, _real(xp, _diagonal(xp, p)) * xp.sign(s))


svd = Primitive("svd", "x", infer=_infer_svd, promote="float", batch=batch_leading, check_first=True, vjps=(_svd_vjp,), jvps=(_svd_jvp,))


def _infer_svdvals(x: Any) -> Any:
    (*lead, m, n), dtype = _infer_matrix("svdvals")(x)
    return (*lead, min(m, n)), dtype.real


def _svdvals_vjp(xp: Any, g: Any, x: Any) -> Any:
    """At a singular value 0, which is a kink, 0."""
    u, v, s = _svd_parts(xp, xp.svd(x), *x.shape[-2:])
    return mm(xp, conjugate(xp, u) * (_row(xp, g, s) * xp.sign(s)), turned(xp, v))


def _svdvals_jvp(xp: Any, t: Any, x: Any) -> Any:
    u, v, s = _svd_parts(xp, xp.svd(x), *x.shape[-2:])
    return _flat_row(xp, xp.sum(conjugate(xp, u) * mm(xp, t, v), axis=(len(u.shape) - 2,), keepdims=True) * xp.sign(s))


svdvals = Primitive(
    "svdvals", "x", infer=_infer_svdvals, promote="float", batch=batch_leading, check_first=True, vjps=(_svdvals_vjp,), jvps=(_svdvals_jvp,),
    decompose=lambda xp, x: _flat_row(xp, _svd_parts(xp, xp.svd(x), *x.shape[-2:])[2]),
)  # fmt: skip


# ---- the pseudo-inverse ---------------------------------------------------------------------------------------------------------------
def _infer_pinv(x: Any, rtol: Any) -> Any:
    (*lead, m, n), dtype = _infer_matrix("pinv")(x)
    if tuple(rtol.shape) != tuple(lead) or rtol.dtype is not dtype.real:
        raise ValueError(f"pinv: {describe(x)} with rtol {describe(rtol)}; one {dtype.real.short} for each matrix is wanted")
    return (*lead, n, m), dtype


def _pinv(xp: Any, x: Any, rtol: Any) -> Any:
    u, v, s = _svd_parts(xp, xp.svd(x), *x.shape[-2:])
    size = xp.real(s) if xp.dtype_of(s).is_complex else s
    least = xp.reshape(rtol, shape=(*rtol.shape, 1, 1)) * xp.max(size, axis=(len(s.shape) - 1,), keepdims=True)
    dead = xp.le(size, least)
    return mm(xp, xp.where(dead, 0, v / xp.where(dead, 1, s)), _adjoint(xp, u))


def _pinv_vjp(xp: Any, g: Any, x: Any, out: Any) -> Any:
    """For a rank that does not change."""
    p, ph, gh = out, _adjoint(xp, out), turned(xp, g)  # g is the conjugate of the gradient
    first = mm(xp, mm(xp, ph, _adjoint(xp, gh)), ph)
    second = mm(xp, mm(xp, gh, p), ph)
    third = mm(xp, ph, mm(xp, p, gh))
    total = second - mm(xp, x, mm(xp, p, second)) + third - mm(xp, mm(xp, third, p), x) - first
    return conjugate(xp, total)


def _pinv_jvp(xp: Any, t: Any, x: Any, out: Any) -> Any:
    p, ph, th = out, _adjoint(xp, out), _adjoint(xp, t)
    second, third = mm(xp, p, mm(xp, ph, th)), mm(xp, th, mm(xp, ph, p))
    return second - mm(xp, mm(xp, second, x), p) + third - mm(xp, p, mm(xp, x, third)) - mm(xp, p, mm(xp, t, p))


pinv = Primitive(
    "pinv", "x rtol", infer=_infer_pinv, promote="none", batch=batch_leading, check_first=True, vjps=(_pinv_vjp, None), jvps=(_pinv_jvp, None),
    decompose=_pinv,
)  # fmt: skip
for _primitive in (cholesky, qr, eigh, eigvalsh, eig, eigvals, svd, svdvals, pinv):
    define(_primitive, kernels=__package__)
