"""The steps of a training, as a user of PyTorch writes them; eager or under md.jit they are the same functions.

Everything that a step reads is an argument, so that jit guards it; flags that are Python's are part of the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import minidl as md


def supervised(model: Any, batch: Any, loss: Any) -> tuple[Any, md.Tensor]:
    """(output, loss) of a batch (input, …, target)."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        what = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
        raise TypeError(f"Trainer: a batch is (input, …, target), and this is {what}; give compute(model, batch) that returns (output, loss)")
    *inputs, target = batch
    output = model(*inputs)
    return output, loss(output, target)


def computed(model: Any, loss: Any, compute: Any, batch: Any) -> tuple[Any, md.Tensor]:
    """(output, loss) by the loss or by the user's function."""
    if loss is not None:
        return supervised(model, batch, loss)
    found = compute(model, batch)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"Trainer: compute(model, batch) returns (output, loss), not {type(found).__name__}")
    return found


def training_step(
    model: Any, optimizer: Any, loss: Any, compute: Any, scaler: Any, batch: Any, low: Any, first: bool, last: bool, scale: float | None,
    clip: float | None, wanted: bool,
) -> tuple[Any, md.Tensor]:  # fmt: skip
    """Forward and backward of one batch; the first of a group forgets the gradients before, the last updates the parameters."""
    if first:
        optimizer.zero_grad()
    output, value = _forward(model, loss, compute, batch, low)
    (value if scaler is None else scaler.scale(value)).backward()
    if last:
        update_only(model, optimizer, scaler, scale, clip)
    return md.tree.map(_cut, output) if wanted else None, value.detach()


def _forward(model: Any, loss: Any, compute: Any, batch: Any, low: Any) -> tuple[Any, md.Tensor]:
    with computing(low):
        output, value = computed(model, loss, compute, batch)
    if not isinstance(value, md.Tensor) or value.shape != ():
        what = value.shape if isinstance(value, md.Tensor) else type(value).__name__
        raise ValueError(f"Trainer: the loss is one number, a Tensor of shape (), not {what}; take its mean or sum")
    return output, value


def closure_step(model: Any, optimizer: Any, loss: Any, compute: Any, scaler: Any, batch: Any, low: Any, *rest: Any) -> tuple[Any, md.Tensor]:
    """The step of an optimizer that computes the loss several times (LBFGS); output and loss are those of before."""
    found: list[tuple[Any, md.Tensor]] = []

    def closure() -> md.Tensor:
        optimizer.zero_grad()
        output, value = _forward(model, loss, compute, batch, low)
        value.backward()
        found.append((md.tree.map(_cut, output), value.detach()))
        return value

    optimizer.step(closure)
    return found[0]


def update_only(model: Any, optimizer: Any, scaler: Any, scale: float | None, clip: float | None) -> None:
    """The update by gradients that are there, scaled and clipped."""
    if scaler is not None:
        scaler.unscale_(optimizer)
    if scale is not None:
        with md.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.grad = p.grad * scale
    if clip is not None:
        md.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def evaluation_step(model: Any, loss: Any, compute: Any, batch: Any, low: Any) -> tuple[Any, md.Tensor]:
    """(output, loss) without gradients."""
    with md.no_grad(), computing(low):
        output, value = computed(model, loss, compute, batch)
    return md.tree.map(_cut, output), value.detach()


def predicted(model: Any, inputs: Any, low: Any) -> Any:
    """The outputs for some inputs, without gradients."""
    with md.no_grad(), computing(low):
        return md.tree.map(_cut, model(*inputs))


@contextmanager
def computing(low: Any) -> Iterator[None]:
    """Mixed precision in a low dtype, where there is one; a label or an index that is not there is an error when the loss is read, compiled too."""
    with md.out_of_bounds("raise-later"), nullcontext() if low is None else md.autocast(dtype=low):
        yield


def _cut(v: Any) -> Any:
    return v.detach() if isinstance(v, md.Tensor) else v


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode; every module's own mode comes back, and so does the random state, of which loaders take keys."""
    before, key = [(m, m.training) for m in model.modules()], md.random.default_generator.key.detach()
    model.eval()
    try:
        yield
    finally:
        md.random.default_generator.restore(key)
        for m, training in before:
            m.training = training
