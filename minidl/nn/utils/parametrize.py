"""Parameters that are computed from others, with the names of torch.nn.utils.parametrize.

A parametrized weight is computed at every reading; what is trained stands under "parametrizations.weight.original" in the state_dict, as in PyTorch.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import minidl as md
from minidl.nn.computed import compute, computed, plain, restore
from minidl.nn.containers import ModuleDict, ModuleList
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations", "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]  # fmt: skip
#: What readings gave since `cached` was entered, and what tensors were a part of then: a backend, or the trace or vmap level.
_cache: contextvars.ContextVar[tuple[Any, dict[Any, tuple[Any, Any]]] | None] = contextvars.ContextVar("cache", default=None)


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """In this block a parametrized weight is computed at its first reading, and kept: for weights that are read often in one forward, such as an
    RNN's. What is read with gradients and without is kept apart; a program that is traced inside the block computes for itself.

    >>> layer = md.nn.utils.parametrizations.weight_norm(md.nn.Linear(2, 2))
    >>> with cached():
    ...     layer.weight is layer.weight
    True
    >>> layer.weight is layer.weight
    False
    """
    if _cache.get() is not None:
        yield
        return
    token = _cache.set((md.zeros(()).xp, {}))
    try:
        yield
    finally:
        _cache.reset(token)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in order, and what they start from: original, or original0, original1, …

    The right_inverse of each, the last one's first, says what gives the value of now; one tensor of the same shape and dtype takes the place of that
    value in the very object, so an optimizer that has it goes on with it. unsafe: do not check that shape and dtype stay. Raises ValueError for a
    result of another shape or dtype (then nothing is changed), and for no parametrization. The method right_inverse raises RuntimeError for a
    parametrization that has none, ValueError for originals of another number, shape or dtype.

    >>> list(ParametrizationList([md.nn.ReLU()], md.nn.Parameter(md.ones(2))).state_dict())
    ['original']
    """

    def __init__(self, modules: Sequence[Module], original: md.Tensor, unsafe: bool = False):
        if not len(modules):
            raise ValueError("ParametrizationList: one or more parametrizations are wanted")
        super().__init__(modules)
        trained, found = isinstance(original, Parameter), _inverse(modules, original.detach())
        self.is_tensor, parts = isinstance(found, md.Tensor), _parts(found)
        self.ntensors = len(parts)
        if not unsafe:
            with md.no_grad():
                _check(original, self._value(parts))
        if self.is_tensor and (found.shape, found.dtype) == (original.shape, original.dtype):
            with md.no_grad():
                original.assign(found)
            (self._parameters if trained else self._buffers)["original"] = original
            return
        for name, value in zip(self._names(), parts, strict=True):
            if trained:
                self.register_parameter(name, Parameter(value, original.requires_grad))
            else:
                self.register_buffer(name, value)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def forward(self) -> Any:
        """The value of now."""
        return self._value(tuple(getattr(self, name) for name in self._names()))

    def _value(self, parts: tuple[Any, ...]) -> Any:
        first, *rest = self
        x = first(*parts)
        for module in rest:
            x = module(x)
        return x

    def right_inverse(self, value: md.Tensor) -> None:
        """Assign to the originals what gives this value: the right_inverse of each parametrization, the last one's first.

        Where it raises, nothing is changed.
        """
        found: Any = value.detach()
        with md.no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"right_inverse: parametrization {type(module).__name__} has no right_inverse; assign the original instead")
                found = module.right_inverse(found)
            parts, held = _parts(found), [getattr(self, name) for name in self._names()]
            if [(p.shape, p.dtype) for p in parts] != [(h.shape, h.dtype) for h in held]:
                came, wanted = (", ".join(f"{t.shape} ({t.dtype.name})" for t in ts) for ts in (parts, held))
                raise ValueError(f"right_inverse: the value gives originals of shape {came}; {wanted} is wanted")
            for original, part in zip(held, parts, strict=True):
                original.assign(part)


class _Reading:
    """Computes one parametrized attribute of a module (a class, so that modules can be pickled)."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, module: Module) -> Any:
        held = module.parametrizations[self.name]
        kept = _cache.get()
        if kept is None:
            return held()
        level, values = kept
        if md.zeros(()).xp is not level:
            return held()
        key = (id(held), md.is_grad_enabled())
        if key not in values:
            values[key] = (held, held())  # held is kept, so that no other object takes its number
        return values[key][1]

    def assign(self, module: Module, value: Any) -> None:
        """Change the originals so that the value is this one."""
        who = f"{type(module).__name__}: cannot assign to {self.name!r}, which is parametrized"
        if not isinstance(value, md.Tensor):
            raise TypeError(f"{who}: a Tensor is wanted, not {type(value).__name__}")
        held = module.parametrizations[self.name]
        try:
            held.right_inverse(value)
        except (RuntimeError, ValueError) as error:
            by = ", ".join(type(m).__name__ for m in held)
            raise type(error)(f"{who} by {by}: {error}") from error


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrizations, or one of that name.

    >>> is_parametrized(md.nn.Linear(2, 2))
    False
    """
    held = module._modules.get("parametrizations")
    return held is not None and (len(held) > 0 if tensor_name is None else tensor_name in held)


def _inverse(modules: Sequence[Module], value: md.Tensor) -> Any:
    """The original, or tuple of them, that gives a value; the value itself where a parametrization has no right_inverse."""
    found: Any = value
    with md.no_grad():
        for module in reversed(modules):
            with contextlib.suppress(NotImplementedError):
                found = module.right_inverse(found) if hasattr(module, "right_inverse") else found
    return found


def _parts(found: Any) -> tuple[Any, ...]:
    """What a right_inverse gave, as a tuple."""
    parts = found if isinstance(found, (tuple, list)) else (found,)
    if not parts or not all(isinstance(part, md.Tensor) for part in parts):
        raise ValueError(f"right_inverse: a Tensor, or a tuple or list of them, is wanted, not {found!r}")
    return tuple(parts)


def _check(value: md.Tensor, found: Any) -> None:
    if not isinstance(found, md.Tensor):
        raise ValueError(f"register_parametrization: a parametrization gives a Tensor, not {type(found).__name__}")
    if found.shape != value.shape or found.dtype is not value.dtype:
        raise ValueError(
            f"register_parametrization: a tensor of shape {value.shape} ({value.dtype.name}) becomes {found.shape} ({found.dtype.name}); "
            "say unsafe=True if that is meant"
        )


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> Module:
    """Let a parameter or buffer be parametrization(original) from now on; several are applied in order. Returns the module.

    parametrization: a Module; with right_inverse(value) it says which original, or tuple of them, gives the value of now, and otherwise the original
    is that value; assigning to the name goes the same way. A second one is applied to what the first gives, whose original stays. It trains or
    evaluates as the module does. unsafe: do not check that shape and dtype stay. One original of the parameter's shape and dtype is that Parameter;
    for others make the optimizer afterwards. Raises TypeError for what is no Module, ValueError for a name that is no parameter or buffer, and for a
    result of another shape or dtype.

    >>> class Symmetric(md.nn.Module):
    ...     def forward(self, x):
    ...         return md.triu(x) + md.triu(x, k=1).T
    >>> layer = register_parametrization(md.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool(md.all(layer.weight == layer.weight.T)), [name for name, _ in layer.named_parameters()]
    (True, ['bias', 'parametrizations.weight.original'])
    """
    if not isinstance(parametrization, Module):
        raise TypeError(f"register_parametrization: a parametrization is an nn.Module, not {type(parametrization).__name__}")
    if is_parametrized(module, tensor_name):
        parametrization.train(module.training)
        if not unsafe:
            with md.no_grad():
                value = getattr(module, tensor_name)
                found = parametrization(value)
            _check(value, found)
            _check(value, _inverse([parametrization], found))
        module.parametrizations[tensor_name].append(parametrization)
        return module
    holder = next((h for h in (module._parameters, module._buffers) if h.get(tensor_name) is not None), None)
    if holder is None:
        raise ValueError(f"register_parametrization: {type(module).__name__} has no parameter or buffer {tensor_name!r}")
    parametrization.train(module.training)
    _hold(module, tensor_name, ParametrizationList([parametrization], holder[tensor_name], unsafe))
    return module


def _hold(module: Module, name: str, held: ParametrizationList) -> None:
    """Compute a parameter or buffer from now on by what is held."""
    if "parametrizations" not in module._modules:
        module.parametrizations = ModuleDict()
    module.parametrizations[name] = held
    for holder in (module._parameters, module._buffers):
        holder.pop(name, None)
    compute(module, name, _Reading(name))


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrized attribute a plain parameter or buffer again, with the value of now, or (leave_parametrized=False) its original. Returns the
    module. A single original of the value's shape and dtype is that parameter, so an optimizer goes on with it; for others make it afterwards.

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
        if held.is_tensor and (value.shape, value.dtype) == (held.original.shape, held.original.dtype):
            held.original.assign(value)
            value = held.original
    trained = any(p.requires_grad for p in held._parameters.values())
    restore(module, tensor_name)
    del module.parametrizations[tensor_name]
    if held._parameters:
        module.register_parameter(tensor_name, value if isinstance(value, Parameter) else Parameter(value, trained))
    else:
        module.register_buffer(tensor_name, value)
    if not len(module.parametrizations) and not any(isinstance(f, _Reading) for f in computed(module).values()):
        del module.parametrizations
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of a module, whether or not some of its attributes are computed.

    >>> type_before_parametrizations(md.nn.utils.parametrizations.weight_norm(md.nn.Linear(2, 2))) is md.nn.Linear
    True
    """
    return plain(module)


def transfer_parametrizations_and_params(from_module: Module, to_module: Module, tensor_name: str | None = None) -> Module:
    """Let to_module have the parametrizations of from_module, of all names or of one, and share the originals; what it has not got, it gets. Returns
    to_module. Without parametrizations nothing happens. Raises KeyError for a name that has none.

    >>> first, second = md.nn.utils.parametrizations.weight_norm(md.nn.Linear(2, 2)), md.nn.Linear(2, 2)
    >>> transfer_parametrizations_and_params(first, second).weight.tolist() == first.weight.tolist()
    True
    """
    if not is_parametrized(from_module):
        return to_module
    for name in list(from_module.parametrizations) if tensor_name is None else [tensor_name]:
        if name not in from_module.parametrizations:
            raise KeyError(f"transfer_parametrizations_and_params: {name!r} of {plain(from_module).__name__} is not parametrized")
        held = from_module.parametrizations[name]
        if is_parametrized(to_module, name):
            to_module.parametrizations[name].extend(held)
            for key in held._names():
                setattr(to_module.parametrizations[name], key, getattr(held, key))
        else:  # not by registering, which would ask the shared parametrizations for what gives to_module's own value
            twin = copy.copy(held)
            for kind in ("_modules", "_parameters", "_buffers"):
                object.__setattr__(twin, kind, dict(getattr(held, kind)))
            _hold(to_module, name, twin)
    return to_module
