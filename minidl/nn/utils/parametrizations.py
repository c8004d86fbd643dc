"""Weight and spectral normalisation and orthogonal weights, with the names of torch.nn.utils.parametrizations and its state_dict keys."""

from __future__ import annotations

import minidl as md
from minidl.nn.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from minidl.nn.module import Module
from minidl.nn.utils.orthogonal import orthogonal
from minidl.nn.utils.parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def weight_size(v: md.Tensor, dim: int | None) -> md.Tensor:
    """The norm of v for each index of axis dim (None: of all of it)."""
    axes = None if dim is None else tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    return md.sqrt(md.sum(md.square(v), axis=axes, keepdims=axes is not None))


def unit(x: md.Tensor, eps: float) -> md.Tensor:
    """A vector over its norm, or over eps where that is smaller."""
    return x / md.maximum(md.sqrt(md.sum(md.square(x))), eps)


def outputs_axis(module: Module) -> int:
    """The axis of a layer's weight that counts its outputs."""
    return int(isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)))


def as_matrix(weight: md.Tensor, dim: int) -> md.Tensor:
    """A weight as [size of axis dim, the rest]."""
    return md.moveaxis(weight, dim, 0).reshape((weight.shape[dim], -1))


class _WeightNorm(Module):
    def __init__(self, dim: int | None):
        super().__init__()
        self.dim = None if dim == -1 else dim

    def forward(self, g: md.Tensor, v: md.Tensor) -> md.Tensor:
        return v * (g / weight_size(v, self.dim))

    def right_inverse(self, weight: md.Tensor) -> tuple[md.Tensor, md.Tensor]:
        """Size and direction."""
        return weight_size(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """A weight as its size times its direction, for each index of axis dim (None or -1: one for all) (T. Salimans and D. Kingma, NeurIPS 2016), as
    torch.nn.utils.parametrizations.weight_norm. Returns the module.

    >>> [name for name, _ in weight_norm(md.nn.Linear(2, 3)).named_parameters()]
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    def __init__(self, weight: md.Tensor, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        self.dim, self.n_power_iterations, self.eps = dim % weight.ndim, n_power_iterations, eps
        if weight.ndim > 1:
            if n_power_iterations < 1:
                raise ValueError(f"spectral_norm: n_power_iterations is 1 or more, not {n_power_iterations}")
            matrix = as_matrix(weight, self.dim)
            for buffer, size in zip(("_u", "_v"), matrix.shape, strict=True):
                key = md.random.default_generator.next_key(like=weight)
                self.register_buffer(buffer, unit(md.random.normal(key, (size,), weight.dtype), eps))
            self._iterate(matrix, 15)

    def _iterate(self, matrix: md.Tensor, times: int) -> None:
        with md.no_grad():
            u, v = self._u, self._v
            for _ in range(times):
                u = unit(md.matmul(matrix, v), self.eps)
                v = unit(md.matmul(matrix.T, u), self.eps)
            self._u.assign(u)
            self._v.assign(v)

    def forward(self, weight: md.Tensor) -> md.Tensor:
        if weight.ndim == 1:
            return unit(weight, self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        return weight / md.sum(self._u.detach() * md.matmul(matrix, self._v.detach()))

    def right_inverse(self, value: md.Tensor) -> md.Tensor:
        """The value itself, which may have been normalised already."""
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None) -> Module:
    """A weight over its largest singular value, which power iteration follows in training (T. Miyato et al., ICLR 2018), as
    torch.nn.utils.parametrizations.spectral_norm. dim: the axis of outputs (1 for transposed convolutions, else 0). Returns the module.

    Raises ValueError for a name that is no parameter or buffer, and for n_power_iterations below 1.

    >>> layer = spectral_norm(md.nn.Linear(3, 3), n_power_iterations=50)
    >>> round(float(md.linalg.matrix_norm(layer.weight.detach(), ord=2)), 3)
    1.0
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, md.Tensor):
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter or buffer {name!r}")
    if dim is None:
        dim = outputs_axis(module)
    return register_parametrization(module, name, _SpectralNorm(weight.detach(), n_power_iterations, dim, eps))
