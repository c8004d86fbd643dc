"""Metrics: numbers about outputs and targets, accumulated batch by batch in NumPy. scikit-learn and torchmetrics take the rest through NumPy.

Promises: a metric of an epoch is that of all its samples at once, whatever the sizes of the batches; the state is saved with a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl as md


def _array(x: Any) -> np.ndarray:
    return x.detach().numpy() if isinstance(x, md.Tensor) else np.asarray(x)


class Metric:
    """The base of metrics: subclasses define update(output, target), which adds to the arrays in `self.state`, and compute().

    Raises NotImplementedError for the method that a subclass did not define; load_state_dict raises ValueError for a state with other names.

    >>> class Count(md.train.Metric):
    ...     state = {"n": 0}
    ...     def update(self, output, target):
    ...         self.state = {"n": self.state["n"] + len(target)}
    ...     def compute(self):
    ...         return self.state["n"]
    >>> Count()(md.ones(3), md.ones(3))
    3
    """

    name = "metric"
    live = True  # whether the progress bar asks for it after each batch
    state: dict[str, Any]

    def reset(self) -> None:
        """Forget all batches."""
        self.state = {k: v * 0 for k, v in self.state.items()}

    def update(self, output: Any, target: Any) -> None:
        """Take one batch into account."""
        raise NotImplementedError(f"{type(self).__name__} is missing the required update")

    def compute(self) -> Any:
        """The value for all batches since the last reset; nan for none."""
        raise NotImplementedError(f"{type(self).__name__} is missing the required compute")

    def __call__(self, output: Any, target: Any) -> Any:
        """The value for one batch alone."""
        kept = self.state
        self.reset()
        try:
            self.update(output, target)
            return self.compute()
        finally:
            self.state = kept

    def state_dict(self) -> dict[str, Any]:
        """What has been added up."""
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what had been added up."""
        if state.keys() != self.state.keys():
            raise ValueError(f"{type(self).__name__}: a state with {sorted(self.state)} is wanted, got {sorted(state)}")
        self.state = dict(state)

    def _scores(self, output: Any, target: Any, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores [samples, classes] and labels [samples]."""
        scores, labels = _array(output), _array(target)
        if scores.ndim != labels.ndim + 1 or scores.shape[:axis] + scores.shape[axis % scores.ndim + 1 :] != labels.shape:
            raise ValueError(
                f"{type(self).__name__}: scores {scores.shape} with classes along axis {axis} do not fit labels {labels.shape}; "
                "axis=1 is that of images [N, C, H, W]"
            )
        return np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis]), labels.reshape(-1).astype(np.int64)


class Mean(Metric):
    """The mean over samples of function(output, target), a number for a batch.

    >>> error = Mean(lambda output, target: abs(output - target).mean(), "mae")
    >>> error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.0
    """

    def __init__(self, function: Callable[[Any, Any], Any], name: str | None = None):
        self.function = function
        self.name = name or str(getattr(function, "__name__", "metric"))
        self.state = {"total": 0.0, "count": 0}

    def update(self, output: Any, target: Any) -> None:
        """Add the value of a batch, weighted by its size."""
        n = len(target) if getattr(target, "shape", ()) else 1
        self.state["total"] += float(self.function(output, target)) * n
        self.state["count"] += n

    def compute(self) -> float:
        """The mean so far."""
        return self.state["total"] / self.state["count"] if self.state["count"] else math.nan


class Gathered(Metric):
    """function(outputs, targets) of all samples at once, NumPy arrays along the first axis: for what is no mean over batches, as scikit-learn's are.

    The outputs of an epoch are kept in memory, and in checkpoints from its middle.

    >>> spread = Gathered(lambda outputs, targets: np.ptp(outputs - targets), "spread")
    >>> spread.update(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    >>> spread.update(np.array([5.0]), np.array([1.0]))
    >>> spread.compute()
    4.0
    """

    live = False

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], Any], name: str | None = None):
        self.function = function
        self.name = name or str(getattr(function, "__name__", "metric"))
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.state = {"outputs": [], "targets": []}

    def state_dict(self) -> dict[str, Any]:
        """The arrays so far."""
        return {k: list(v) for k, v in self.state.items()}

    def update(self, output: Any, target: Any) -> None:
        """Keep a batch."""
        self.state["outputs"].append(_array(output))
        self.state["targets"].append(_array(target))

    def compute(self) -> Any:
        """The value for all samples so far; a number is a float."""
        if not self.state["outputs"]:
            return math.nan
        value = self.function(*(np.concatenate(self.state[k]) for k in ("outputs", "targets")))
        return float(value) if np.ndim(value) == 0 else value


class TopKAccuracy(Metric):
    """The share of samples whose label is among the k largest scores; scores [N, C] (or with classes along another axis), labels [N].

    A label that ties with the k-th score counts as hit if its class number is the smaller, as in a stable sort; none does among scores that hold nan.
    ignore_index: a label that is left out. Raises ValueError where the shapes do not fit.

    >>> TopKAccuracy(2)(np.array([[0.1, 0.5, 0.4], [0.9, 0.1, 0.0]]), np.array([2, 2]))
    0.5
    """

    def __init__(self, k: int = 5, axis: int = -1, ignore_index: int | None = None):
        if k < 1:
            raise ValueError(f"TopKAccuracy: k must be at least 1, got {k}")
        self.k, self.axis, self.ignore, self.name = k, axis, ignore_index, f"top{k}_accuracy"
        self.state = {"hits": 0, "count": 0}

    def update(self, output: Any, target: Any) -> None:
        """Count the hits of a batch."""
        scores, labels = self._scores(output, target, self.axis)
        if self.ignore is not None:
            scores, labels = scores[labels != self.ignore], labels[labels != self.ignore]
        if len(labels) and (labels.min() < 0 or labels.max() >= scores.shape[1]):
            raise ValueError(f"{type(self).__name__}: labels from {labels.min()} to {labels.max()}, but {scores.shape[1]} classes")
        mine = np.take_along_axis(scores, labels[:, None], 1)
        ahead = (scores > mine).sum(1) + ((scores == mine) & (np.arange(scores.shape[1]) < labels[:, None])).sum(1)
        self.state["hits"] += int(((ahead < self.k) & ~np.isnan(scores).any(1)).sum())
        self.state["count"] += len(labels)

    def compute(self) -> float:
        """The share so far."""
        return self.state["hits"] / self.state["count"] if self.state["count"] else math.nan


class Accuracy(TopKAccuracy):
    """The share of samples whose largest score is that of their label; or, for outputs of the labels' shape, on the right side of a threshold.

    threshold: for two classes; 0 for logits, 0.5 for probabilities. Raises ValueError where the shapes do not fit.

    >>> Accuracy()(md.tensor([[2.0, 1.0], [0.0, 3.0]]), md.tensor([0, 0]))
    0.5
    >>> Accuracy(threshold=0.5)(np.array([0.2, 0.9]), np.array([0, 1]))
    1.0
    """

    def __init__(self, axis: int = -1, ignore_index: int | None = None, threshold: float = 0.0):
        super().__init__(1, axis, ignore_index)
        self.threshold, self.name = threshold, "accuracy"

    def update(self, output: Any, target: Any) -> None:
        """Count the hits of a batch."""
        scores, labels = _array(output), _array(target)
        if scores.shape != labels.shape:
            return super().update(output, target)
        counted = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        self.state["hits"] += int((((scores > self.threshold) == (labels > 0.5)) & counted).sum())
        self.state["count"] += int(counted.sum())
        return None


class ConfusionMatrix(Metric):
    """int64 [classes, classes]: how many samples of each label (row) were taken for each class (column), as scikit-learn's.

    Outputs are scores with classes along `axis`, or predicted labels. Raises ValueError for labels out of range.

    >>> ConfusionMatrix(2)(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0])).tolist()
    [[1, 1], [0, 0]]
    """

    name = "confusion"

    def __init__(self, classes: int, axis: int = -1):
        self.classes, self.axis = classes, axis
        self.state = {"counts": np.zeros((classes, classes), np.int64)}

    def update(self, output: Any, target: Any) -> None:
        """Count a batch."""
        found, labels = _array(output), _array(target)
        if found.shape != labels.shape:
            scores, labels = self._scores(output, target, self.axis)
            found = scores.argmax(1)
        rows, columns = labels.reshape(-1).astype(np.int64), found.reshape(-1).astype(np.int64)
        for what, values in (("labels", rows), ("predictions", columns)):
            if len(values) and (values.min() < 0 or values.max() >= self.classes):
                raise ValueError(f"ConfusionMatrix: {what} from {values.min()} to {values.max()}, but {self.classes} classes")
        self.state["counts"] = self.state["counts"] + np.bincount(rows * self.classes + columns, minlength=self.classes**2).reshape(
            self.classes, self.classes
        )

    def compute(self) -> np.ndarray:
        """The counts so far."""
        return self.state["counts"]


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the labels under the softmax of the scores, computed in float64.

    ignore_index: a label that is left out, as padding is. axis: where the classes lie. Raises ValueError where the shapes do not fit.

    >>> round(Perplexity()(np.zeros((2, 3, 8)), np.zeros((2, 3))), 6)
    8.0
    """

    name = "perplexity"

    def __init__(self, ignore_index: int = -100, axis: int = -1):
        self.ignore, self.axis = ignore_index, axis
        self.state = {"total": 0.0, "count": 0}

    def update(self, output: Any, target: Any) -> None:
        """Add a batch."""
        scores, labels = self._scores(output, target, self.axis)
        scores, labels = scores[labels != self.ignore].astype(np.float64), labels[labels != self.ignore]
        if not len(labels):
            return
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            raise ValueError(f"Perplexity: labels from {labels.min()} to {labels.max()}, but {scores.shape[1]} classes")
        top = scores.max(1, keepdims=True)
        with np.errstate(invalid="ignore"):  # a score of inf has no perplexity: nan
            scores = scores - top
            total = np.log(np.exp(scores).sum(1)) - np.take_along_axis(scores, labels[:, None], 1)[:, 0]
        self.state["total"] += float(total.sum())
        self.state["count"] += len(labels)

    def compute(self) -> float:
        """The perplexity so far."""
        return math.exp(min(self.state["total"] / self.state["count"], 700.0)) if self.state["count"] else math.nan
