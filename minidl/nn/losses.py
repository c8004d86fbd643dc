"""Losses as modules: each a function of nn.functional with its settings as attributes. PyTorch's older size_average and reduce are understood as
words for a reduction; they have no place of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn.module import Module
from minidl.nn.reshaping import PairwiseDistance

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "HuberLoss",
    "KLDivLoss", "L1Loss", "MSELoss", "MarginRankingLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss",
    "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss",
]  # fmt: skip


def reduction_of(params: dict[str, Any]) -> dict[str, Any]:
    """A loss's arguments with PyTorch's older words size_average and reduce as the reduction that they mean."""
    rest = {k: v for k, v in params.items() if k not in ("size_average", "reduce")}
    average, reduce = params.get("size_average"), params.get("reduce")
    if average is None and reduce is None:
        return rest
    return rest | {"reduction": "none" if reduce is False else "sum" if average is False else "mean"}


def _worded(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that understands size_average and reduce."""

    @functools.wraps(init)
    def __init__(self: Loss, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **(kwargs if kwargs.keys().isdisjoint(("size_average", "reduce")) else reduction_of(kwargs)))

    return __init__


class Loss(Module):
    """A function of inputs and targets; what the constructor keeps is passed on at each call, Tensors as buffers."""

    function: ClassVar[Any] = None
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _worded(cls.__init__)  # type: ignore[method-assign]

    def keep(self, reduction: str, **settings: Any) -> None:
        """Start the module with this reduction and these settings. Raises ValueError for a reduction that does not exist."""
        super().__init__()
        if reduction not in self.reductions:
            raise ValueError(f"{type(self).__name__}: reduction is one of {', '.join(map(repr, self.reductions))}, not {reduction!r}")
        self.reduction, self._settings = reduction, tuple(settings)
        for name, value in settings.items():
            if isinstance(value, md.Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    @_worded
    def __init__(self, reduction: str = "mean"):
        self.keep(reduction)

    def forward(self, input: md.Tensor, target: md.Tensor) -> md.Tensor:
        return type(self).function(input, target, reduction=self.reduction, **self.settings())

    def settings(self) -> dict[str, Any]:
        """What is passed on besides the reduction."""
        return {n: getattr(self, n) for n in self._settings}


# ---- classes --------------------------------------------------------------------------------------------------------------------------
class CrossEntropyLoss(Loss):
    """nn.functional.cross_entropy: scores [N, C, ...] against integer classes [N, ...] or class probabilities.

    >>> round(CrossEntropyLoss()(md.zeros((4, 10)), md.asarray([1, 2, 3, 4])).item(), 4)
    2.3026
    """

    function = staticmethod(F.cross_entropy)

    def __init__(self, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0):
        self.keep(reduction, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)


class CTCLoss(Loss):
    """nn.functional.ctc_loss: log-probabilities [T, N, C] against sequences of classes whose alignment is not known.

    >>> round(md.nn.CTCLoss()(md.full((3, 1, 2), -0.6931472), md.tensor([[1]]), [3], [1]).item(), 4)
    0.2877
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        self.keep(reduction, blank=blank, zero_infinity=zero_infinity)

    def forward(self, log_probs: md.Tensor, targets: md.Tensor, input_lengths: Any, target_lengths: Any) -> md.Tensor:  # type: ignore[override]
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity)


class NLLLoss(Loss):
    """nn.functional.nll_loss: log-probabilities against integer classes.

    >>> md.nn.NLLLoss()(md.tensor([[-1.0, -2.0]]), md.tensor([1])).item()
    2.0
    """

    function = staticmethod(F.nll_loss)

    def __init__(self, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"):
        self.keep(reduction, weight=weight, ignore_index=ignore_index)


class BCELoss(Loss):
    """nn.functional.binary_cross_entropy of probabilities, with logarithms cut at -100.

    >>> round(md.nn.BCELoss()(md.tensor([0.5]), md.tensor([1.0])).item(), 4)
    0.6931
    """

    function = staticmethod(F.binary_cross_entropy)

    def __init__(self, weight: md.Tensor | None = None, reduction: str = "mean"):
        self.keep(reduction, weight=weight)


class BCEWithLogitsLoss(Loss):
    """nn.functional.binary_cross_entropy_with_logits.

    >>> round(md.nn.BCEWithLogitsLoss()(md.tensor([0.0]), md.tensor([1.0])).item(), 4)
    0.6931
    """

    function = staticmethod(F.binary_cross_entropy_with_logits)

    def __init__(self, weight: md.Tensor | None = None, reduction: str = "mean", pos_weight: md.Tensor | None = None):
        self.keep(reduction, weight=weight, pos_weight=pos_weight)


class MultiMarginLoss(Loss):
    """nn.functional.multi_margin_loss: scores [N, C] against integer classes [N], by a hinge.

    Raises ValueError for a p that is not 1 or 2 and for another reduction, and when called for shapes that do not fit.

    >>> md.nn.MultiMarginLoss()(md.tensor([[1.0, 2.0]]), md.tensor([0])).item()
    1.0
    """

    function = staticmethod(F.multi_margin_loss)

    def __init__(self, p: int = 1, margin: float = 1.0, weight: md.Tensor | None = None, reduction: str = "mean"):
        if p not in (1, 2):
            raise ValueError(f"MultiMarginLoss: p is 1 or 2, not {p}")
        self.keep(reduction, p=p, margin=margin, weight=weight)


class MultiLabelMarginLoss(Loss):
    """nn.functional.multilabel_margin_loss: scores [N, C] against lists of classes, by a hinge.

    >>> md.nn.MultiLabelMarginLoss()(md.tensor([[1.0, 0.5]]), md.tensor([[0, -1]])).item()
    0.25
    """

    function = staticmethod(F.multilabel_margin_loss)


class MultiLabelSoftMarginLoss(Loss):
    """nn.functional.multilabel_soft_margin_loss: scores [N, C] against 0 and 1 for each class.

    >>> round(md.nn.MultiLabelSoftMarginLoss()(md.zeros((1, 2)), md.tensor([[0.0, 1.0]])).item(), 4)
    0.6931
    """

    function = staticmethod(F.multilabel_soft_margin_loss)

    def __init__(self, weight: md.Tensor | None = None, reduction: str = "mean"):
        self.keep(reduction, weight=weight)


# ---- values and distributions ---------------------------------------------------------------------------------------------------------
class MSELoss(Loss):
    """nn.functional.mse_loss: the squared difference.

    >>> md.nn.MSELoss()(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0])).item()
    8.5
    """

    function = staticmethod(F.mse_loss)


class L1Loss(Loss):
    """nn.functional.l1_loss: the absolute difference.

    >>> md.nn.L1Loss()(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0])).item()
    2.5
    """

    function = staticmethod(F.l1_loss)


class HuberLoss(Loss):
    """nn.functional.huber_loss: squared near the target, linear beyond delta.

    >>> md.nn.HuberLoss()(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0])).item()
    2.0
    """

    function = staticmethod(F.huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        self.keep(reduction, delta=delta)


class SmoothL1Loss(Loss):
    """nn.functional.smooth_l1_loss: huber_loss divided by beta.

    >>> md.nn.SmoothL1Loss()(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0])).item()
    2.0
    """

    function = staticmethod(F.smooth_l1_loss)

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        self.keep(reduction, beta=beta)


class KLDivLoss(Loss):
    """nn.functional.kl_div: log-probabilities against probabilities; reduction="batchmean" is the divergence.

    >>> loss = md.nn.KLDivLoss(reduction="batchmean")
    >>> round(loss(md.log(md.tensor([[0.25, 0.75]])), md.tensor([[0.5, 0.5]])).item(), 4)
    0.1438
    """

    function = staticmethod(F.kl_div)
    reductions = ("mean", "sum", "none", "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        self.keep(reduction, log_target=log_target)


class PoissonNLLLoss(Loss):
    """nn.functional.poisson_nll_loss: rates (or their logarithms) against counts.

    >>> md.nn.PoissonNLLLoss()(md.tensor([0.0]), md.tensor([2.0])).item()
    1.0
    """

    function = staticmethod(F.poisson_nll_loss)

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"):
        self.keep(reduction, log_input=log_input, full=full, eps=eps)


class GaussianNLLLoss(Loss):
    """nn.functional.gaussian_nll_loss: forward(input, target, var).

    >>> md.nn.GaussianNLLLoss()(md.tensor([0.0]), md.tensor([2.0]), md.tensor([1.0])).item()
    2.0
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        self.keep(reduction, full=full, eps=eps)

    def forward(self, input: md.Tensor, target: md.Tensor, var: md.Tensor | float) -> md.Tensor:  # type: ignore[override]
        return F.gaussian_nll_loss(input, target, var, reduction=self.reduction, **self.settings())


# ---- margins and rankings -------------------------------------------------------------------------------------------------------------
class HingeEmbeddingLoss(Loss):
    """nn.functional.hinge_embedding_loss: distances against 1 and -1.

    >>> md.nn.HingeEmbeddingLoss()(md.tensor([0.5, 0.5]), md.tensor([1, -1])).item()
    0.5
    """

    function = staticmethod(F.hinge_embedding_loss)

    def __init__(self, margin: float = 1.0, reduction: str = "mean"):
        self.keep(reduction, margin=margin)


class SoftMarginLoss(Loss):
    """nn.functional.soft_margin_loss: scores against 1 and -1.

    >>> round(md.nn.SoftMarginLoss()(md.tensor([0.0]), md.tensor([1.0])).item(), 4)
    0.6931
    """

    function = staticmethod(F.soft_margin_loss)


class _Pair(Loss):
    """A loss of two inputs and a target."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean"):
        self.keep(reduction, margin=margin)

    def forward(self, input1: md.Tensor, input2: md.Tensor, target: md.Tensor) -> md.Tensor:  # type: ignore[override]
        return type(self).function(input1, input2, target, reduction=self.reduction, **self.settings())


class MarginRankingLoss(_Pair):
    """nn.functional.margin_ranking_loss: which of two scores should be the larger one.

    >>> md.nn.MarginRankingLoss()(md.tensor([1.0]), md.tensor([3.0]), md.tensor([1])).item()
    2.0
    """

    function = staticmethod(F.margin_ranking_loss)


class CosineEmbeddingLoss(_Pair):
    """nn.functional.cosine_embedding_loss: whether two vectors should be alike.

    >>> md.nn.CosineEmbeddingLoss()(md.tensor([[1.0, 0.0]]), md.tensor([[0.0, 1.0]]), md.tensor([1])).item()
    1.0
    """

    function = staticmethod(F.cosine_embedding_loss)


class TripletMarginLoss(Loss):
    """nn.functional.triplet_margin_loss: forward(anchor, positive, negative).

    Raises ValueError for a margin that is not positive and for another reduction.

    >>> md.nn.TripletMarginLoss()(md.tensor([[0.0]]), md.tensor([[1.0]]), md.tensor([[1.0]])).item()
    1.0
    """

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"):
        if margin <= 0:
            raise ValueError(f"TripletMarginLoss: margin must be positive, got {margin}")
        self.keep(reduction, margin=margin, p=p, eps=eps, swap=swap)

    def forward(self, anchor: md.Tensor, positive: md.Tensor, negative: md.Tensor) -> md.Tensor:  # type: ignore[override]
        return F.triplet_margin_loss(anchor, positive, negative, reduction=self.reduction, **self.settings())


class TripletMarginWithDistanceLoss(Loss):
    """nn.functional.triplet_margin_with_distance_loss: forward(anchor, positive, negative).

    Raises ValueError for a margin that is not positive and for another reduction.

    >>> md.nn.TripletMarginWithDistanceLoss()(md.tensor([[0.0]]), md.tensor([[1.0]]), md.tensor([[1.0]])).item()
    1.0
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[md.Tensor, md.Tensor], md.Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ):
        if margin <= 0:
            raise ValueError(f"TripletMarginWithDistanceLoss: margin must be positive, got {margin}")
        distance: Any = PairwiseDistance() if distance_function is None else distance_function
        self.keep(reduction, distance_function=distance, margin=margin, swap=swap)

    def forward(self, anchor: md.Tensor, positive: md.Tensor, negative: md.Tensor) -> md.Tensor:  # type: ignore[override]
        return F.triplet_margin_with_distance_loss(anchor, positive, negative, reduction=self.reduction, **self.settings())
