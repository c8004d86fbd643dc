"""Parameter: a Tensor that a Module counts among the things to train. Buffer: one that it keeps beside them. Uninitialized: either, still without a
shape; a Tensor never changes its own, so another object takes its place."""

from __future__ import annotations

import copy
from typing import Any

import minidl as md


class Parameter(md.Tensor):
    """A leaf Tensor that becomes part of `module.parameters()` when it is set as an attribute of a Module.

    data: any Tensor, NumPy array or nested list; its values of now are taken over, its place on the tape is not. The two share nothing afterwards:
    what is to be stored in the Parameter is stored in it or in its `data`, not in the argument. Raises RuntimeError for an integer dtype with
    requires_grad=True.

    >>> Parameter(md.zeros(2)).requires_grad
    True
    """

    __slots__ = ("__dict__",)  # what a program notes on it: p.no_weight_decay = True

    def __init__(self, data: Any, requires_grad: bool = True):
        data = (data if isinstance(data, md.Tensor) else md.asarray(data)).detach()
        super().__init__(data.payload, data.xp, data.dtype)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def successor(self, value: md.Tensor) -> Parameter:
        """A Parameter of this value, in the place of this one: trained if it is, with the attributes that a program gave it."""
        made = self._like(value)
        self._replaced = True  # of which an optimizer that has it says that it trains nothing
        return made

    def _like(self, value: md.Tensor) -> Parameter:
        made = Parameter(value, self.requires_grad)
        made.__dict__.update(_notes(self))
        return made

    def __copy__(self) -> Parameter:
        return self._like(self.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        made = Parameter(self.detach(), self.requires_grad)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(_notes(self), memo))
        if self.grad is not None:
            made.grad = self.grad.detach().clone()
        return made


def _notes(p: Parameter) -> dict[str, Any]:
    """The attributes that a program gave it: a copy of one that was replaced is itself not."""
    return {k: v for k, v in p.__dict__.items() if k != "_replaced"}


class Buffer(md.Tensor):
    """A Tensor that becomes part of `module.buffers()` when it is set as an attribute of a Module: state that is not trained.

    data: as for Parameter. persistent=False leaves it out of state_dict.

    >>> module = md.nn.Module()
    >>> module.mean = Buffer(md.zeros(2))
    >>> list(module.state_dict())
    ['mean']
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any, *, persistent: bool = True):
        data = (data if isinstance(data, md.Tensor) else md.asarray(data)).detach()
        super().__init__(data.payload, data.xp, data.dtype)
        self.persistent = persistent

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _buffer, (self.detach(), self.persistent)

    def __copy__(self) -> Buffer:
        return Buffer(self.detach(), persistent=self.persistent)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        out = super().__deepcopy__(memo)  # type: ignore[misc]
        out.persistent = self.persistent
        return out  # type: ignore[no-any-return]


class _Uninitialized(md.Tensor):
    """What has a dtype and a place, but neither shape nor values yet: whatever asks for these raises RuntimeError."""

    __slots__ = ("owner",)

    def __init__(self, requires_grad: bool = True, device: str | None = None, dtype: Any = None, *, owner: str = ""):
        like = md.zeros((0,), dtype=dtype or md.get_default_dtype(), device=device)
        md.Tensor.__init__(self, None, like.xp, like.dtype)
        self.owner = owner
        if requires_grad:
            self.requires_grad_()

    @property
    def payload(self) -> Any:  # type: ignore[override]
        """Nothing that could be read."""
        kind = "parameter" if isinstance(self, Parameter) else "buffer"
        raise RuntimeError(
            f"{self.owner or type(self).__name__}: this {kind} has no shape yet; call the module once with an input like those to come (or load a "
            "state into it), and only then make an optimizer or take its state_dict"
        )

    @payload.setter
    def payload(self, value: None) -> None:
        """A constructor sets it."""

    def materialize(self, shape: tuple[int, ...], device: str | None = None, dtype: Any = None) -> Any:
        """A Parameter, or a Tensor as buffer, of that shape, filled with zeros, on this one's backend: put it in the place of this one."""
        place = {"backend": self.backend, "device": device or self.device}
        return self.made(md.zeros(shape, dtype=dtype or self.dtype, **place))

    def made(self, value: md.Tensor) -> Any:
        """A Parameter, or a Tensor as buffer, of this value, with this one's dtype and place."""
        value = value.detach().to(dtype=self.dtype, backend=self.backend, device=self.device)
        return self.successor(value) if isinstance(self, Parameter) else value

    def moved(self, dtype: Any, move: Any) -> _Uninitialized:
        """One for another dtype and place: those of what `move` makes of a tensor without elements."""
        like = move(md.zeros((0,), dtype=self.dtype, backend=self.backend, device=self.device))
        return self._twin(like.dtype if dtype is None else dtype, like.backend, like.device)

    def _twin(self, dtype: Any, backend: str, device: str) -> _Uninitialized:
        return _uninitialized(type(self), self.requires_grad, dtype, backend, device, self.owner)

    def __copy__(self) -> Any:
        return self._twin(self.dtype, self.backend, self.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _uninitialized, (type(self), self.requires_grad, self.dtype, self.backend, self.device, self.owner)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A Parameter whose shape the first input will say, as of the lazy layers. Reading it raises RuntimeError.

    >>> waiting = UninitializedParameter()
    >>> waiting.materialize((2, 3)).shape
    (2, 3)
    """

    __slots__ = ()


class UninitializedBuffer(_Uninitialized):
    """A buffer whose shape the first input will say, as of the lazy layers. Reading it raises RuntimeError.

    >>> UninitializedBuffer().materialize((2,)).requires_grad
    False
    """

    __slots__ = ()

    def __init__(self, requires_grad: bool = False, device: str | None = None, dtype: Any = None, *, owner: str = ""):
        super().__init__(requires_grad, device, dtype, owner=owner)


def uninitialized(value: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(value, _Uninitialized)


def _uninitialized(kind: Any, requires_grad: bool, dtype: Any, backend: str, device: str, owner: str) -> Any:
    with md.use_backend(backend):
        return kind(requires_grad, device, dtype, owner=owner)


def _buffer(data: md.Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


def blank(*shape: int, dtype: Any = None, device: str | None = None) -> Parameter:
    """A parameter whose values are still to be drawn, on the default backend."""
    return Parameter(md.zeros(shape, dtype=dtype or md.get_default_dtype(), device=device))
