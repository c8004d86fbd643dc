"""Checkpoints: the state of everything that takes part in a training, in one file; and a folder that keeps the last few and the best."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import minidl as md
from minidl.saving.trees import load, metadata_of, save

_RANDOM = "random"


def save_checkpoint(path: str | os.PathLike[str], *, metadata: dict[str, str] | None = None, **things: Any) -> None:
    """Write the state of a training to one file, atomically: whatever is named, and the random state of md.random.manual_seed.

    things: what has state_dict() and load_state_dict() (a Module, an optimizer, a schedule, a DataLoader, a Trainer) is saved by it; anything else
    is a pytree, saved as it is. Raises ValueError for the name "random", which is that of the random state, and TypeError for what `save` does not
    store.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/checkpoint.safetensors"
    >>> model = md.nn.Linear(2, 1)
    >>> optimizer = md.optim.Adam(model.parameters())
    >>> save_checkpoint(path, model=model, optimizer=optimizer, epoch=3)
    >>> load_checkpoint(path, model=model, optimizer=optimizer)
    {'epoch': 3}
    """
    if _RANDOM in things:
        raise ValueError(f"save_checkpoint: {_RANDOM!r} is the name of the random state, which is always saved; choose another")
    states = {k: v.state_dict() for k, v in things.items() if _stateful(v)}
    values = {k: v for k, v in things.items() if not _stateful(v)}
    save(path, {"states": states, "values": values, _RANDOM: md.random.default_generator.key.detach()}, metadata=metadata)


def load_checkpoint(
    path: str | os.PathLike[str], *, random: bool = True, backend: str | None = None, device: str | None = None, **things: Any
) -> dict[str, Any]:
    """Put a saved state back: each thing that is named takes over its own, whichever backend it lives on; returns what else the file holds.

    random=False leaves the random state as it is. Raises ValueError for a file that is damaged or has no state of a name that was given, and what
    load_state_dict raises where a state does not fit; then nothing is changed.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/checkpoint.safetensors"
    >>> model = md.nn.Linear(2, 1)
    >>> md.saving.save_checkpoint(path, model=model, epoch=3)
    >>> md.saving.load_checkpoint(path, model=model)
    {'epoch': 3}
    """
    found = load(path, backend=backend, device=device)
    parts = ("states", "values")
    if not isinstance(found, dict) or found.keys() != {*parts, _RANDOM} or not all(isinstance(found[k], dict) for k in parts):
        raise ValueError(f"{path}: a tree, but no checkpoint; md.saving.load reads it")
    states, key = found["states"], found[_RANDOM]
    missing = sorted(things.keys() - states.keys())
    if missing:
        raise ValueError(f"{path}: the checkpoint has no state of {', '.join(missing)}; it has {', '.join(states) or 'none'}")
    if not isinstance(key, md.Tensor) or key.shape != (2,) or key.dtype is not md.uint32:
        raise ValueError(f"{path}: damaged: the random state is no key")
    before = {k: v.state_dict() for k, v in things.items()}
    try:
        for name, thing in things.items():
            thing.load_state_dict(states[name])
    except BaseException as error:
        for other, state in before.items():
            things[other].load_state_dict(state)
        if isinstance(error, (KeyError, TypeError, IndexError, AttributeError)):
            raise ValueError(f"{path}: the state of {name!r} does not fit {type(thing).__name__} ({type(error).__name__}: {error})") from error
        raise
    if random:
        md.random.default_generator.restore(key)
    return {**found["values"], **{k: v for k, v in states.items() if k not in things}}


def _stateful(thing: Any) -> bool:
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


class CheckpointManager:
    """A folder of checkpoints, `step-000012.safetensors`: the last `keep` of them and the best stay, older ones are removed.

    mode: "min" if a smaller metric is better, "max" otherwise. What is there when the manager is made counts, so that a training which starts
    again goes on. A metric that is not a number is never the best. Raises ValueError for another mode or keep < 1.

    >>> import tempfile
    >>> manager = CheckpointManager(tempfile.mkdtemp(), keep=1)
    >>> for step, loss in enumerate([0.3, 0.1, 0.2]):
    ...     _ = manager.save(step, metric=loss, weights=md.ones((2,)))
    >>> manager.steps, manager.best
    ([1, 2], 1)
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3, mode: str = "min"):
        if mode not in ("min", "max"):
            raise ValueError(f"CheckpointManager: mode is 'min' or 'max', not {mode!r}")
        if keep < 1:
            raise ValueError(f"CheckpointManager: at least one checkpoint is kept, got keep={keep}")
        self.folder, self.keep, self.mode = Path(folder), keep, mode
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics: dict[int, float] = {step: self._read(step) for step in self.steps}

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:06}.safetensors"

    @property
    def steps(self) -> list[int]:
        """The steps that have a file, in order."""
        found = (re.fullmatch(r"step-(\d+)\.safetensors", p.name) for p in self.folder.iterdir())
        return sorted(int(m[1]) for m in found if m and self.path(int(m[1])).name == m[0])

    @property
    def latest(self) -> int | None:
        """The last step, None in an empty folder."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step of the best metric, the earliest of equal ones; None if no checkpoint has one."""
        sign = 1 if self.mode == "min" else -1
        known = [(sign * m, step) for step in self.steps if not math.isnan(m := self._metrics.get(step, math.nan))]
        return min(known)[1] if known else None

    def _read(self, step: int) -> float:
        try:
            return float(metadata_of(self.path(step)).get("metric", "nan"))
        except ValueError:  # damaged: it is no candidate, and loading it says why
            return math.nan

    def save(self, step: int, *, metric: float | None = None, **things: Any) -> Path:
        """Save a checkpoint (see save_checkpoint) as that of a step, and then remove what is too old; returns its file."""
        metadata = {} if metric is None else {"metric": repr(float(metric))}
        save_checkpoint(self.path(step), metadata=metadata, **things)
        self._metrics[step] = math.nan if metric is None else float(metric)
        kept = {*self.steps[-self.keep :], self.best, step}
        for old in self.steps:
            if old not in kept:
                self.path(old).unlink(missing_ok=True)
                self._metrics.pop(old, None)
        return self.path(step)

    def load(self, step: int | str | None = None, **things: Any) -> dict[str, Any]:
        """Load a checkpoint (see load_checkpoint): the latest, the "best", or that of a step. Raises FileNotFoundError where there is none."""
        chosen = self.latest if step is None else self.best if step == "best" else step
        if chosen is None or not self.path(int(chosen)).exists():
            raise FileNotFoundError(f"{self.folder}: no checkpoint of step {step!r}; there are {self.steps}")
        return load_checkpoint(self.path(int(chosen)), **things)
