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
    """step(x, y, weights): one update with the private mean gradient of a batch; returns the mean loss of its examples before that, which is not
    private.

    model: a Module whose layers treat each example by itself (ValueError for batch normalisation in training, which mixes them). loss(output, target)
    of a batch of one. clip, noise: as in private_gradient, over the parameters that require grad when the step is taken (ValueError where none does).
    rate, n: how batches are sampled (PoissonSampler), for the account and the divisor; `step.accountant.epsilon(delta)` says what was given away.
    key: of the noise, md.random. jit: compile the update. A training that goes on keeps state_dict(), without which its noise would come again.

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

        def update(key: md.Tensor, x: Any, y: Any, weights: md.Tensor) -> md.Tensor:
            leaves, structure = md.tree.flatten(model)
            trained = [p for p in leaves if p.requires_grad]
            if not trained:
                raise ValueError("PrivateStep: no parameter of the model requires grad")

            def one(trained: list[md.Tensor], x: Any, y: Any) -> md.Tensor:
                x, y = md.tree.map(lambda a: a[None], (x, y))
                given = iter(trained)  # what is frozen has no share in the norms
                whole = md.tree.unflatten(structure, [next(given) if p.requires_grad else p for p in leaves])
                return loss(whole(x), y)

            with md.no_grad():  # of the gradients themselves there will be no derivative
                found = private_gradient(one, clip, noise, rate * n)(key, trained, x, y, weights=weights)
                losses = md.vmap(one, in_axes=(None, 0, 0))(trained, x, y)
            for p in model.parameters():
                p.grad = None
            for p, g in zip(trained, found, strict=True):
                p.grad = g
            optimizer.step()
            for p in trained:
                p.grad = None
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

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, by which the noise is drawn, and the account."""
        return {"number": self.number, "accountant": self.accountant.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after a saved step. Raises ValueError where the account was kept for another noise or rate."""
        self.accountant.load_state_dict(state["accountant"])
        self.number = int(state["number"])
