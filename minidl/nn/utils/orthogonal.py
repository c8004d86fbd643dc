"""Matrices that stay orthogonal while they are trained, as torch.nn.utils.parametrizations.orthogonal.

Promises: at every reading the columns (the rows, where there are fewer) are orthonormal to rounding, of numbers as large as the original's; a weight
of any rank and size can be the first; gradients of every order, eagerly, jitted and mapped; the state_dict is PyTorch's. The exponential is by
scaling and squaring (N. Higham, SIAM J. Matrix Anal. Appl. 26, 2005), its derivative the exponential of a block matrix (R. Mathias, SIAM J. Matrix
Anal. Appl. 17, 1996); products of reflections have the compact form of R. Schreiber and C. Van Loan (SIAM J. Sci. Stat. Comput. 10, 1989).
Trivialization is by M. Lezcano-Casado (NeurIPS 2019).
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.module import Module
from minidl.nn.utils.parametrize import register_parametrization

__all__ = ["orthogonal"]
_MAPS = ("matrix_exp", "cayley", "householder")
#: Numerator of the Padé approximant of degree 13 over the number in front of the highest power; it holds to rounding up to norm 5.37.
_PADE = [64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600, 670442572800, 33522128640,
         1323241920, 40840800, 960960, 16380, 182, 1]  # fmt: skip


def _eye(n: int, like: md.Tensor) -> md.Tensor:
    return md.eye(n, dtype=like.dtype, backend=like.backend, device=like.device)


def _adjoint(x: md.Tensor) -> md.Tensor:
    return md.conj(x.mT) if x.dtype.is_complex else x.mT


@md.custom_vjp
@md.full_precision
def matrix_exp(a: md.Tensor) -> md.Tensor:
    """The exponential of square matrices [..., n, n], with a derivative of every order.

    >>> matrix_exp(md.zeros((2, 2))).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    size = md.max(md.sum(md.abs(a), axis=-2))
    times = md.ceil(md.log2(md.maximum(size / 5.37, 1.0)))
    times = md.where(md.isfinite(times), times, 0.0)
    x = a * md.pow(2.0, -times).to(a.dtype)
    one, b = _eye(a.shape[-1], a), [c / _PADE[0] for c in _PADE]
    x2 = md.matmul(x, x)
    x4 = md.matmul(x2, x2)
    x6 = md.matmul(x4, x2)
    odd = md.matmul(x, md.matmul(x6, x6 * b[13] + x4 * b[11] + x2 * b[9]) + x6 * b[7] + x4 * b[5] + x2 * b[3] + one * b[1])
    even = md.matmul(x6, x6 * b[12] + x4 * b[10] + x2 * b[8]) + x6 * b[6] + x4 * b[4] + x2 * b[2] + one * b[0]
    return md.fori_loop(0, times.to(md.int64), lambda i, y: md.matmul(y, y), md.linalg.solve(even - odd, even + odd))


def _forward(a: md.Tensor) -> tuple[md.Tensor, tuple[md.Tensor]]:
    return matrix_exp(a), (a,)


def _backward(residuals: tuple[md.Tensor], g: md.Tensor) -> tuple[md.Tensor]:
    b, n = _adjoint(residuals[0]), g.shape[-1]
    above = md.concat((b, g), axis=-1)
    return (matrix_exp(md.concat((above, md.concat((md.zeros_like(b), b), axis=-1)), axis=-2))[..., :n, n:],)


matrix_exp.defvjp(_forward, _backward)


def _reflections(v: md.Tensor) -> md.Tensor:
    """The first k columns of the product of the k reflections along the columns of v [..., n, k], whose upper part is not read."""
    n, k = v.shape[-2:]
    below = md.tril(v, k=-1) + _eye(n, v)[:, :k]
    inner = md.matmul(below.mT, below)
    half = inner * (md.triu(md.ones_like(inner.detach()), k=1) + 0.5 * _eye(k, v))
    return _eye(n, v)[:, :k] - md.matmul(below, md.linalg.triangular_solve(half, below[..., :k, :].mT, lower=False))


def _unit_columns(a: md.Tensor) -> md.Tensor:
    """Q of a = Q R with a diagonal of R that is positive, or 0 where columns depend on others."""
    q, r = md.linalg.qr(a)
    diagonal = md.linalg.diagonal(r)
    size = md.abs(diagonal)
    return q * md.where(size == 0, 1.0, diagonal / md.where(size == 0, 1.0, size))[..., None, :]


class _Orthogonal(Module):
    def __init__(self, shape: tuple[int, ...], orthogonal_map: str, use_trivialization: bool):
        super().__init__()
        self.shape, self.orthogonal_map = tuple(shape), orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: md.Tensor) -> md.Tensor:
        with md.autocast(enabled=False):  # in a low dtype nothing would be orthogonal
            return self._turned(x)

    def _turned(self, x: md.Tensor) -> md.Tensor:
        wide = x.shape[-2] < x.shape[-1]
        x = x.mT if wide else x
        n, k = x.shape[-2:]
        if self.orthogonal_map == "householder":
            signs = md.sign(md.linalg.diagonal(x.detach()))
            q = _reflections(x) * signs[..., None, :]
        else:
            low = md.tril(x)
            if n != k:
                low = md.pad(low, ((0, 0),) * (x.ndim - 1) + ((0, n - k),))
            skew = low - _adjoint(low)
            if self.orthogonal_map == "matrix_exp":
                q = matrix_exp(skew)
            else:
                q = md.linalg.solve(_eye(n, x) - 0.5 * skew, _eye(n, x) + 0.5 * skew)
            q = q[..., :k]
        base = self._buffers.get("base")
        if base is not None:
            q = md.matmul(base, q)
        return q.mT if wide else q

    def right_inverse(self, value: md.Tensor) -> md.Tensor:
        """An original that gives this value, or, where it is not orthogonal, Q of its QR decomposition."""
        base = self._buffers.get("base")
        if value.shape != self.shape or (base is not None and value.dtype is not base.dtype):
            wanted = f"{self.shape}" + ("" if base is None else f" ({base.dtype.name})")
            raise ValueError(f"orthogonal: matrices of shape {wanted} are wanted, got {value.shape} ({value.dtype.name})")
        value = value.detach()
        wide = value.shape[-2] < value.shape[-1]
        q = value.mT if wide else value
        n, k = q.shape[-2:]
        if "base" not in self._buffers:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(f"orthogonal: without use_trivialization {self.orthogonal_map} cannot say which original gives a value")
            found = _reflected(q)
            return found.mT if wide else found
        if n != k:
            key = md.random.default_generator.next_key(like=value)
            q = _unit_columns(md.concat((q, md.random.normal(key, (*q.shape[:-2], n, n - k), md.float32).to(q.dtype)), axis=-1))
        elif not bool(md.all(md.abs(md.matmul(_adjoint(q), q) - _eye(n, q)) < 10 * n * md.finfo(q.dtype).eps)):
            q = _unit_columns(q)
        if base is None:
            self._buffers["base"] = q
        else:
            base.assign(q)
        return md.zeros_like(value) - _eye(max(n, k), value)[: value.shape[-2], : value.shape[-1]]


def _reflected(a: md.Tensor) -> md.Tensor:
    """What _reflections makes Q of: below the diagonal the directions of a QR decomposition, on it their signs."""
    n, k = a.shape[-2:]
    size = md.max(md.abs(a))
    a = a / md.where(size == 0, 1.0, size)  # Q stays, and no square overflows or is 0
    rows, directions, signs = md.arange(n, backend=a.backend, device=a.device), [], []
    for j in range(k):
        column = a[..., :, j]
        tail = md.where(rows > j, column, 0.0)
        head, rest = column[..., j], md.sum(tail * tail, axis=-1)
        flat = rest == 0
        size = md.sqrt(head * head + rest)
        beta = md.where(head >= 0, -size, size)
        v = md.where(flat[..., None], 0.0, tail / md.where(flat, 1.0, head - beta)[..., None]) + md.where(rows == j, 1.0, 0.0).to(a.dtype)
        scale = md.where(flat, 0.0, (beta - head) / md.where(flat, 1.0, beta))
        a = a - v[..., :, None] * (scale[..., None] * md.sum(v[..., :, None] * a, axis=-2))[..., None, :]
        directions.append(v)
        r = md.where(flat, -head, beta)  # without a direction the reflection of forward turns the sign
        signs.append(md.where(r < 0, -1.0, 1.0).to(a.dtype))
    below = md.tril(md.stack(directions, axis=-1), k=-1)
    return below + _eye(n, a)[:, :k] * md.stack(signs, axis=-1)[..., None, :]


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True) -> Module:
    """A weight that is orthogonal (unitary for complex ones) at every reading, as torch.nn.utils.parametrizations.orthogonal. Returns the module.

    A weight [n, k] has orthonormal columns, or rows where n < k; more axes in front are a batch. orthogonal_map: "matrix_exp" (the default for square
    and complex weights), "cayley" or "householder" (the default otherwise, for real ones). use_trivialization: the map turns the weight of now, made
    orthogonal, so that assigning to the name works; without it "matrix_exp" and "cayley" refuse that, and begin with what they make of the weight.
    Raises ValueError for a name that is no parameter or buffer, fewer than two axes, another map, and reflections of complex weights.

    >>> layer = md.nn.utils.parametrizations.orthogonal(md.nn.Linear(20, 40))
    >>> bool(md.all(md.abs(layer.weight.T @ layer.weight - md.eye(20)) < 1e-5))
    True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, md.Tensor):
        raise ValueError(f"orthogonal: {type(module).__name__} has no parameter or buffer {name!r}")
    if weight.ndim < 2:
        raise ValueError(f"orthogonal: a matrix or a batch of matrices is wanted, got shape {weight.shape}")
    chosen: Any = orthogonal_map
    if chosen is None:
        chosen = "matrix_exp" if weight.shape[-2] == weight.shape[-1] or weight.dtype.is_complex else "householder"
    if chosen not in _MAPS:
        raise ValueError(f"orthogonal: orthogonal_map is one of {', '.join(map(repr, _MAPS))}, not {chosen!r}")
    if chosen == "householder" and weight.dtype.is_complex:
        raise ValueError('orthogonal: "householder" is for real weights; "matrix_exp" and "cayley" take complex ones')
    return register_parametrization(module, name, _Orthogonal(weight.shape, chosen, use_trivialization), unsafe=True)
