"""Module: parameters, buffers and sub-modules under names, as in PyTorch; and a pytree, as in JAX.

Promises: `_parameters`, `_buffers`, `_modules` and `training` are plain attributes of every Module (jit guards what it reads of them); names and
the order of state_dict are PyTorch's. As a pytree a Module's leaves are its parameters. Everything else, buffers by identity, is its structure,
so that a function of a Module differentiates with respect to what is trained, and running statistics that it updates are the Module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import minidl as md
from minidl.nn.parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What load_state_dict(strict=False) did not find, and what it could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of all layers and networks: set Parameters and Modules as attributes in __init__, and write forward.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         super(Scale, self).__init__()
    ...         self.factor = Parameter(md.tensor([2.0]))
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> Scale()(md.tensor([3.0])).tolist()
    [6.0]
    """

    __minidl_state__ = ("forward",)  # the methods that jit looks into

    training: bool
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]

    def __init__(self) -> None:
        for name, value in (("training", True), ("_parameters", {}), ("_buffers", {}), ("_modules", {}), ("_transient", set())):
            object.__setattr__(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f'{type(self).__name__} is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # ---- attributes -------------------------------------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        kind = "_parameters" if isinstance(value, Parameter) else "_modules" if isinstance(value, Module) else None
        if kind is None:
            for holder in ("_parameters", "_modules", "_buffers"):
                if name in own.get(holder, ()):
                    wanted = {"_parameters": "nn.Parameter", "_modules": "nn.Module", "_buffers": "Tensor"}[holder]
                    if value is not None and not (holder == "_buffers" and isinstance(value, md.Tensor)):
                        raise TypeError(f"cannot assign {type(value).__name__} to {name!r}: {wanted} or None is wanted; delete the attribute first")
                    own[holder][name] = value
                    return
            object.__setattr__(self, name, value)
            return
        if kind not in own:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        for holder in ("_parameters", "_modules", "_buffers"):
            if holder != kind:
                own[holder].pop(name, None)
        own.pop(name, None)
        own[kind][name] = value

    def __getattr__(self, name: str) -> Any:
        for holder in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(holder, ())
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for holder in (self._parameters, self._buffers, self._modules):
            if name in holder:
                del holder[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None holds the place of one that is switched off."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: {name!r} must be an nn.Parameter or None, not {type(param).__name__}")
        self.__dict__.pop(name, None)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add a Tensor that is state but not trained; persistent=False leaves it out of state_dict."""
        if tensor is not None and not isinstance(tensor, md.Tensor):
            raise TypeError(f"register_buffer: {name!r} must be a Tensor or None, not {type(tensor).__name__}")
        self.__dict__.pop(name, None)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under a name (used by containers whose children are numbered)."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: {name!r} must be a Module, not {type(module).__name__}")
        self._modules[name] = module

    # ---- walks ------------------------------------------------------------------------------------------------------------------------
    def named_modules(self, prefix: str = "", remove_duplicate: bool = True, _seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module and all below it, outermost first."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        if remove_duplicate:
            seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, remove_duplicate, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """The direct children."""
        return (m for _, m in self.named_children())

    def _named(self, holder: str, prefix: str, recurse: bool, remove_duplicate: bool, transient: bool = True) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in getattr(module, holder).items():
                if value is None or (remove_duplicate and id(value) in seen) or not (transient or name not in module._transient):
                    continue
                seen.add(id(value))
                yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each parameter once."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, for an optimizer."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, md.Tensor]]:
        """(dotted name, buffer)."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[md.Tensor]:
        """The buffers, such as running statistics."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module of that dotted name ("" is this one). Raises AttributeError where the path ends."""
        found: Any = self
        for part in filter(None, target.split(".")):
            found = getattr(found, part)
        return found

    # ---- modes ------------------------------------------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Module:
        """Set training mode here and below (dropout drops, batch norm uses the batch); returns self."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        """Set evaluation mode here and below; returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Switch gradients of all parameters on or off; returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for p in self.parameters():
            if p.grad is not None:
                p.grad = None if set_to_none else md.zeros_like(p.grad)

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call fn on every module, innermost first (for initialisation); returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, *args: Any, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Module:
        """Move parameters and buffers to a dtype (float ones only), backend or device, in place; returns self.

        A Tensor never changes its dtype or place, so a parameter that moves is a new Parameter: make the optimizer afterwards.
        """
        places: tuple[str, ...] = ()
        for a in args:
            if isinstance(a, str):
                places = (*places, a)
            else:
                dtype = a
        kwargs = {k: v for k, v in (("backend", backend), ("device", device)) if v is not None}
        done: dict[int, Any] = {}
        for module in self.modules():
            for holder in (module._parameters, module._buffers):
                for name, old in holder.items():
                    if old is not None:
                        if id(old) not in done:
                            done[id(old)] = _moved(old, dtype, places, kwargs)
                        holder[name] = done[id(old)]
        return self

    def float(self) -> Module:
        """Float parameters and buffers to float32."""
        return self.to(dtype=md.float32)

    def double(self) -> Module:
        """Float parameters and buffers to float64."""
        return self.to(dtype=md.float64)

    # ---- state ------------------------------------------------------------------------------------------------------------------------
    def state_dict(self, prefix: str = "") -> dict[str, md.Tensor]:
        """Parameters and persistent buffers by dotted name: the values of now, which later training does not change."""
        out: dict[str, md.Tensor] = {}
        for path, module in self.named_modules(prefix.rstrip("."), remove_duplicate=False):
            for holder in ("_parameters", "_buffers"):
                for name, value in module._named(holder, path, False, False, transient=False):
                    out[name] = value.detach()
        return out

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Take over values by name, each converted to the dtype and backend of the one it replaces. Values may be NumPy arrays.

        Raises RuntimeError that lists every missing and unexpected name (unless strict=False) and every wrong shape; then nothing is changed.
        """
        own: dict[str, Any] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for holder in ("_parameters", "_buffers"):
                own.update(module._named(holder, path, False, False, transient=False))
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        problems = []
        if strict and unexpected:
            problems.append("Unexpected key(s) in state_dict: " + ", ".join(f'"{k}"' for k in unexpected) + ".")
        if strict and missing:
            problems.append("Missing key(s) in state_dict: " + ", ".join(f'"{k}"' for k in missing) + ".")
        new = {k: v if isinstance(v, md.Tensor) else md.asarray(v) for k, v in state_dict.items() if k in own}
        for k, v in new.items():
            if v.shape != own[k].shape:
                problems.append(f"size mismatch for {k}: the state has {v.shape}, the module {own[k].shape}.")
        if problems:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(problems))
        with md.no_grad():
            for k, v in new.items():
                own[k].assign(v.detach().to(dtype=own[k].dtype, backend=own[k].backend, device=own[k].device))
        return IncompatibleKeys(missing, unexpected)

    # ---- print ------------------------------------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What stands in the parentheses of the printed module; layers say their sizes here."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        if not lines:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}(" + "\n  ".join(["", *([extra] if extra else []), *lines]) + "\n)"

    # ---- pickling: what __init__ made is restored as it was ---------------------------------------------------------------------------
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _moved(old: md.Tensor, dtype: Any, places: tuple[str, ...], kwargs: dict[str, str]) -> md.Tensor:
    def move(t: md.Tensor) -> md.Tensor:
        t = t.detach()
        if dtype is not None and t.dtype.inexact:
            t = t.to(dtype)
        for place in places:
            t = t.to(place)
        return t.to(**kwargs) if kwargs else t

    new = move(old)
    if new.dtype is old.dtype and new.backend == old.backend and new.device == old.device:
        return old
    if not isinstance(old, Parameter):
        return new
    moved = Parameter(new, old.requires_grad)
    if old.grad is not None:
        moved.grad = move(old.grad)
    return moved


# ---- a Module as a pytree ---------------------------------------------------------------------------------------------------------------
_STATE = ("_parameters", "_buffers", "_modules", "_transient")


class _Blueprint:
    """Everything of a module tree but the parameters' values: enough to build it again, compared by value."""

    __slots__ = ("key", "modules", "slots")

    def __init__(self, modules: list[dict[str, Any]], slots: tuple, key: tuple):
        self.modules, self.slots, self.key = modules, slots, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blueprint) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return self.modules[0]["class"].__name__


class _Same:
    """An object that equals only itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _frozen(value: Any) -> Any:
    """A hashable stand-in: plain data by value and type, anything else by identity."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, type)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return dict, tuple((_frozen(k), _frozen(v)) for k, v in value.items())
    return _Same(value)


def _flatten(module: Module) -> tuple[list[Any], _Blueprint]:
    tree = list(module.modules())
    number = {id(m): i for i, m in enumerate(tree)}
    leaves: list[Any] = []
    place: dict[int, int] = {}
    slots, key, parts = [], [], []
    for i, m in enumerate(tree):
        for name, p in m._parameters.items():
            if p is not None:
                if id(p) not in place:
                    place[id(p)] = len(leaves)
                    leaves.append(p)
                slots.append((i, name, place[id(p)]))
        plain = {k: v for k, v in m.__dict__.items() if k not in _STATE}
        children = {k: None if c is None else number[id(c)] for k, c in m._modules.items()}
        parts.append({"class": type(m), "plain": plain, "children": children, "parameters": tuple(m._parameters),
                      "buffers": dict(m._buffers), "transient": set(m._transient)})  # fmt: skip
        key.append((type(m), _frozen(plain), tuple(children.items()), tuple(m._parameters), _frozen(m._buffers)))
    return leaves, _Blueprint(parts, tuple(slots), (tuple(key), tuple(slots)))


def _unflatten(plan: _Blueprint, leaves: Any) -> Module:
    leaves = list(leaves)
    tree: list[Module] = []
    for part in plan.modules:
        m = object.__new__(part["class"])
        m.__dict__.update(part["plain"])
        m.__dict__.update(_parameters=dict.fromkeys(part["parameters"]), _buffers=dict(part["buffers"]), _transient=set(part["transient"]))
        tree.append(m)
    for m, part in zip(tree, plan.modules, strict=True):
        m.__dict__["_modules"] = {k: None if c is None else tree[c] for k, c in part["children"].items()}
    for i, name, place in plan.slots:
        tree[i]._parameters[name] = leaves[place]
    return tree[0]


md.tree.register(Module, _flatten, _unflatten)
