"""Trainer: the loop round a model, a loss, an optimizer and a loader, for those who do not want to write it.

Promises: the step is the one a user would write (zero_grad, forward, backward, step), eager or compiled; a training that was saved, in the middle
of an epoch too, goes on with the losses that it would have had, on any backend; Ctrl-C ends it between two steps, with a state that is whole.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

import minidl as md
from minidl.train.callbacks import Callback
from minidl.train.history import History
from minidl.train.interrupts import Interrupts
from minidl.train.metrics import Mean, Metric
from minidl.train.progress import Bar
from minidl.train.steps import closure_step, evaluating, evaluation_step, predicted, training_step, update_only


class Trainer:
    """Trains a model: fit, evaluate, predict; callbacks, loggers, checkpoints.

    loss: a function of (output, target) that gives a 0-d Tensor. A batch is (input, …, target), and the model is called with the inputs. For
    anything else (an autoencoder, batches that are dicts) `compute(model, batch)` returns (output, loss); metrics get the batch's last entry, or all
    of a batch that is no tuple.
    scheduler: what has step(); schedule: "epoch" or "step", when it is called; a plateau schedule gets the validation loss, or the loss.
    metrics: Metric objects or functions of (output, target), over training and validation. jit: compile the steps (a new shape, such as a smaller
    last batch, compiles again). autocast: md.bfloat16 or md.float16, in which md.autocast computes what is safe in it. scaler: a
    md.amp.GradScaler, which float16 needs: batches whose loss overflows are then left out, up to 20 in a row.
    accumulate: batches whose gradients are averaged before each update; a shorter group at the end of an epoch counts as one. clip_norm: the largest
    norm of all gradients together. log_every: batches between two records in the loggers. progress: a bar on the terminal for what takes more than
    two seconds.

    Raises ValueError for settings out of range, TypeError for a class where an object is wanted, IndexError for labels and indices that are not there
    (compiled steps too), FloatingPointError for a loss that is not finite, with what was found about its origin.

    >>> x = md.ones((4, 1))
    >>> model = md.nn.Linear(1, 1)
    >>> batches = [(x, x)]
    >>> trainer = md.train.Trainer(model, md.nn.MSELoss(), md.optim.SGD(model.parameters(), lr=0.1), progress=False)
    >>> history = trainer.fit(batches, epochs=2)
    >>> history["loss"][1] < history["loss"][0]
    True
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], md.Tensor] | None = None,
        optimizer: Any = None,
        *,
        compute: Callable[[Any, Any], tuple[Any, md.Tensor]] | None = None,
        scheduler: Any = None,
        schedule: str = "epoch",
        metrics: Sequence[Metric | Callable[[Any, Any], Any]] = (),
        jit: bool = True,
        autocast: Any = None,
        scaler: Any = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Any] = (),
        log_every: int = 1,
        progress: bool = True,
    ):
        if (loss is None) == (compute is None):
            raise ValueError("Trainer: give either loss, a function of (output, target), or compute, a function of (model, batch)")
        if schedule not in ("epoch", "step"):
            raise ValueError(f"Trainer: schedule is 'epoch' or 'step', not {schedule!r}")
        if accumulate < 1 or log_every < 1 or (clip_norm is not None and clip_norm <= 0):
            raise ValueError(f"Trainer: accumulate, log_every and clip_norm must be positive, got {accumulate}, {log_every} and {clip_norm}")
        for kind, things in (("metric", metrics), ("callback", callbacks), ("logger", loggers)):
            for thing in things:
                if isinstance(thing, type):
                    raise TypeError(f"Trainer: a {kind} is an object, not a class; write {thing.__name__}(...)")
                if kind == "metric" and not callable(thing):
                    raise TypeError(f"Trainer: a metric is a Metric or a function of (output, target), not {thing!r}")
        if getattr(scheduler, "optimizer", optimizer) is not optimizer:
            raise ValueError("Trainer: the scheduler is for another optimizer than the one that is given")
        self.model, self.optimizer, self.scheduler, self.schedule = model, optimizer, scheduler, schedule
        self.loss, self.compute = loss, compute
        self.autocast, self.scaler = None if autocast is None else str(md.autocast(dtype=autocast).dtype).rpartition(".")[2], scaler
        self.metrics = [m if isinstance(m, Metric) else Mean(m) for m in metrics]
        names = [m.name for m in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"Trainer: the metrics have the names {', '.join(names)}; give each its own (metric.name = ...)")
        self.accumulate, self.clip_norm, self.log_every, self.progress = accumulate, clip_norm, log_every, progress
        self.callbacks, self.loggers = list(callbacks), list(loggers)
        self.history = History()
        self.epoch = self.batch = self.step = self.batches = 0  # what is done: epochs, batches of this one, updates, batches in all
        self.stop = self.finished = False
        self.logs: dict[str, float] = {}
        self._total = self._count = 0.0  # of the losses of this epoch, weighted by the sizes of the batches
        self._overflows = 0  # batches in a row whose loss was not finite
        self._pending = 0  # batches whose gradients wait for an update
        self._epoch_key: Any = None  # of the random state when this epoch began
        self._loader: Any = None
        self._loader_state: Any = None
        made: list[Any] = [md.jit(f) if jit else f for f in (training_step, update_only, evaluation_step, predicted)]
        self._train, self._update, self._evaluate, self._predict = made
        if isinstance(optimizer, md.optim.LBFGS):
            if accumulate > 1 or scaler is not None or clip_norm is not None:
                raise ValueError("Trainer: LBFGS computes its gradients several times a step: no accumulate, scaler or clip_norm with it")
            self._train = closure_step  # its line search branches on values, so it is eager

    # ---- fit ------------------------------------------------------------------------------------------------------------------------------
    def fit(
        self, loader: Iterable[Any], epochs: int, validation: Iterable[Any] | None = None, *, resume: str | os.PathLike[str] | None = None
    ) -> History:
        """Train until `epochs` epochs are done in all: a training that was loaded or interrupted goes on to that number.

        loader: batches, anything that can be iterated once for each epoch. validation: batches for "val_loss" and the metrics after each epoch.
        resume: a checkpoint, or the folder of a ModelCheckpoint, to begin from; a folder without one begins anew. Returns the history. Raises
        KeyboardInterrupt after Ctrl-C, when the batch at work is done and on_interrupt has been called; a second Ctrl-C does not wait.
        """
        if self.optimizer is None:
            raise ValueError("Trainer.fit: there is no optimizer; give one to Trainer")
        if not isinstance(epochs, (int, np.integer)):
            raise TypeError(f"Trainer.fit: epochs is an integer, not {epochs!r}")
        _batches("fit", loader)
        self._look_at_parameters()
        if resume is not None:
            self._resume(Path(resume))
        self._loader, self.stop, self.finished = loader, False, False
        self._call("on_fit_start")
        try:
            with Interrupts() as interrupts, self._bar(loader, "fit", epochs, self.batches) as bar:
                while self.epoch < epochs and not self.stop:
                    bar.title(f"epoch {self.epoch + 1}/{epochs}")
                    self._fit_epoch(loader, validation, interrupts, bar)
            self.finished = self.epoch >= epochs or self.batch == 0
        except (KeyboardInterrupt, Exception) as error:
            if not isinstance(error, KeyboardInterrupt) and not interrupts.asked:
                raise
            if interrupts.between:
                self._call("on_interrupt")
            if isinstance(error, KeyboardInterrupt):
                raise
            raise KeyboardInterrupt from error  # Ctrl-C also reached the processes that load the data, and one of them said so first
        finally:
            if self.batch:  # the next fit goes on in the middle of this pass
                self._loader_state = self._position()
            self._call("on_fit_end")
        return self.history

    def _look_at_parameters(self) -> None:
        """Warn where the optimizer trains nothing of the model: a mistake, unless all that is trained is part of the loss."""
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        own = list(self.model.parameters())
        if own and held.isdisjoint(map(id, own)):
            warnings.warn(
                "Trainer.fit: the optimizer has no parameter of the model; make it of model.parameters(), after the model was moved to another "
                "dtype, backend or device",
                stacklevel=3,
            )

    def _resume(self, path: Path) -> None:
        if path.is_dir():
            manager = md.saving.CheckpointManager(path)
            if manager.latest is None:
                return
            path = manager.path(manager.latest)
        elif not path.exists():
            raise FileNotFoundError(f"Trainer.fit: there is no {path} to resume from; a ModelCheckpoint among the callbacks makes its folder")
        self.load(path)

    def _fit_epoch(self, loader: Any, validation: Any, interrupts: Interrupts, bar: Bar) -> None:
        batches = self._begin(loader)
        self.model.train()
        for batch in batches:
            self._call("on_batch_start")
            with interrupts.held():
                size = self._fit_batch(self._placed(batch))
            self._call("on_batch_end")
            self._call("on_checkpoint")
            interrupts.check()
            bar.update(size, lambda: {"loss": self._mean(), **self._values(live=True)})
            if self.stop:
                return
        if self.batch == 0:
            raise ValueError(f"Trainer.fit: the loader gave no batch; {_why_none(loader)}")
        with interrupts.held():
            if self._pending:
                self._update(self.model, self.optimizer, self.scaler, 1.0 / self._pending, self.clip_norm)
                self._updated()
        self.logs = {"epoch": self.epoch + 1, "loss": self._mean(), **self._values()}
        if validation is not None:
            found = self._evaluated(validation, interrupts)
            self.logs.update({f"val_{k}": v for k, v in _numbers(found).items()})
            self._call("on_evaluate_end")
        with interrupts.held():
            if self.scheduler is not None and self.schedule == "epoch":
                self._scheduled(self.logs.get("val_loss", self.logs["loss"]))
            self.epoch, self.batch = self.epoch + 1, 0
            self._call("on_epoch_end")
            self.history.epochs.append(dict(self.logs))
            for logger in self.loggers:
                logger.scalars(self.batches, {f"epoch/{k}": v for k, v in self.logs.items() if k != "epoch"})
        self._call("on_checkpoint")
        interrupts.check()

    def _begin(self, loader: Any) -> Iterator[Any]:
        """The batches of this epoch that are left."""
        generator, state, self._loader_state = md.random.default_generator, self._loader_state, None
        if state is not None:
            loader.load_state_dict(state)
        if self.batch == 0:
            self._total = self._count = 0.0
            self._epoch_key = generator.key.detach()
            for m in self.metrics:
                m.reset()
            self.history.starts.append(len(self.history.batches))
            self._call("on_epoch_start")
            batches = iter(loader)
            if state is None:
                return batches
            first = list(next(([b] for b in batches), []))  # a state from the end of a pass may say that nothing of it is left
            return iter(loader) if not first else _chained(first, batches)
        if state is not None:
            return iter(loader)
        now = generator.key.detach()  # a loader without a position: the same pass again, without what was used of it
        generator.restore(self._epoch_key)
        batches = iter(loader)
        for _ in range(self.batch):
            next(batches, None)
        generator.restore(now)
        return batches

    def _fit_batch(self, batch: Any) -> int:
        first, last = self._pending == 0, self._pending + 1 == self.accumulate
        scale = 1.0 / self.accumulate
        output, loss = self._train(
            self.model, self.optimizer, self.loss, self.compute, self.scaler, batch, self.autocast, first, last,
            scale if self.accumulate > 1 else None, self.clip_norm, bool(self.metrics),
        )  # fmt: skip
        value = loss.item()
        self.batch, self.batches = self.batch + 1, self.batches + 1
        self._overflows = 0 if math.isfinite(value) else self._overflows + 1
        if self._overflows > (0 if self.scaler is None else 20):
            raise FloatingPointError(self._diagnosis(value, batch))
        size = _size(batch)
        if not self._overflows:
            self._total, self._count = self._total + value * size, self._count + size
        self.history.batches.append(value)
        self.logs = {"epoch": self.epoch + 1, "loss": value}
        for m in self.metrics:
            m.update(output, _target(batch))
        self._pending += 1
        if last:
            self._updated()
        self.log({"loss": value})
        return size

    def _updated(self) -> None:
        self._pending = 0
        self.step += 1
        if self.scheduler is not None and self.schedule == "step":
            self._scheduled(self.logs.get("loss", math.nan))

    def _scheduled(self, value: float) -> None:
        """One step of the schedule; one that watches a number says so in its signature (ReduceLROnPlateau.step(metrics))."""
        import inspect

        names = inspect.signature(self.scheduler.step).parameters
        self.scheduler.step(value) if "metrics" in names else self.scheduler.step()

    def _diagnosis(self, value: float, batch: Any) -> str:
        bad = [f"input {i}" for i, v in enumerate(md.tree.leaves(batch)) if isinstance(v, md.Tensor) and v.dtype.inexact and not _finite(v)]
        bad += [f"parameter {n}" for n, p in self.model.named_parameters() if not _finite(p.detach())]
        rates = ", ".join(f"{float(g['lr']):g}" for g in self.optimizer.param_groups)
        where = f"epoch {self.epoch + 1}, batch {self.batch} (step {self.step}, learning rate {rates})"
        found = f"not finite are now: {', '.join(bad[:6])}{' …' if len(bad) > 6 else ''}" if bad else "inputs and parameters are finite"
        return f"Trainer: the loss is {value} at {where}; {found}. A smaller learning rate or clip_norm= may help; no checkpoint holds this."

    def log(self, values: Mapping[str, float]) -> None:
        """Send numbers of this batch to the loggers, every `log_every` batches."""
        if self.loggers and self.batches % self.log_every == 0:
            for logger in self.loggers:
                logger.scalars(self.batches, dict(values))

    # ---- evaluate, predict ------------------------------------------------------------------------------------------------------------------
    def evaluate(self, loader: Iterable[Any]) -> dict[str, Any]:
        """The mean loss over the samples of a loader and each metric, in evaluation mode.

        The modes of all modules and the random state are afterwards as they were, so that a training goes on as if nothing had been evaluated.
        """
        with Interrupts() as interrupts:
            return self._evaluated(loader, interrupts)

    def _evaluated(self, loader: Iterable[Any], interrupts: Interrupts) -> dict[str, Any]:
        _batches("evaluate", loader)
        kept = [m.state_dict() for m in self.metrics]
        total = count = 0.0
        try:
            for m in self.metrics:
                m.reset()
            with evaluating(self.model), self._bar(loader, "evaluate") as bar:
                for batch in map(self._placed, loader):
                    output, loss = self._evaluate(self.model, self.loss, self.compute, batch, self.autocast)
                    size = _size(batch)
                    total, count = total + loss.item() * size, count + size
                    for m in self.metrics:
                        m.update(output, _target(batch))
                    bar.update(size, lambda: {"loss": total / count, **self._values(live=True)})  # noqa: B023
                    interrupts.check()
            if not count:
                raise ValueError(f"Trainer.evaluate: the loader gave no batch; {_why_none(loader)}")
            return {"loss": total / count, **{m.name: m.compute() for m in self.metrics}}
        finally:
            for m, state in zip(self.metrics, kept, strict=True):
                m.load_state_dict(state)

    def predict(self, loader: Iterable[Any], *, targets: bool = True) -> Any:
        """The outputs of the model for all batches, concatenated along the first axis, in evaluation mode.

        targets: whether the last entry of a batch is a target, which the model does not get. A batch that is no tuple or list is the input.
        """
        _batches("predict", loader)
        parts = []
        with evaluating(self.model), self._bar(loader, "predict") as bar:
            for batch in map(self._placed, loader):
                inputs = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
                inputs = inputs[:-1] if targets and len(inputs) > 1 else inputs
                parts.append(self._predict(self.model, inputs, self.autocast))
                bar.update(_size(inputs), dict)
        if not parts:
            raise ValueError(f"Trainer.predict: the loader gave no batch; {_why_none(loader)}")
        return md.tree.map(lambda *leaves: md.concat(leaves, axis=0), *parts)

    # ---- state ------------------------------------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole training to a checkpoint, atomically: model, optimizer, schedule, callbacks, history, position and random state."""
        md.saving.save_checkpoint(path, trainer=self)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go to a checkpoint of `save` or ModelCheckpoint, whichever backend wrote it; the next fit goes on from there."""
        md.saving.load_checkpoint(path, trainer=self)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training which goes on needs, but for the random state, which checkpoints hold by themselves."""
        grads = {n: p.grad.detach() for n, p in self.model.named_parameters() if self._pending and p.grad is not None}
        return {
            "model": self.model.state_dict(),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "loader": self._position() if self._loader_state is None else self._loader_state,
            "callbacks": [c.state_dict() for c in self.callbacks],
            "metrics": [m.state_dict() for m in self.metrics],
            "history": self.history.state_dict(),
            "position": {"epoch": self.epoch, "batch": self.batch, "step": self.step, "batches": self.batches, "pending": self._pending},
            "epoch": {"total": self._total, "count": self._count, "key": self._epoch_key, "gradients": grads},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict gave. Raises ValueError where it is that of a training with other parts."""
        for what, own in (("callbacks", self.callbacks), ("metrics", self.metrics)):
            if len(state[what]) != len(own):
                raise ValueError(f"Trainer: the saved training has {len(state[what])} {what}, this one {len(own)}")
        for what, thing in (("optimizer", self.optimizer), ("scheduler", self.scheduler), ("scaler", self.scaler)):
            if (state[what] is None) != (thing is None):
                there, here = ("none" if x is None else "one" for x in (state[what], thing))
                raise ValueError(f"Trainer: of {what}s the saved training has {there}, this one {here}")
        self.model.load_state_dict(state["model"])
        for what, thing in (("optimizer", self.optimizer), ("scheduler", self.scheduler), ("scaler", self.scaler)):
            if thing is not None:
                thing.load_state_dict(state[what])
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(saved)
        for metric, saved in zip(self.metrics, state["metrics"], strict=True):
            metric.load_state_dict(saved)
        self.history.load_state_dict(state["history"])
        at, epoch = state["position"], state["epoch"]
        self.epoch, self.batch, self.step, self.batches, self._pending = (at[k] for k in ("epoch", "batch", "step", "batches", "pending"))
        self._total, self._count, self._epoch_key = epoch["total"], epoch["count"], epoch["key"]
        self._loader_state = state["loader"]
        for name, p in self.model.named_parameters():
            grad = epoch["gradients"].get(name)
            p.grad = None if grad is None else grad.to(backend=p.backend, device=p.device)

    def _position(self) -> Any:
        """The state of a loader that has one."""
        loader = self._loader
        return loader.state_dict() if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") else None

    # ---- small things -----------------------------------------------------------------------------------------------------------------------
    def _call(self, moment: str) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self)

    def _mean(self) -> float:
        return self._total / self._count if self._count else math.nan

    def _values(self, live: bool = False) -> dict[str, float]:
        return _numbers({m.name: m.compute() for m in self.metrics if m.live or not live})

    def _placed(self, batch: Any) -> Any:
        """The arrays of a batch, whoever made them, as Tensors where the model is."""
        where = next(self.model.parameters(), None)
        if where is None:
            return batch

        def place(v: Any) -> Any:
            if isinstance(v, md.Tensor):
                return v if (v.backend, v.device) == (where.backend, where.device) else v.to(backend=where.backend, device=where.device)
            return md.asarray(v, backend=where.backend, device=where.device) if hasattr(v, "__array__") or hasattr(v, "__dlpack__") else v

        return md.tree.map(place, batch)

    @contextmanager
    def _bar(self, loader: Any, title: str, passes: int = 1, done: int = 0) -> Iterator[Bar]:
        bar = Bar(passes * len(loader) if hasattr(loader, "__len__") else None, title, done, self.progress)
        try:
            yield bar
        finally:
            bar.close()


def _batches(name: str, loader: Any) -> None:
    """Raise TypeError for what gives samples where batches are wanted: each would be taken for a batch."""
    if isinstance(loader, (md.Tensor, np.ndarray)):
        raise TypeError(f"Trainer.{name}: a loader of batches is wanted, not an array; DataLoader(TensorDataset(x, y), batch_size=...) is one")
    if isinstance(loader, md.data.Dataset) and not isinstance(loader, md.data.IterableDataset):
        raise TypeError(f"Trainer.{name}: a loader of batches is wanted, not a data set; DataLoader(dataset, batch_size=...) is one")


def _why_none(loader: Any) -> str:
    """What may be the matter with a loader that gave no batch."""
    size = len(loader.dataset) if hasattr(loader, "dataset") and hasattr(loader.dataset, "__len__") else None
    if not size:
        return "a generator can be iterated once only, a DataLoader once an epoch" if size is None else "its data set is empty"
    return f"its data set has {size} samples" + (", fewer than a batch, and drop_last=True" if getattr(loader, "drop_last", False) else "")


def _chained(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _size(batch: Any) -> int:
    """Samples of a batch: the length of its first array."""
    for v in md.tree.leaves(batch):
        if getattr(v, "shape", ()):
            return int(v.shape[0])
    return 1


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that are one number: what the history and loggers hold."""
    return {k: float(v) for k, v in values.items() if isinstance(v, Real) or getattr(v, "shape", None) == ()}


def _target(batch: Any) -> Any:
    return batch[-1] if isinstance(batch, (tuple, list)) else batch


def _finite(x: md.Tensor) -> bool:
    return bool(np.isfinite(x.numpy().astype(np.complex128)).all())
