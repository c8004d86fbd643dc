"""Parameters that are computed from others, with the names of torch.nn.utils.parametrize.

A parametrized weight is computed at every reading; what is trained stands under "parametrizations.weight.original" in the state_dict, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.computed import compute, computed, restore
from minidl.nn.containers import ModuleDict, ModuleList
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = ["ParametrizationList", "is_parametrized", "register_parametrization", "remove_parametrizations"]


class ParametrizationList(ModuleList):
    """The parametrizations of one parameter, applied in order, and what they start from: original, or original0, original1, …

    >>> list(ParametrizationList([md.nn.ReLU()], md.ones(2), True).state_dict())
    ['original']
    """

    def __init__(self, modules: Any, original: Any, trained: bool):
        super().__init__(modules)
        self.is_tensor = isinstance(original, md.Tensor)
        self.ntensors = 1 if self.is_tensor else len(original)
        for name, value in zip(self._names(), (original,) if self.is_tensor else original, strict=True):
            if trained:
                self.register_parameter(name, Parameter(value))
            else:
                self.register_buffer(name, value.detach())

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def forward(self) -> Any:
        """The value of now."""
        x = self[0](*(getattr(self, name) for name in self._names()))
        for module in list(self)[1:]:
            x = module(x)
        return x


class _Reading:
    """Computes one parametrized attribute of a module (a class, so that modules can be pickled)."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, module: Module) -> Any:
        return module.parametrizations[self.name]()


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrizations, or one of that name.

    >>> is_parametrized(md.nn.Linear(2, 2))
    False
    """
    held = module._modules.get("parametrizations")
    return held is not None and (len(held) > 0 if tensor_name is None else tensor_name in held)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Let a parameter or buffer be parametrization(original) from now on; several are applied in order. Returns the module.

    parametrization: a Module; with right_inverse(value) it says which original, or tuple of them, gives the value of now, and otherwise the original
    is that value. unsafe: do not check that the shape stays. Make the optimizer afterwards. Raises ValueError for a name that is no parameter or
    buffer, and for a result of another shape.

    >>> class Symmetric(md.nn.Module):
    ...     def forward(self, x):
    ...         return md.triu(x) + md.triu(x, k=1).T
    >>> layer = register_parametrization(md.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool(md.all(layer.weight == layer.weight.T)), [name for name, _ in layer.named_parameters()]
    (True, ['bias', 'parametrizations.weight.original'])
    """
    if is_parametrized(module, tensor_name):
        held = module.parametrizations[tensor_name]
        if held.ntensors > 1 or hasattr(parametrization, "right_inverse"):
            raise ValueError("register_parametrization: one that has an inverse, or takes several tensors, comes first")
        held.append(parametrization)
        return module
    holder = next((h for h in (module._parameters, module._buffers) if h.get(tensor_name) is not None), None)
    if holder is None:
        raise ValueError(f"register_parametrization: {type(module).__name__} has no parameter or buffer {tensor_name!r}")
    value = holder[tensor_name]
    with md.no_grad():
        original = parametrization.right_inverse(value.detach()) if hasattr(parametrization, "right_inverse") else value.detach()
        parts = (original,) if isinstance(original, md.Tensor) else tuple(original)
        found = parametrization(*parts)
        if not unsafe and (found.shape != value.shape or found.dtype is not value.dtype):
            raise ValueError(
                f"register_parametrization: {tensor_name} of shape {value.shape} ({value.dtype.name}) becomes {found.shape} ({found.dtype.name}); "
                "say unsafe=True if that is meant"
            )
    held = ParametrizationList([parametrization], original, isinstance(value, Parameter))
    if isinstance(value, Parameter):
        held.requires_grad_(value.requires_grad)
    if "parametrizations" not in module._modules:
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = held
    del holder[tensor_name]
    compute(module, tensor_name, _Reading(tensor_name))
    return module


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrized attribute a plain parameter again, with the value of now, or (leave_parametrized=False) its original. Returns the module.

    Raises ValueError where there is none, and for several originals that should be left.

    >>> layer = md.nn.utils.parametrizations.weight_norm(md.nn.Linear(2, 2))
    >>> [name for name, _ in remove_parametrizations(layer, "weight").named_parameters()]
    ['bias', 'weight']
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"remove_parametrizations: {tensor_name!r} of {type(module).__name__} is not parametrized")
    held = module.parametrizations[tensor_name]
    if not leave_parametrized and not held.is_tensor:
        raise ValueError("remove_parametrizations: several originals cannot be left in the place of one")
    with md.no_grad():
        value = (getattr(module, tensor_name) if leave_parametrized else held.original).detach()
    trained = any(p.requires_grad for p in held._parameters.values())
    restore(module, tensor_name)
    del module.parametrizations[tensor_name]
    if held._parameters:
        module.register_parameter(tensor_name, Parameter(value, trained))
    else:
        module.register_buffer(tensor_name, value)
    if not len(module.parametrizations) and not any(isinstance(f, _Reading) for f in computed(module).values()):
        del module.parametrizations
    return module
