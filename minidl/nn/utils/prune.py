"""Pruning, as torch.nn.utils.prune: a parameter becomes `name_orig` under a buffer `name_mask`, and `name` their product.

A method is a class whose compute_mask says what stays; to write one, derive from BasePruningMethod. Promises: a mask stays through training (what is
masked gets no gradient), state_dict, jit and export until `remove`; pruning again works on what is left (so there is no PruningContainer); `amount`
counts as in torch: a fraction of it, or a number. Of equal scores the first ones go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import minidl as md
from minidl.nn.computed import compute, computed, restore
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured", "RandomStructured", "RandomUnstructured", "custom_from_mask",
    "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured", "random_structured", "random_unstructured", "remove",
    "sparsity",
]  # fmt: skip
Amount = int | float


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


# ---- how much ---------------------------------------------------------------------------------------------------------------------------
def _amount(name: str, amount: Amount) -> Amount:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"{name}: amount is a fraction (float) or a number (int), not {type(amount).__name__}")
    if amount < 0 or (isinstance(amount, float) and not amount <= 1.0):
        raise ValueError(f"{name}: amount {amount} is no fraction between 0 and 1, nor a number from 0 on")
    return amount


def _without(name: str, scores: md.Tensor, mask: md.Tensor, amount: Amount) -> md.Tensor:
    """A 1-d mask without the amount of lowest scores."""
    if isinstance(amount, int) and amount > scores.size:
        raise ValueError(f"{name}: amount {amount} is more than the {scores.size} that are left")
    n = amount if isinstance(amount, int) else round(amount * scores.size)
    return mask if n == 0 else mask.at[md.argsort(scores)[:n]].set(0.0)


def _parameter(name: str, module: Module, key: str) -> md.Tensor:
    found = module._parameters.get(key + "_orig" if is_pruned(module, key) else key)
    if found is None:
        have = ", ".join(module._parameters) or "none"
        raise AttributeError(f"{name}: {type(module).__name__} has no parameter {key!r}; it has {have}")
    return found.detach()


def _old_mask(module: Module, key: str, like: md.Tensor) -> md.Tensor:
    return module._buffers[key + "_mask"] if is_pruned(module, key) else md.ones_like(like)


def _put(module: Module, name: str, mask: md.Tensor) -> None:
    """Make this the mask of a parameter."""
    if is_pruned(module, name):
        module._buffers[name + "_mask"] = mask
        return
    for new in (name + "_orig", name + "_mask"):
        if hasattr(module, new):
            raise AttributeError(f"prune: {type(module).__name__} has an attribute {new!r} already")
    original = module._parameters.pop(name)
    module.register_parameter(name + "_orig", original)
    module.register_buffer(name + "_mask", mask)
    compute(module, name, Masked(name))


# ---- methods ----------------------------------------------------------------------------------------------------------------------------
class BasePruningMethod(ABC):
    """The base of what chooses: a class says in compute_mask which elements stay, and in PRUNING_TYPE of what it is asked.

    PRUNING_TYPE: "unstructured": the elements that are left, in one axis; "structured": the slices along `dim` that are left; "global": all. apply
    raises ValueError for another, and for importance_scores of another shape than the parameter's.

    >>> class Every(BasePruningMethod):
    ...     def __init__(self, step):
    ...         self.step = step
    ...     def compute_mask(self, t, default_mask):
    ...         return default_mask * (md.arange(t.size) % self.step != 0)
    >>> layer = md.nn.Linear(3, 2)
    >>> method = Every.apply(layer, "weight", step=2)
    >>> layer.weight_mask.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """

    PRUNING_TYPE: ClassVar[str] = "unstructured"
    dim: int = -1
    _tensor_name: str = ""

    @abstractmethod
    def compute_mask(self, t: md.Tensor, default_mask: md.Tensor) -> md.Tensor:
        """The mask for scores t (the values, unless importance_scores are given) where default_mask is the one so far; both of one shape."""

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: md.Tensor | None = None, **kwargs: Any) -> Any:
        """Prune a parameter by cls(*args, **kwargs), besides what is pruned already; returns that object.

        Raises AttributeError for a name that is no parameter and where name_orig or name_mask is taken, ValueError for importance_scores of another
        shape.
        """
        method = cls(*args, **kwargs)
        who, method._tensor_name = cls.__name__, name
        p = _parameter(who, module, name)
        if importance_scores is not None and importance_scores.shape != p.shape:
            raise ValueError(f"{who}: importance_scores of shape {importance_scores.shape} do not fit {name!r} of shape {p.shape}")
        mask = _old_mask(module, name, p)
        scores = p * mask if importance_scores is None else importance_scores.detach()
        _put(module, name, method._narrowed(scores, mask))
        return method

    def _narrowed(self, scores: md.Tensor, mask: md.Tensor) -> md.Tensor:
        """The mask after what this method takes of what is left."""
        if self.PRUNING_TYPE == "unstructured":
            flat = mask.reshape((-1,))
            left = md.nonzero(flat)[0]
            part = self.compute_mask(scores.reshape((-1,))[left], flat[left])
            return flat.at[left].set(part.to(mask.dtype)).reshape(mask.shape)
        if self.PRUNING_TYPE == "structured":
            dim = _axis(type(self).__name__, scores, self.dim)
            left = md.nonzero(md.any(mask != 0, axis=tuple(i for i in range(mask.ndim) if i != dim)))[0]
            part = self.compute_mask(md.take(scores, left, axis=dim), md.take(mask, left, axis=dim))
            return md.moveaxis(md.moveaxis(mask, dim, 0).at[left].set(md.moveaxis(part.to(mask.dtype), dim, 0)), 0, dim)
        if self.PRUNING_TYPE != "global":
            raise ValueError(f'{type(self).__name__}: PRUNING_TYPE is "unstructured", "structured" or "global", not {self.PRUNING_TYPE!r}')
        return self.compute_mask(scores, mask).to(mask.dtype)

    def apply_mask(self, module: Module) -> md.Tensor:
        """The pruned values of the parameter that this object was applied to."""
        return getattr(module, self._tensor_name)

    def prune(self, t: md.Tensor, default_mask: md.Tensor | None = None, importance_scores: md.Tensor | None = None) -> md.Tensor:
        """t under the mask that compute_mask gives for it, or for importance_scores.

        >>> L1Unstructured(2).prune(md.tensor([3.0, 1.0, 2.0, 4.0])).tolist()
        [3.0, 0.0, 0.0, 4.0]
        """
        mask = md.ones_like(t.detach()) if default_mask is None else default_mask
        return t * self.compute_mask((t if importance_scores is None else importance_scores).detach(), mask)

    def remove(self, module: Module) -> None:
        """Make the pruning of the parameter that this object was applied to permanent."""
        remove(module, self._tensor_name)


def _axis(name: str, t: md.Tensor, dim: int) -> int:
    if not -t.ndim <= dim < t.ndim or t.ndim < 2:
        raise ValueError(f"{name}: dim {dim} of shape {t.shape}: an axis of at least two is wanted")
    return dim % t.ndim


class Identity(BasePruningMethod):
    """A mask of ones, to be changed later.

    >>> Identity().prune(md.ones(2)).tolist()
    [1.0, 1.0]
    """

    def compute_mask(self, t: md.Tensor, default_mask: md.Tensor) -> md.Tensor:
        return default_mask


class CustomFromMask(BasePruningMethod):
    """A mask that is given. Raises ValueError where its shape is not the parameter's.

    >>> CustomFromMask(md.tensor([1.0, 0.0])).prune(md.tensor([2.0, 3.0])).tolist()
    [2.0, 0.0]
    """

    PRUNING_TYPE = "global"

    def __init__(self, mask: Any):
        self.mask = mask if isinstance(mask, md.Tensor) else md.asarray(mask)

    def compute_mask(self, t: md.Tensor, default_mask: md.Tensor) -> md.Tensor:
        if self.mask.shape != default_mask.shape:
            what = repr(self._tensor_name) if self._tensor_name else "a parameter"
            raise ValueError(f"CustomFromMask: a mask of shape {self.mask.shape} for {what} of shape {default_mask.shape}")
        return default_mask * self.mask.to(default_mask.dtype).to(backend=default_mask.backend, device=default_mask.device)


class _Unstructured(BasePruningMethod):
    def __init__(self, amount: Amount):
        self.amount = _amount(type(self).__name__, amount)

    def _scores(self, t: md.Tensor) -> md.Tensor:
        raise NotImplementedError

    def compute_mask(self, t: md.Tensor, default_mask: md.Tensor) -> md.Tensor:
        scores, mask = self._scores(t).reshape((-1,)), default_mask.reshape((-1,))
        return _without(type(self).__name__, scores, mask, self.amount).reshape(default_mask.shape)


class L1Unstructured(_Unstructured):
    """The elements of least size go. Raises TypeError for an amount that is no number, ValueError for one that is out of range.

    >>> layer = md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(layer, "weight")], md.nn.utils.prune.L1Unstructured, amount=0.5)
    >>> (layer.weight == 0.0).sum().item()
    8
    """

    def _scores(self, t: md.Tensor) -> md.Tensor:
        return md.abs(t)


class RandomUnstructured(_Unstructured):
    """Elements go by chance (md.manual_seed). Raises as L1Unstructured does.

    >>> layer = md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(layer, "weight")], md.nn.utils.prune.RandomUnstructured, amount=0.5)
    >>> (layer.weight == 0.0).sum().item()
    8
    """

    def _scores(self, t: md.Tensor) -> md.Tensor:
        return md.random.uniform(md.random.default_generator.next_key(like=t), t.shape)


class _Structured(BasePruningMethod):
    PRUNING_TYPE = "structured"
    amount: Amount

    def _scores(self, t: md.Tensor, rest: tuple[int, ...]) -> md.Tensor:
        raise NotImplementedError

    def compute_mask(self, t: md.Tensor, default_mask: md.Tensor) -> md.Tensor:
        name = type(self).__name__
        dim = _axis(name, t, self.dim)
        scores = self._scores(t, tuple(i for i in range(t.ndim) if i != dim))
        kept = _without(name, scores, md.ones_like(scores), self.amount).to(default_mask.dtype)
        return default_mask * kept.reshape(tuple(-1 if i == dim else 1 for i in range(t.ndim)))


class LnStructured(_Structured):
    """The slices along axis dim of least n-norm go. Raises as L1Unstructured does, and ValueError for an axis that there is not.

    >>> LnStructured(1, n=2, dim=0).prune(md.tensor([[1.0, 1.0], [2.0, 2.0]])).tolist()
    [[0.0, 0.0], [2.0, 2.0]]
    """

    def __init__(self, amount: Amount, n: float, dim: int = -1):
        self.amount, self.n, self.dim = _amount(type(self).__name__, amount), n, dim

    def _scores(self, t: md.Tensor, rest: tuple[int, ...]) -> md.Tensor:
        return md.linalg.vector_norm(t, axis=rest, ord=self.n)


class RandomStructured(_Structured):
    """Slices along axis dim go by chance. Raises as LnStructured does.

    >>> (RandomStructured(0.5, dim=0).prune(md.ones((4, 2))) == 0.0).all(axis=1).sum().item()
    2
    """

    def __init__(self, amount: Amount, dim: int = -1):
        self.amount, self.dim = _amount(type(self).__name__, amount), dim

    def _scores(self, t: md.Tensor, rest: tuple[int, ...]) -> md.Tensor:
        return md.random.uniform(md.random.default_generator.next_key(like=t), (t.shape[self.dim],))


# ---- as functions -----------------------------------------------------------------------------------------------------------------------
def custom_from_mask(module: Module, name: str, mask: Any) -> Module:
    """Prune a parameter by a mask of its shape (0 where it goes), besides what is pruned already; returns the module.

    Raises AttributeError for a name that is no parameter, ValueError for a mask of another shape.

    >>> from minidl import nn
    >>> layer = custom_from_mask(nn.Linear(2, 1, bias=False), "weight", md.tensor([[1.0, 0.0]]))
    >>> sorted(layer.state_dict()), layer.weight[0, 1].item() == 0
    (['weight_mask', 'weight_orig'], True)
    """
    CustomFromMask.apply(module, name, mask)
    return module


def identity(module: Module, name: str) -> Module:
    """A mask of ones, to be changed later; returns the module.

    Raises AttributeError for a name that is no parameter.

    >>> layer = md.nn.utils.prune.identity(md.nn.Linear(2, 2), "weight")
    >>> layer.weight_mask.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    Identity.apply(module, name)
    return module


def l1_unstructured(module: Module, name: str, amount: Amount, importance_scores: md.Tensor | None = None) -> Module:
    """Prune the elements of least size (or of least importance_scores, by their size); returns the module.

    amount: a fraction (float) or a number (int) of what is left. Raises AttributeError for a name that is no parameter, TypeError for an amount that
    is no number, ValueError for one that is out of range and for importance_scores of another shape.

    >>> from minidl import nn
    >>> layer = nn.Linear(4, 4)
    >>> float((l1_unstructured(layer, "weight", 0.5).weight == 0).sum())
    8.0
    """
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_unstructured(module: Module, name: str, amount: Amount) -> Module:
    """Prune elements by chance (md.manual_seed); returns the module.

    >>> layer = md.nn.utils.prune.random_unstructured(md.nn.Linear(4, 4), "weight", 4)
    >>> (layer.weight == 0.0).sum().item()
    4
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def ln_structured(
    module: Module, name: str, amount: Amount, n: float, dim: int, importance_scores: md.Tensor | None = None
) -> Module:
    """Prune whole slices along axis dim, those of least n-norm (or whose importance_scores have the least); returns the module.

    >>> from minidl import nn
    >>> layer = ln_structured(nn.Conv2d(1, 4, 3), "weight", amount=2, n=2, dim=0)
    >>> int((layer.weight_mask.sum(axis=(1, 2, 3)) == 0).sum())
    2
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Amount, dim: int) -> Module:
    """Prune whole slices along axis dim by chance; returns the module.

    >>> layer = md.nn.utils.prune.random_structured(md.nn.Linear(2, 4), "weight", 0.5, dim=0)
    >>> (layer.weight == 0.0).all(axis=1).sum().item()
    2
    """
    RandomStructured.apply(module, name, amount, dim)
    return module


def global_unstructured(
    parameters: Sequence[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: Mapping[tuple[Module, str], md.Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune the elements of least score among all these (module, name) together, by pruning_method(**kwargs), such as L1Unstructured with amount.

    amount: a fraction (float) or a number (int) of all that is left. importance_scores: {(module, name): what is scored instead of the values}.
    Raises AttributeError for a name that is no parameter, TypeError for a method that is not unstructured and an amount that is no number,
    ValueError for one that is out of range and for importance_scores of another shape.

    >>> a, b = md.nn.Linear(4, 4), md.nn.Linear(4, 4)
    >>> md.nn.utils.prune.global_unstructured([(a, "weight"), (b, "weight")], md.nn.utils.prune.L1Unstructured, amount=0.25)
    >>> (a.weight == 0.0).sum().item() + (b.weight == 0.0).sum().item()
    8
    """
    if pruning_method.PRUNING_TYPE != "unstructured":
        raise TypeError(f"global_unstructured: {pruning_method.__name__} is {pruning_method.PRUNING_TYPE}; an unstructured method is wanted")
    found = [_parameter("global_unstructured", m, n) for m, n in parameters]
    masks = [_old_mask(m, n, p) for (m, n), p in zip(parameters, found, strict=True)]
    scores = [(importance_scores or {}).get(pair, p) for pair, p in zip(parameters, found, strict=True)]
    for (_, name), p, score in zip(parameters, found, scores, strict=True):
        if score.shape != p.shape:
            raise ValueError(f"global_unstructured: importance_scores of shape {score.shape} do not fit {name!r} of shape {p.shape}")
    flat = [md.concat([x.detach().reshape((-1,)) for x in xs]) for xs in (scores, masks)]
    kept = pruning_method(**kwargs)._narrowed(*flat)
    start = 0
    for (module, name), p in zip(parameters, found, strict=True):
        _put(module, name, kept[start : start + p.size].reshape(p.shape))
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
