"""Modules that hold modules or parameters: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import minidl as md
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Numbered(Module):
    """What Sequential and ModuleList share: children under the names "0", "1", …"""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def _name(self, index: int) -> str:
        if not hasattr(index, "__index__"):
            raise TypeError(f"{type(self).__name__}: index must be an integer or a slice, not {index!r}")
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range of {len(self)} modules")
        return list(self._modules)[index]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = list(self._modules.items())[index]
            make: Any = type(self)
            return make(dict(part)) if isinstance(self, Sequential) else make(module for _, module in part)
        return self._modules[self._name(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        keep = dict(enumerate(self._modules.values()))
        for i in range(len(self))[index] if isinstance(index, slice) else [list(self._modules).index(self._name(index))]:
            del keep[i]
        self._modules.clear()
        self.extend(keep.values())

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before the one at index; returns self."""
        modules: list[Any] = list(self)
        modules.insert(index, module)
        self._modules.clear()
        return self.extend(modules)

    def pop(self, index: int = -1) -> Module:
        """Take a module out and return it."""
        module = self[index]
        del self[index]
        return module

    def __add__(self, other: Iterable[Module]) -> Any:
        both = [*self, *other]
        make: Any = type(self)
        return make(*both) if isinstance(self, Sequential) else make(both)

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)


class Sequential(_Numbered):
    """Modules applied one after another; given positionally, or as one dict of names.

    `net * times` repeats its modules. Raises TypeError for what is no Module, ValueError for times < 1.

    >>> from minidl import nn
    >>> nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def __mul__(self, times: int) -> Sequential:
        if times < 1:
            raise ValueError(f"Sequential: it is repeated a positive number of times, not {times}")
        return Sequential(*list(self) * times)

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Sequential:
        if times < 1:
            raise ValueError(f"Sequential: it is repeated a positive number of times, not {times}")
        return self.extend(list(self) * (times - 1))


class ModuleList(_Numbered):
    """A list of modules that their owner's parameters() finds.

    >>> layers = md.nn.ModuleList([md.nn.Linear(2, 2), md.nn.Linear(2, 2)])
    >>> len(layers), len(list(layers.parameters()))
    (2, 4)
    """

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(() if modules is None else modules)

    def __repr__(self) -> str:
        rows: list[tuple[int, int, str]] = []  # first, last, print: equal neighbours share a line
        for i, text in enumerate(map(repr, self)):
            if rows and rows[-1][2] == text:
                rows[-1] = (rows[-1][0], i, text)
            else:
                rows.append((i, i, text))
        lines = (f"({a}): {text}" if a == b else f"({a}-{b}): {b - a + 1} x {text}" for a, b, text in rows)
        return "\n  ".join([f"{type(self).__name__}(", *(line.replace("\n", "\n  ") for line in lines)]) + ("\n)" if rows else ")")


class ModuleDict(Module):
    """A dict of modules that their owner's parameters() finds.

    >>> layers = md.nn.ModuleDict({"in": md.nn.Linear(2, 3)})
    >>> [name for name, _ in layers.named_parameters()]
    ['in.weight', 'in.bias']
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None):
        super().__init__()
        self.update({} if modules is None else modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Take all modules out."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Take a module out and return it."""
        return self._modules.pop(key)

    def keys(self) -> Any:
        """The names."""
        return self._modules.keys()

    def values(self) -> Any:
        """The modules."""
        return self._modules.values()

    def items(self) -> Any:
        """(name, module) pairs."""
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules by name."""
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self.add_module(name, module)


def _parameter(value: Any) -> Any:
    return Parameter(value) if isinstance(value, md.Tensor) and not isinstance(value, Parameter) else value


class _Parameters(Module):
    """What ParameterList and ParameterDict share: values as attributes; Tensors become Parameters."""

    def _put(self, name: str, value: Any) -> None:
        value = _parameter(value)
        if not isinstance(value, Parameter):
            raise TypeError(f"{type(self).__name__}: a Parameter or Tensor is wanted, not {type(value).__name__}")
        self.register_parameter(name, value)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        rows = (f"    ({k}): Parameter containing: [{p.dtype.name} of size {'x'.join(map(str, p.shape))}]" for k, p in self._parameters.items())
        return "\n".join([f"{type(self).__name__}(", *rows, ")"]) if self._parameters else f"{type(self).__name__}()"


class ParameterList(_Parameters):
    """A list of parameters that their owner's parameters() finds; Tensors become Parameters.

    >>> layer = ParameterList([md.ones(2), md.zeros(3)])
    >>> [name for name, _ in layer.named_parameters()]
    ['0', '1']
    """

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self.extend(() if values is None else values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parameters.values())

    def __getitem__(self, index: int | slice) -> Any:
        found = list(self._parameters.values())[index]
        return ParameterList(found) if isinstance(found, list) else found

    def __setitem__(self, index: int, value: Any) -> None:
        self._put(str(range(len(self))[index]), value)

    def append(self, value: Any) -> ParameterList:
        """Add a parameter at the end; returns self."""
        self._put(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add parameters at the end; returns self."""
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)


class ParameterDict(_Parameters):
    """A dict of parameters that their owner's parameters() finds; Tensors become Parameters.

    A plain dict is taken in the order of its sorted keys, as PyTorch does, an OrderedDict or another ParameterDict in its own.

    >>> both = md.nn.ParameterDict({"a": md.ones(2), "b": md.zeros(3)})
    >>> [p.shape for p in both.parameters()]
    [(2,), (3,)]
    """

    def __init__(self, parameters: Any = None):
        super().__init__()
        self.update({} if parameters is None else parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._parameters)

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put(key, value)

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def __or__(self, other: Any) -> ParameterDict:
        both = self.copy()
        both.update(other)
        return both

    def __ror__(self, other: Any) -> ParameterDict:
        both = ParameterDict(other)
        both.update(self)
        return both

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter of that name, or the default."""
        return self._parameters.get(key, default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The parameter of that name, which is the default from now on if there was none."""
        if key not in self:
            self._put(key, default)
        return self[key]

    def pop(self, key: str) -> Any:
        """Take a parameter out and return it."""
        return self._parameters.pop(key)

    def popitem(self) -> tuple[str, Any]:
        """Take the last parameter out: (name, parameter)."""
        return self._parameters.popitem()

    def clear(self) -> None:
        """Take all parameters out."""
        self._parameters.clear()

    def copy(self) -> ParameterDict:
        """Another ParameterDict of the same parameters."""
        return ParameterDict(list(self.items()))

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A ParameterDict of these names, each with the default."""
        return ParameterDict([(k, default) for k in keys])

    def keys(self) -> Any:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Any:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Any:
        """(name, parameter) pairs."""
        return self._parameters.items()

    def update(self, parameters: Any) -> None:
        """Add or replace parameters by name: those of a mapping, or of (name, parameter) pairs."""
        pairs = parameters.items() if isinstance(parameters, (Mapping, ParameterDict)) else parameters
        ordered = isinstance(parameters, (OrderedDict, ParameterDict)) or not isinstance(parameters, Mapping)
        for name, value in pairs if ordered else sorted(pairs):
            self._put(name, value)
