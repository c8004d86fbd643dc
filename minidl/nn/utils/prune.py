"""Pruning, as torch.nn.utils.prune: a parameter becomes `name_orig` under a buffer `name_mask`, and `name` their product.

Promises: a mask stays through training (what is masked gets no gradient), state_dict, jit and export until `remove`; pruning again works on what
is left; `amount` counts as in torch: a fraction of it, or a number. Of equal scores the first ones go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.computed import compute, computed, restore
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = [
    "L1Unstructured", "RandomUnstructured", "custom_from_mask", "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove", "sparsity",
]  # fmt: skip


class Masked:
    """The product of a module's `name_orig` and `name_mask`."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, module: Module) -> md.Tensor:
        return getattr(module, self.name + "_orig") * getattr(module, self.name + "_mask")

    def assign(self, module: Module, value: Any) -> None:
        """Refused: the value would lose its mask, or change under it."""
        raise AttributeError(
            f"{type(module).__name__}: {self.name!r} is pruned, {self.name}_orig under {self.name}_mask; assign {self.name}_orig, "
            f"or make the pruning permanent first: nn.utils.prune.remove(module, {self.name!r})"
        )


def _count(name: str, amount: int | float, total: int) -> int:
    """How many of `total` an amount is."""
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"{name}: amount is a fraction (float) or a number (int), not {type(amount).__name__}")
    if amount < 0 or (isinstance(amount, float) and amount > 1.0):
        raise ValueError(f"{name}: amount {amount} is no fraction between 0 and 1, nor a number from 0 on")
    if isinstance(amount, int) and amount > total:
        raise ValueError(f"{name}: amount {amount} is more than the {total} that are left")
    return amount if isinstance(amount, int) else round(amount * total)


def _parameter(name: str, module: Module, key: str) -> md.Tensor:
    found = module._parameters.get(key + "_orig" if is_pruned(module, key) else key)
    if found is None:
        have = ", ".join(module._parameters) or "none"
        raise AttributeError(f"{name}: {type(module).__name__} has no parameter {key!r}; it has {have}")
    return found.detach()


def _old_mask(module: Module, key: str, like: md.Tensor) -> md.Tensor:
    return module._buffers[key + "_mask"] if is_pruned(module, key) else md.ones_like(like)


def _without(scores: md.Tensor, mask: md.Tensor, n: int) -> md.Tensor:
    """The mask without its n lowest scores."""
    if n == 0:
        return mask
    flat = mask.reshape((-1,))
    order = md.argsort(md.where(flat != 0, scores.reshape((-1,)), float("inf")))
    return flat.at[order[:n]].set(0.0).reshape(mask.shape)


def custom_from_mask(module: Module, name: str, mask: Any) -> Module:
    """Prune a parameter by a mask of its shape (0 where it goes), besides what is pruned already; returns the module.

    Raises AttributeError for a name that is no parameter, ValueError for a mask of another shape.

    >>> from minidl import nn
    >>> layer = custom_from_mask(nn.Linear(2, 1, bias=False), "weight", md.tensor([[1.0, 0.0]]))
    >>> sorted(layer.state_dict()), layer.weight[0, 1].item() == 0
    (['weight_mask', 'weight_orig'], True)
    """
    p = _parameter("custom_from_mask", module, name)
    mask = md.asarray(mask).to(p.dtype).to(backend=p.backend, device=p.device)
    if mask.shape != p.shape:
        raise ValueError(f"custom_from_mask: a mask of shape {mask.shape} for {name!r} of shape {p.shape}")
    if is_pruned(module, name):
        module._buffers[name + "_mask"] = module._buffers[name + "_mask"] * mask
        return module
    original = module._parameters.pop(name)
    module.register_parameter(name + "_orig", original)
    module.register_buffer(name + "_mask", mask)
    compute(module, name, Masked(name))
    return module


def identity(module: Module, name: str) -> Module:
    """A mask of ones, to be changed later; returns the module.

    Raises AttributeError for a name that is no parameter.

    >>> layer = md.nn.utils.prune.identity(md.nn.Linear(2, 2), "weight")
    >>> layer.weight_mask.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    return custom_from_mask(module, name, md.ones_like(_parameter("identity", module, name)))


class L1Unstructured:
    """Scores by size, for global_unstructured.

    >>> layer = md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(layer, "weight")], md.nn.utils.prune.L1Unstructured, 0.5)
    >>> (layer.weight == 0.0).sum().item()
    8
    """

    @staticmethod
    def scores(p: md.Tensor) -> md.Tensor:
        """A score for each element; the lowest go."""
        return md.abs(p)


class RandomUnstructured:
    """Scores by chance, for global_unstructured.

    >>> layer = md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(layer, "weight")], md.nn.utils.prune.RandomUnstructured, 0.5)
    >>> (layer.weight == 0.0).sum().item()
    8
    """

    @staticmethod
    def scores(p: md.Tensor) -> md.Tensor:
        """A score for each element; the lowest go."""
        return md.random.uniform(md.random.default_generator.next_key(like=p), p.shape)


def _unstructured(what: str, module: Module, name: str, amount: int | float, scores: Any) -> Module:
    p = _parameter(what, module, name)
    mask = _old_mask(module, name, p)
    left = int(mask.sum().item())
    return custom_from_mask(module, name, _without(scores(p), mask, _count(what, amount, left)))


def l1_unstructured(module: Module, name: str, amount: int | float, importance_scores: md.Tensor | None = None) -> Module:
    """Prune the elements of least size (or of least importance_scores); returns the module.

    amount: a fraction (float) or a number (int) of what is left. Raises AttributeError for a name that is no parameter, TypeError for an amount that
    is no number, ValueError for one that is out of range and for importance_scores of another shape.

    >>> from minidl import nn
    >>> layer = nn.Linear(4, 4)
    >>> float((l1_unstructured(layer, "weight", 0.5).weight == 0).sum())
    8.0
    """
    if importance_scores is not None and importance_scores.shape != _parameter("l1_unstructured", module, name).shape:
        raise ValueError(f"l1_unstructured: importance_scores of shape {importance_scores.shape} do not fit {name!r}")
    return _unstructured("l1_unstructured", module, name, amount, L1Unstructured.scores if importance_scores is None else lambda p: importance_scores)


def random_unstructured(module: Module, name: str, amount: int | float) -> Module:
    """Prune elements by chance (md.manual_seed); returns the module.

    >>> layer = md.nn.utils.prune.random_unstructured(md.nn.Linear(4, 4), "weight", 4)
    >>> (layer.weight == 0.0).sum().item()
    4
    """
    return _unstructured("random_unstructured", module, name, amount, RandomUnstructured.scores)


def _structured(what: str, module: Module, name: str, amount: int | float, dim: int, scores: Any) -> Module:
    p = _parameter(what, module, name)
    if not -p.ndim <= dim < p.ndim or p.ndim < 2:
        raise ValueError(f"{what}: dim {dim} of {name!r} of shape {p.shape}: an axis of at least two is wanted")
    dim %= p.ndim
    rest = tuple(i for i in range(p.ndim) if i != dim)
    mask = _old_mask(module, name, p)
    channels = md.any(mask != 0, axis=rest).to(p.dtype)
    kept = _without(scores(p, rest), channels, _count(what, amount, int(channels.sum().item())))
    return custom_from_mask(module, name, md.broadcast_to(kept.reshape(tuple(-1 if i == dim else 1 for i in range(p.ndim))), p.shape))


def ln_structured(module: Module, name: str, amount: int | float, n: float, dim: int) -> Module:
    """Prune whole slices along axis dim, those of least n-norm; returns the module.

    >>> from minidl import nn
    >>> layer = ln_structured(nn.Conv2d(1, 4, 3), "weight", amount=2, n=2, dim=0)
    >>> int((layer.weight_mask.sum(axis=(1, 2, 3)) == 0).sum())
    2
    """
    norm = lambda p, rest: md.linalg.vector_norm(p, axis=rest, ord=n)
    return _structured("ln_structured", module, name, amount, dim, norm)


def random_structured(module: Module, name: str, amount: int | float, dim: int) -> Module:
    """Prune whole slices along axis dim by chance; returns the module.

    >>> layer = md.nn.utils.prune.random_structured(md.nn.Linear(2, 4), "weight", 0.5, dim=0)
    >>> (layer.weight == 0.0).all(axis=1).sum().item()
    2
    """
    draw = lambda p, rest: RandomUnstructured.scores(md.sum(p, axis=rest))
    return _structured("random_structured", module, name, amount, dim, draw)


def global_unstructured(parameters: Sequence[tuple[Module, str]], pruning_method: Any, amount: int | float) -> None:
    """Prune the elements of least score among all these (module, name) together, by L1Unstructured or RandomUnstructured.

    amount: a fraction (float) or a number (int) of all that is left. Raises AttributeError for a name that is no parameter, TypeError for an amount
    that is no number, ValueError for one that is out of range.

    >>> a, b = md.nn.Linear(4, 4), md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(a, "weight"), (b, "weight")], md.nn.utils.prune.L1Unstructured, 0.25)
    >>> (a.weight == 0.0).sum().item() + (b.weight == 0.0).sum().item()
    8
    """
    found = [_parameter("global_unstructured", m, n) for m, n in parameters]
    masks = [_old_mask(m, n, p) for (m, n), p in zip(parameters, found, strict=True)]
    flat = md.concat([m.reshape((-1,)) for m in masks])
    scores = md.concat([pruning_method.scores(p).reshape((-1,)) for p in found])
    kept = _without(scores, flat, _count("global_unstructured", amount, int(flat.sum().item())))
    start = 0
    for (module, name), p in zip(parameters, found, strict=True):
        custom_from_mask(module, name, kept[start : start + p.size].reshape(p.shape))
        start += p.size


def remove(module: Module, name: str) -> Module:
    """Make pruning permanent: `name` is a parameter again, with zeros where it was pruned; returns the module.

    Raises ValueError for a parameter that is not pruned.

    >>> layer = md.nn.utils.prune.l1_unstructured(md.nn.Linear(4, 4), "weight", 4)
    >>> sorted(name for name, _ in md.nn.utils.prune.remove(layer, "weight").named_parameters())
    ['bias', 'weight']
    """
    if not is_pruned(module, name):
        raise ValueError(f"remove: {name!r} of {type(module).__name__} is not pruned")
    value = getattr(module, name).detach()
    original = module._parameters.pop(name + "_orig")
    del module._buffers[name + "_mask"]
    restore(module, name)
    with md.no_grad():
        original.assign(value)
    module.register_parameter(name, original if isinstance(original, Parameter) else Parameter(value))
    return module


def is_pruned(module: Module, name: str | None = None) -> bool:
    """Whether the module, or one below it, has a mask (of that parameter).

    >>> from minidl import nn
    >>> is_pruned(nn.Linear(1, 1))
    False
    """
    if name is not None:
        return isinstance(computed(module).get(name), Masked)
    return any(isinstance(f, Masked) for m in module.modules() for f in computed(m).values())


def sparsity(module: Module) -> float:
    """The share of zeros among all the weights of the module and those below it, masks applied.

    >>> layer = md.nn.utils.prune.l1_unstructured(md.nn.Linear(4, 4), "weight", 0.5)
    >>> md.nn.utils.prune.sparsity(layer)
    0.4
    """
    zeros = total = 0
    for m in module.modules():
        for key in m._parameters:
            value = getattr(m, key.removesuffix("_orig")) if is_pruned(m, key.removesuffix("_orig")) else m._parameters[key]
            if value is not None:
                zeros, total = zeros + int((value.detach() == 0).sum().item()), total + value.size
    return zeros / total if total else 0.0
