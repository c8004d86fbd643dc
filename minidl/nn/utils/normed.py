"""Weight and spectral normalisation with the names that torch.nn.utils gave them first; many published weights have their state_dict keys.

parametrizations.weight_norm and spectral_norm are newer: there a weight can be assigned. Here, as there, it is computed at every reading, so it
follows its parts at once, where PyTorch computes it before each forward.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.computed import compute, computed, restore
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.nn.utils.parametrizations import as_matrix, outputs_axis, unit, weight_size

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


def _take(who: str, module: Module, name: str, parts: str) -> md.Tensor:
    """The values of a parameter that gives up its name to parts, whose names must be free."""
    found = module._parameters.get(name)
    if found is None:
        raise ValueError(f"{who}: {type(module).__name__} has no parameter {name!r}; it has {', '.join(module._parameters) or 'none'}")
    for part in parts.split():
        if hasattr(module, f"{name}_{part}"):
            raise ValueError(f"{who}: {type(module).__name__} has an attribute '{name}_{part}' already")
    return found.detach()


def _give(who: str, module: Module, name: str, kind: type, parts: tuple[str, ...]) -> Module:
    """The parameter of now in the place of what it was computed from."""
    if not isinstance(computed(module).get(name), kind):
        raise ValueError(f"{who}: {name!r} of {type(module).__name__} is not normalised so")
    value = getattr(module, name).detach()
    restore(module, name)
    for part in parts:
        delattr(module, f"{name}_{part}")
    module.register_parameter(name, Parameter(value))
    return module


# ---- size and direction -----------------------------------------------------------------------------------------------------------------
class _Weight:
    """size / |direction| * direction."""

    def __init__(self, name: str, dim: int | None):
        self.name, self.dim = name, dim

    def __call__(self, module: Module) -> md.Tensor:
        g, v = getattr(module, self.name + "_g"), getattr(module, self.name + "_v")
        return v * (g / weight_size(v, self.dim))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """A weight as its size `name_g` times its direction `name_v`, for each index of axis dim (None: one for all) (T. Salimans and D. Kingma, NeurIPS
    2016). Returns the module. Make the optimizer afterwards. Raises ValueError for a name that is no parameter, and where name_g or name_v is taken.

    >>> list(md.nn.utils.weight_norm(md.nn.Linear(2, 3)).state_dict())
    ['bias', 'weight_g', 'weight_v']
    """
    weight = _take("weight_norm", module, name, "g v")
    dim = None if dim == -1 else dim
    size = weight_size(weight, dim)
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(size))
    module.register_parameter(name + "_v", Parameter(weight))
    compute(module, name, _Weight(name, dim))
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make a weight that weight_norm split a parameter again, with the value of now; returns the module. Raises ValueError for one that is not.

    >>> list(remove_weight_norm(weight_norm(md.nn.Linear(2, 3))).state_dict())
    ['bias', 'weight']
    """
    return _give("remove_weight_norm", module, name, _Weight, ("g", "v"))


# ---- the largest singular value ---------------------------------------------------------------------------------------------------------
class _Spectral:
    """The weight over uᵀ W v; called before each forward in training, it brings u and v closer to the singular vectors."""

    def __init__(self, name: str, dim: int, times: int, eps: float):
        self.name, self.dim, self.times, self.eps = name, dim, times, eps

    def __call__(self, module: Module) -> md.Tensor:
        weight = getattr(module, self.name + "_orig")
        u, v = (getattr(module, f"{self.name}_{k}").detach() for k in "uv")
        return weight / md.sum(u * md.matmul(as_matrix(weight, self.dim), v))

    def iterate(self, module: Module, args: Any) -> None:
        """A forward pre-hook."""
        if not module.training:
            return
        with md.no_grad():
            u, v = (getattr(module, f"{self.name}_{k}") for k in "uv")
            matrix, left, right = as_matrix(getattr(module, self.name + "_orig").detach(), self.dim), u, v
            for _ in range(self.times):
                right = unit(md.matmul(matrix.T, left), self.eps)
                left = unit(md.matmul(matrix, right), self.eps)
            u.assign(left)
            v.assign(right)


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None) -> Module:
    """A weight `name_orig` over its largest singular value, which power iteration follows before each forward in training, with the buffers `name_u`
    and `name_v` (T. Miyato et al., ICLR 2018). dim: the axis of outputs (1 for transposed convolutions, else 0). Returns the module. Make the
    optimizer afterwards.

    Raises ValueError for a name that is no parameter, where one of the new names is taken, and for n_power_iterations below 1.

    >>> list(md.nn.utils.spectral_norm(md.nn.Linear(2, 3)).state_dict())
    ['bias', 'weight_orig', 'weight_u', 'weight_v']
    """
    weight = _take("spectral_norm", module, name, "orig u v")
    if n_power_iterations < 1:
        raise ValueError(f"spectral_norm: n_power_iterations is 1 or more, not {n_power_iterations}")
    if dim is None:
        dim = outputs_axis(module)
    function = _Spectral(name, dim, n_power_iterations, eps)
    drawn = []
    for size in as_matrix(weight, dim).shape:
        key = md.random.default_generator.next_key(like=weight)
        drawn.append(unit(md.random.normal(key, (size,), weight.dtype), eps))
    module.register_parameter(name + "_orig", module._parameters.pop(name))
    for k, vector in zip("uv", drawn, strict=True):
        module.register_buffer(f"{name}_{k}", vector)
    compute(module, name, function)
    module.register_forward_pre_hook(function.iterate)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make a weight that spectral_norm divides a parameter again, with the value of now; returns the module. Raises ValueError for one that is not.

    >>> list(remove_spectral_norm(spectral_norm(md.nn.Linear(2, 3))).state_dict())
    ['bias', 'weight']
    """
    function = computed(module).get(name)
    module = _give("remove_spectral_norm", module, name, _Spectral, ("u", "v", "orig"))
    hooks = {} if module._hooks is None else module._hooks.by_number
    for number, (_, hook) in list(hooks.items()):
        if getattr(hook, "__self__", None) is function:
            del hooks[number]
    return module
