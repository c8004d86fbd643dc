"""Callbacks: what happens at the moments of a training besides the training.

A callback gets the Trainer, and reads it: `trainer.epoch` and `trainer.batch` (how many are done), `trainer.step` (updates of the parameters),
`trainer.logs` (the numbers of now), `trainer.model`, `trainer.optimizer`, `trainer.history`. It may set `trainer.stop = True`.
"""

from __future__ import annotations

import math
import os
from typing import Any

import minidl as md


class Callback:
    """The base of callbacks: define the moments that are wanted. What has a state also defines state_dict and load_state_dict.

    >>> class Count(Callback):
    ...     batches = 0
    ...     def on_batch_end(self, trainer):
    ...         self.batches += 1
    """

    def on_fit_start(self, trainer: Any) -> None:
        """Before the first batch of a fit."""

    def on_epoch_start(self, trainer: Any) -> None:
        """Before the first batch of an epoch (not where one is resumed in its middle)."""

    def on_batch_start(self, trainer: Any) -> None:
        """Before a batch of training."""

    def on_batch_end(self, trainer: Any) -> None:
        """After a batch of training; trainer.logs["loss"] is its loss."""

    def on_evaluate_end(self, trainer: Any) -> None:
        """After the validation of an epoch."""

    def on_epoch_end(self, trainer: Any) -> None:
        """After an epoch with its validation; trainer.logs is its row."""

    def on_checkpoint(self, trainer: Any) -> None:
        """After each batch and each epoch, when all callbacks have had that moment and the state is whole; trainer.batch is 0 after an epoch."""

    def on_interrupt(self, trainer: Any) -> None:
        """When Ctrl-C ends a fit, between two batches, before KeyboardInterrupt is raised."""

    def on_fit_end(self, trainer: Any) -> None:
        """At the end of a fit, however it ends."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""


def _mode(who: str, mode: str, monitor: str) -> str:
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"{who}: mode is 'min', 'max' or 'auto', not {mode!r}")
    if mode != "auto":
        return mode
    return "max" if any(word in monitor for word in ("acc", "auc", "f1", "precision", "recall")) else "min"


def _read(who: str, trainer: Any, monitor: str) -> float:
    value = trainer.logs.get(monitor)
    if value is None:
        raise KeyError(f"{who}: there is no {monitor!r} to watch; the epoch has {', '.join(k for k in trainer.logs if k != 'epoch')}")
    return float(value)


class EarlyStopping(Callback):
    """Stop when a number has not become better by more than min_delta for `patience` epochs; nan is no better than anything.

    mode: "min", "max" or "auto" ("max" for names with acc, auc, f1, precision or recall). restore_best: go back to the model of the best epoch at the
    end. Raises KeyError for a number that the epochs do not have.

    >>> x = md.ones((4, 1))
    >>> model = md.nn.Linear(1, 1)
    >>> batches = [(x, x)]
    >>> parts = md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.1)
    >>> trainer = md.train.Trainer(model, *parts, callbacks=[md.train.EarlyStopping("loss", patience=1, min_delta=100.0)], progress=False)
    >>> len(trainer.fit(batches, epochs=9)["loss"])
    2
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, mode: str = "auto", restore_best: bool = False
    ):
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.mode = _mode("EarlyStopping", mode, monitor)
        self.best, self.waited, self.best_epoch = math.nan, 0, 0
        self._model: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any) -> None:
        """A training that had been stopped stays so."""
        trainer.stop = trainer.stop or self.waited >= self.patience

    def on_epoch_end(self, trainer: Any) -> None:
        """Compare the epoch with the best one."""
        value, sign = _read("EarlyStopping", trainer, self.monitor), 1 if self.mode == "min" else -1
        if not math.isnan(value) and (math.isnan(self.best) or sign * value < sign * self.best - self.min_delta):
            self.best, self.waited, self.best_epoch = value, 0, trainer.epoch
            if self.restore_best:
                self._model = trainer.model.state_dict()
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.stop = True

    def on_fit_end(self, trainer: Any) -> None:
        """Put the best model back."""
        if self._model and trainer.finished:
            trainer.model.load_state_dict(self._model)

    def state_dict(self) -> dict[str, Any]:
        """The best number and how long ago it was."""
        return {"best": self.best, "waited": self.waited, "best_epoch": self.best_epoch, "model": self._model}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.best, self.waited, self.best_epoch, self._model = state["best"], state["waited"], state["best_epoch"], state["model"]


class ModelCheckpoint(Callback):
    """Save the whole training in a folder: at the end of each epoch, when Ctrl-C ends it, and every so many batches if that is asked for.

    The last `keep` stay, and the one with the best `monitor` of those that end an epoch. trainer.fit(..., resume=folder) goes on from the last one.
    mode: as of EarlyStopping. See md.saving.CheckpointManager, which is `.manager`.

    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> x = md.ones((4, 1))
    >>> model = md.nn.Linear(1, 1)
    >>> batches = [(x, x)]
    >>> parts = md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.1)
    >>> trainer = md.train.Trainer(model, *parts, callbacks=[md.train.ModelCheckpoint(folder)], progress=False)
    >>> _ = trainer.fit(batches, epochs=1)
    >>> len(os.listdir(folder)) > 0
    True
    """

    def __init__(
        self, folder: str | os.PathLike[str], monitor: str | None = None, mode: str = "auto", keep: int = 3, every_batches: int | None = None
    ):
        self.monitor, self.every = monitor, every_batches
        self.manager = md.saving.CheckpointManager(folder, keep, _mode("ModelCheckpoint", mode, monitor or "loss"))

    def on_checkpoint(self, trainer: Any) -> None:
        """Save the end of an epoch, and in its middle."""
        if trainer.batch == 0:
            metric = None if self.monitor is None else _read("ModelCheckpoint", trainer, self.monitor)
            self.manager.save(trainer.batches, metric=metric, trainer=trainer)
        elif self.every is not None and trainer.batches % self.every == 0:
            self.manager.save(trainer.batches, trainer=trainer)

    def on_interrupt(self, trainer: Any) -> None:
        """Save where the training was interrupted."""
        if trainer.batches not in self.manager.steps:
            self.manager.save(trainer.batches, trainer=trainer)


class LearningRateLogger(Callback):
    """Note the learning rate of each group: in the row of each epoch as "lr" ("lr_0", "lr_1", … for several), and by batch in the loggers.

    >>> x = md.ones((4, 1))
    >>> model = md.nn.Linear(1, 1)
    >>> batches = [(x, x)]
    >>> parts = md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.1)
    >>> trainer = md.train.Trainer(model, *parts, callbacks=[md.train.LearningRateLogger()], progress=False)
    >>> trainer.fit(batches, epochs=2)["lr"]
    [0.1, 0.1]
    """

    def _rates(self, trainer: Any) -> dict[str, float]:
        rates = [float(g["lr"]) for g in trainer.optimizer.param_groups]
        return {"lr": rates[0]} if len(rates) == 1 else {f"lr_{i}": r for i, r in enumerate(rates)}

    def on_batch_end(self, trainer: Any) -> None:
        """Log the rates."""
        trainer.log(self._rates(trainer))

    def on_epoch_end(self, trainer: Any) -> None:
        """Put the rates in the row."""
        trainer.logs.update(self._rates(trainer))


class ParameterHistograms(Callback):
    """Log a histogram of each parameter, and of its gradient where there is one, at the end of every `every` epochs.

    >>> x = md.ones((4, 1))
    >>> model = md.nn.Linear(1, 1)
    >>> batches = [(x, x)]
    >>> parts = md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.1)
    >>> trainer = md.train.Trainer(model, *parts, callbacks=[md.train.ParameterHistograms()], progress=False)
    >>> len(trainer.fit(batches, epochs=1)["loss"])
    1
    """

    def __init__(self, every: int = 1):
        self.every = every

    def on_epoch_end(self, trainer: Any) -> None:
        """Log them."""
        if trainer.epoch % self.every == 0:
            for name, p in trainer.model.named_parameters():
                for logger in trainer.loggers:
                    logger.histogram(trainer.batches, f"parameters/{name}", p.detach().numpy())
                    if p.grad is not None:
                        logger.histogram(trainer.batches, f"gradients/{name}", p.grad.numpy())
