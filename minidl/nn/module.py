"""Module: parameters, buffers and sub-modules under names, as in PyTorch; and a pytree, as in JAX.

Promises: `_parameters`, `_buffers`, `_modules` and `training` are plain attributes of every Module (jit guards what it reads of them); names and
the order of state_dict are PyTorch's. As a pytree a Module's leaves are its parameters. Everything else, buffers by identity, is its structure,
so that a function of a Module differentiates with respect to what is trained, and running statistics that it updates are the Module's own
(`pytrees` registers this). What is saved and loaded is in `state`. Where a layer of minidl's own fails, and not before, its arguments are
compared with the annotations of its constructor or forward, and the error names the layer and the argument, also where a subclass of the user's
called it (super().forward); what a Module of the user's raises passes as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import minidl as md
from minidl.nn.hooks import Hook, Hooks, RemovableHandle
from minidl.nn.parameter import Buffer, Parameter, uninitialized
from minidl.nn.state import State


def _named(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor of minidl's own that says which argument it cannot take."""

    @functools.wraps(init)
    def __init__(self: Module, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except Exception as error:
            wrong = md.explained(_layer(self), init.__get__(self), error, args, kwargs, made=True)
            if wrong is error:
                raise
            raise wrong from wrong.__cause__

    return __init__


def _layer(module: Module) -> str:
    """The name of the class of minidl's that a module is, or that it derives from."""
    return next(c.__name__ for c in type(module).__mro__ if c.__module__.startswith("minidl."))


def _explain_inherited(module: Module, error: Exception) -> None:
    """Raise what explains an accident in the forward of a class of minidl's, which the forward of a subclass of the user's called (super().forward):
    with the user's lines in its traceback. Returns where there is nothing to explain."""
    whole = tb = error.__traceback__
    while tb is not None:
        frame = tb.tb_frame
        if frame.f_code.co_name == "forward" and frame.f_locals.get("self") is module and str(frame.f_globals.get("__name__")).startswith("minidl."):
            break
        tb = tb.tb_next
    if tb is None:
        return
    kind = next((c for c in type(module).__mro__ if getattr(c.__dict__.get("forward"), "__code__", None) is tb.tb_frame.f_code), None)
    forward = kind.__dict__["forward"].__get__(module) if kind is not None else module.forward
    parameters = inspect.signature(forward).parameters
    if kind is None or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters.values()):
        return
    given = {name: tb.tb_frame.f_locals[name] for name in parameters}
    wrong = md.explained(kind.__name__, forward, error.with_traceback(tb), (), given)
    error.__traceback__ = whole
    if wrong is not error:
        raise wrong.with_traceback(whole) from wrong.__cause__


class Module(State):
    """The base of all layers and networks: set Parameters and Modules as attributes in __init__, and write forward.

    Raises NotImplementedError when it is called without a forward, AttributeError for an attribute that is not there and for a Parameter, Buffer or
    Module that is assigned before super().__init__(), and TypeError when the name of one of these is given something of another kind.

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
    _hooks: Hooks | None = None  # an attribute of the instance from the first hook on, so that modules without any pay nothing

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("minidl.") and "__init__" in cls.__dict__:
            cls.__init__ = _named(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        for name, value in (("training", True), ("_parameters", {}), ("_buffers", {}), ("_modules", {}), ("_transient", set())):
            object.__setattr__(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses define it."""
        raise NotImplementedError(f'{type(self).__name__} is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooks = self._hooks
        try:
            return self.forward(*args, **kwargs) if hooks is None else hooks.call(self, args, kwargs)
        except Exception as error:
            if not str(getattr(self.forward, "__module__", "")).startswith("minidl."):
                _explain_inherited(self, error)
                raise
            wrong = md.explained(_layer(self), self.forward, error, args, kwargs)
            if wrong is error:
                raise
            raise wrong from wrong.__cause__

    # ---- attributes -------------------------------------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if isinstance(value, Parameter):
            kind: str | None = "_parameters"
        else:
            kind = "_modules" if isinstance(value, Module) else "_buffers" if isinstance(value, Buffer) else None
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
        if kind == "_buffers":
            (own["_transient"].discard if value.persistent else own["_transient"].add)(name)

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

    def _new_name(self, what: str, name: str, holder: dict[str, Any]) -> None:
        """Raise KeyError for a name that cannot stand in a dotted one, or that belongs to something else."""
        if not isinstance(name, str):
            raise TypeError(f"{what}: a name is a string, not {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f"{what}: the name {name!r} " + ("contains a dot" if name else "is empty"))
        if name not in holder and hasattr(self, name):
            raise KeyError(f"{what}: {type(self).__name__} has an attribute {name!r} already")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name; None holds the place of one that is switched off.

        Raises TypeError for what is no Parameter, KeyError for a name that is empty, holds a dot or belongs to something else.
        """
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter: {name!r} must be an nn.Parameter or None, not {type(param).__name__}")
        self._new_name("register_parameter", name, self._parameters)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add a Tensor that is state but not trained; persistent=False leaves it out of state_dict.

        Raises TypeError for what is no Tensor, KeyError for a name that is empty, holds a dot or belongs to something else.
        """
        if tensor is not None and not isinstance(tensor, md.Tensor):
            kind = type(tensor)  # of another library perhaps, under the same name
            raise TypeError(f"register_buffer: {name!r} must be a Tensor or None, not {kind.__module__}.{kind.__qualname__}; md.asarray makes one")
        self._new_name("register_buffer", name, self._buffers)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child under a name (used by containers whose children are numbered).

        Raises TypeError for what is no Module, KeyError for a name that is empty, holds a dot or belongs to something else.
        """
        if module is not None and not isinstance(module, Module):
            given = f"the class {module.__name__}; write {module.__name__}()" if isinstance(module, type) else type(module).__name__
            raise TypeError(f"add_module: {name!r} must be a Module, not {given}")
        self._new_name("add_module", name, self._modules)
        self._modules[name] = module

    register_module = add_module

    # ---- hooks ------------------------------------------------------------------------------------------------------------------------
    def _hook(self, kind: str, hook: Hook, prepend: bool = False) -> RemovableHandle:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks.add(kind, hook, prepend)

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call hook(module, args) before each forward; what it returns replaces the arguments. Returns a handle whose remove() undoes it.

        with_kwargs: hook(module, args, kwargs), which may return (args, kwargs). prepend: before the hooks that are already there. Under jit hooks
        run while the program is traced; a hook that comes or goes, or whose closure changes, makes it trace again.
        """
        return self._hook("pre_kwargs" if with_kwargs else "pre", hook, prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call hook(module, args, output) after each forward; what it returns, unless None, replaces the output. Returns a removable handle.

        with_kwargs: hook(module, args, kwargs, output). always_call: also (with output None) when forward raises. Under jit: as
        register_forward_pre_hook.

        >>> from minidl import nn
        >>> layer, seen = nn.ReLU(), []
        >>> handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.tolist()))
        >>> _ = layer(md.tensor([-1.0, 2.0]))
        >>> handle.remove()
        >>> seen
        [[0.0, 2.0]]
        """
        return self._hook(("forward_kwargs" if with_kwargs else "forward") + ("_always" if always_call else ""), hook, prepend)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_output) when the gradients of the outputs are known; a returned tuple replaces them."""
        return self._hook("backward_pre", hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Call hook(module, grad_input, grad_output) when the gradients of the module's inputs are known; a returned tuple replaces grad_input.

        Both are tuples, one entry for each Tensor among the arguments and outputs, None for one that needs no gradient. Under jit the hook runs while
        the pass is traced.
        """
        return self._hook("backward", hook, prepend)

    # ---- walks ------------------------------------------------------------------------------------------------------------------------
    def named_modules(self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module and all below it, outermost first; without those in memo."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (m for _, m in self.named_modules(remove_duplicate=remove_duplicate))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children."""
        return ((n, m) for n, m in self._modules.items() if m is not None)

    def children(self) -> Iterator[Module]:
        """The direct children."""
        return (m for _, m in self.named_children())

    def _named(self, holder: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in getattr(module, holder).items():
                if value is None or (remove_duplicate and id(value) in seen):
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
            inside = found._modules.get(part)
            if inside is None:
                raise AttributeError(f"{type(found).__name__!r} object has no module {part!r} (of {target!r})")
            found = inside
        return found

    def _leaf(self, target: str, holder: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in getattr(module, holder):
            raise AttributeError(f"{type(module).__name__!r} object has no {what} {name!r}")
        return getattr(module, holder)[name]

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of that dotted name. Raises AttributeError where there is none."""
        return self._leaf(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> md.Tensor:
        """The buffer of that dotted name. Raises AttributeError where there is none."""
        return self._leaf(target, "_buffers", "buffer")

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place of that dotted name. Raises AttributeError where the path ends, or (strict) where nothing was."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not name or (strict and name not in owner._modules):
            raise AttributeError(f"{type(owner).__name__!r} object has no module {name!r} to replace")
        owner.add_module(name, module)

    # ---- modes ------------------------------------------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Module:
        """Set training mode here and below (dropout drops, batch norm uses the batch); returns self. Raises ValueError for what is no bool."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode is True or False, not {mode!r}")
        for module in self.modules():
            module.training = mode
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

    def to(
        self, *args: Any, dtype: Any = None, backend: str | None = None, device: str | None = None, non_blocking: bool = False,
        memory_format: Any = None,
    ) -> Module:  # fmt: skip
        """Move parameters and buffers to a dtype (float ones only), backend or device, in place; returns self. non_blocking and memory_format are
        accepted and change nothing.

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

    def half(self) -> Module:
        """Float parameters and buffers to float16."""
        return self.to(dtype=md.float16)

    def bfloat16(self) -> Module:
        """Float parameters and buffers to bfloat16."""
        return self.to(dtype=md.bfloat16)

    def type(self, dst_type: Any) -> Module:
        """Float parameters and buffers to a dtype."""
        return self.to(dtype=dst_type)

    def cpu(self) -> Module:
        """Parameters and buffers to the CPU."""
        return self.to(device="cpu")

    def cuda(self, device: int | None = None) -> Module:
        """Parameters and buffers to a CUDA device (the first unless its number is given)."""
        return self.to(device="cuda" if device is None else f"cuda:{device}")

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



def _moved(old: md.Tensor, dtype: Any, places: tuple[str, ...], kwargs: dict[str, str]) -> md.Tensor:
    def move(t: md.Tensor) -> md.Tensor:
        t = t.detach()
        if dtype is not None and t.dtype.inexact:
            t = t.to(dtype)
        for place in places:
            t = t.to(place)
        return t.to(**kwargs) if kwargs else t

    if uninitialized(old):
        return old.moved(dtype, move)
    new = move(old)
    if new.dtype is old.dtype and new.backend == old.backend and new.device == old.device:
        return old
    if not isinstance(old, Parameter):
        return new
    moved = old.successor(new)
    if old.grad is not None:
        moved.grad, old.grad = move(old.grad), None
    return moved
