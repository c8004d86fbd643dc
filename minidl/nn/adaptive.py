"""The adaptive softmax: classes in clusters by how frequent they are, the rare ones with smaller maps (E. Grave et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import minidl as md
from minidl.nn import functional as F
from minidl.nn.containers import ModuleList, Sequential
from minidl.nn.functional.losses import seen
from minidl.nn.linear import Linear
from minidl.nn.module import Module

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMoutput(NamedTuple):
    """The log-probabilities of the targets, and their mean with the sign of a loss."""

    output: md.Tensor
    loss: md.Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of n_classes classes, sorted from frequent to rare, and the loss of a target: (output [N], loss) for input [N, in_features]
    and integers [N] (or one of each, without N).

    cutoffs: where the clusters begin. The head scores the classes before the first cut-off, and each cluster as one; cluster i maps to
    in_features / div_value^(i+1) features first. Every cluster is computed for every row, so that shapes are fixed; PyTorch picks the rows. Raises
    ValueError for cutoffs that are not increasing integers between 1 and n_classes - 1 and for shapes that do not fit, IndexError for a class that
    there is not (eager on a CPU).

    >>> output, loss = AdaptiveLogSoftmaxWithLoss(8, 10, [2, 5])(md.ones((3, 8)), md.tensor([0, 4, 9]))
    >>> output.shape, loss.shape
    ((3,), ())
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        cuts = [int(c) for c in cutoffs if hasattr(c, "__index__")]
        if not cuts or len(cuts) < len(cutoffs) or cuts != sorted({*cuts}) or cuts[0] < 1 or cuts[-1] >= n_classes:
            raise ValueError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs are one or more increasing integers from 1 to n_classes - 1 = {n_classes - 1}, not {cutoffs!r}"
            )
        if div_value <= 0:
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: div_value must be positive, got {div_value}")
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, [*cuts, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = cuts[0], len(cuts)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            hidden = int(in_features // div_value ** (i + 1))
            first = Linear(in_features, hidden, bias=False, device=device, dtype=dtype)
            self.tail.append(Sequential(first, Linear(hidden, high - low, bias=False, device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        for layer in self.modules():
            if isinstance(layer, Linear):
                layer.reset_parameters()

    def _check(self, input: md.Tensor, target: md.Tensor) -> None:
        fits = input.ndim == target.ndim + 1 and target.ndim < 2 and input.shape[:-1] == target.shape and target.dtype.is_integer
        if not fits or input.shape[-1] != self.in_features:
            wanted = f"input [N, {self.in_features}] and integer targets [N], or one of each, are wanted"
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: {wanted}, got {input.shape} and {target.dtype.name} of shape {target.shape}")
        values = seen(target)
        if values is not None and (wrong := values[(values < 0) | (values >= self.n_classes)]).size:
            raise IndexError(f"AdaptiveLogSoftmaxWithLoss: the target holds class {wrong[0]}, but there are classes 0 to {self.n_classes - 1}")

    def forward(self, input: md.Tensor, target: md.Tensor) -> ASMoutput:
        """(log-probability of each target, minus their mean)."""
        self._check(input, target)
        single = target.ndim == 0
        x, t = (input[None], target[None]) if single else (input, target)
        t, near = t.to(md.int64), t.to(md.int64)
        loss: Any = 0.0
        for i, (low, high) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            here = md.logical_and(t >= low, t < high)
            near = md.where(here, self.shortlist_size + i, near)
            loss = loss + F.cross_entropy(self.tail[i](x), md.where(here, t - low, -100), reduction="none")
        output = -(F.cross_entropy(self.head(x), near, reduction="none") + loss)
        return ASMoutput(output[0] if single else output, -md.mean(output))

    def log_prob(self, input: md.Tensor) -> md.Tensor:
        """Log-probabilities of all classes, [N, n_classes] for input [N, in_features].

        >>> layer = AdaptiveLogSoftmaxWithLoss(8, 10, [2, 5])
        >>> round(md.exp(layer.log_prob(md.ones((1, 8)))).sum().item(), 5)
        1.0
        """
        head = F.log_softmax(self.head(input), dim=1)
        first = self.shortlist_size
        clusters = (F.log_softmax(cluster(input), dim=1) + head[:, first + i, None] for i, cluster in enumerate(self.tail))
        return md.concat([head[:, :first], *clusters], axis=1)

    def predict(self, input: md.Tensor) -> md.Tensor:
        """The class of the highest probability for each row."""
        return md.argmax(self.log_prob(input), axis=1)
