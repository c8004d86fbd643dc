"""A private step for a Module and an optimizer: what replaces zero_grad, backward and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md
from minidl import nn
from minidl.privacy.accounting import Accountant
from minidl.privacy.gradients import private_gradient

_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PrivateStep:
    """step(x, y, weights): one update with the private mean gradient of a batch; the mean loss of its examples is returned, which is not private.

    model: a Module whose layers treat each example by itself (ValueError for batch normalisation in training, which mixes them). loss(output, target)
    of a batch of one. clip, noise: as in private_gradient. rate, n: how batches are sampled (PoissonSampler), for the account and the divisor;
    `step.accountant.epsilon(delta)` says what was given away. key: of the noise, md.random. jit: compile the update.

    >>> import minidl as md
    >>> from minidl import nn, optim, privacy
    >>> model = nn.Linear(2, 1)
    >>> sampler = privacy.PoissonSampler(64, 0.25, md.random.key(0))
    >>> step = PrivateStep(model, optim.SGD(model.parameters(), lr=0.1), nn.MSELoss(), clip=1.0, noise=1.0, rate=0.25, n=64, key=md.random.key(1))
    >>> x, y = md.ones((64, 2)), md.ones((64, 1))
    >>> for positions, weights in sampler:
    ...     loss = step(x[positions], y[positions], weights)
    >>> step.accountant.steps, step.accountant.epsilon(1e-5) > 0
    (4, True)
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, loss: Callable[[Any, Any], md.Tensor], *, clip: float, noise: float, rate: float, n: int,
        key: md.Tensor, jit: bool = True,
    ):  # fmt: skip
        for name, module in model.named_modules():
            if isinstance(module, _MIXING) and module.training:
                raise ValueError(f"PrivateStep: {name or type(module).__name__} mixes the examples of a batch; use GroupNorm or LayerNorm instead")
        self.model, self.optimizer, self.accountant, self.key, self.number = model, optimizer, Accountant(noise, rate), key, 0

        def one(model: nn.Module, x: Any, y: Any) -> md.Tensor:
            x, y = md.tree.map(lambda a: a[None], (x, y))
            return loss(model(x), y)

        gradient = private_gradient(one, clip, noise, rate * n)

        def update(key: md.Tensor, x: Any, y: Any, weights: md.Tensor) -> md.Tensor:
            with md.no_grad():  # of the gradients themselves there will be no derivative
                found = gradient(key, model, x, y, weights=weights)
            for p, g in zip(md.tree.leaves(model), md.tree.leaves(found), strict=True):
                p.grad = g if p.requires_grad else None
            optimizer.step()
            for p in model.parameters():
                p.grad = None
            with md.no_grad():
                losses = md.vmap(one, in_axes=(None, 0, 0))(model, x, y)
                return (losses * weights).sum() / md.maximum(weights.sum(), md.full_like(weights.sum(), 1.0))

        self._update = md.jit(update) if jit else update

    def __call__(self, x: Any, y: Any, weights: md.Tensor | None = None) -> md.Tensor:
        rows = md.tree.leaves(x)[0].shape[0]
        like = md.tree.leaves(x)[0]
        weights = md.ones((rows,), backend=like.backend, device=like.device) if weights is None else weights
        out = self._update(md.random.fold_in(self.key, self.number).to(backend=like.backend, device=like.device), x, y, weights)
        self.number += 1
        self.accountant.step()
        return out
