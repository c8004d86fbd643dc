"""torch.special: special functions where PyTorch's programs look for them, `md.special.expit`. They are those of `md`, and what SciPy has besides.

>>> md.special.expit(md.tensor(0.0)).item(), f"{md.special.gammainc(md.tensor(1.0), md.tensor(1.0)).item():.4f}"
(0.5, '0.6321')
"""

from __future__ import annotations

import minidl as md
from minidl import digamma, erf, erfc, erfinv, expm1, i0, log1p, logsumexp, xlogy
from minidl.idioms.jax.scipy.special import entr, erfcx, gammainc, gammaincc, i0e, i1, i1e, log_ndtr, multigammaln, xlog1py, zeta
from minidl.nn.functional import log_softmax, softmax


def round(input: md.Tensor, *, decimals: int = 0) -> md.Tensor:
    """The nearest number of so many decimals, halves to even.

    >>> md.special.round(md.tensor(2.5)).item(), md.special.round(md.tensor(1.28125), decimals=2).item() == md.tensor(1.28).item()
    (2.0, True)
    """
    return md.asarray(input).round(decimals=decimals)


def polygamma(n: int, input: md.Tensor) -> md.Tensor:
    """md.polygamma(input, n): the nth derivative of digamma, in PyTorch's order.

    >>> f"{md.special.polygamma(1, md.tensor(1.0)).item():.4f}"
    '1.6449'
    """
    return md.polygamma(input, n)


exp2, expit, gammaln, logit, ndtr, ndtri, sinc, psi = md.exp2, md.expit, md.gammaln, md.logit, md.ndtr, md.ndtri, md.sinc, digamma
__all__ = [
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc", "gammaincc", "gammaln", "i0", "i0e", "i1", "i1e",
    "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "sinc", "softmax",
    "xlog1py", "xlogy", "zeta",
]  # fmt: skip
