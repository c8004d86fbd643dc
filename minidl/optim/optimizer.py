"""What optimizers share: parameter groups, state per parameter, saving and loading.

Promises: hyper-parameters are read through md.host, so that a jitted step takes them as inputs; parameters and state change by in-place
assignment under no_grad; `param_groups`, `state` and the form of state_dict are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import minidl as md


class Group(dict):
    """A parameter group. Its numbers are inputs of a jitted function, whoever reads them."""

    def __getitem__(self, key: Any) -> Any:
        return md.host(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        """As of any dict."""
        return self[key] if key in self else default


class Optimizer:
    """The base of all optimizers: subclasses define `_update` for one parameter and `_start` for its state."""

    __minidl_state__ = ("step", "zero_grad", "_update")  # the methods that jit looks into

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        self.defaults = defaults
        self.state: dict[md.Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        if isinstance(params, md.Tensor):
            raise TypeError(f"{type(self).__name__}: params is an iterable of tensors or of dicts, not one Tensor; write [tensor]")
        groups = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__}: got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Train more parameters, with hyper-parameters of their own where the dict names them.

        Raises TypeError for what is no Tensor, ValueError for results of operations and for a parameter that is trained already.
        """
        name = type(self).__name__
        params = group["params"]
        params = [params] if isinstance(params, md.Tensor) else list(params)
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, md.Tensor):
                raise TypeError(f"{name}: only Tensors can be trained, not {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"{name}: a tensor of shape {p.shape} is the result of an operation and cannot be trained; use a leaf (.detach())")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter of shape {p.shape} appears more than once")
            known.add(id(p))
        full = Group({"params": params, **{k: group.get(k, v) for k, v in self.defaults.items()}})
        full.update({k: v for k, v in group.items() if k not in full})
        self._check(full)
        self.param_groups.append(full)
        for p in params:
            if p.requires_grad:  # from the start, so that a jitted first step does not differ from the others
                self.state[p] = self._start(p.detach(), full)

    def _check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for hyper-parameters out of range."""
        for name in ("lr", "momentum", "weight_decay", "eps"):
            if isinstance(group.get(name), (int, float)) and group[name] < 0:
                raise ValueError(f"{type(self).__name__}: {name} must not be negative, got {group[name]}")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state that a parameter begins with."""
        return {}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = md.zeros_like(p.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what closure, which computes the loss and its gradients, returns."""
        loss = None
        if closure is not None:
            with md.enable_grad():
                loss = closure()
        with md.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    grad = p.grad
                    if grad is None:
                        continue
                    if p not in self.state:
                        self.state[p] = self._start(p.detach(), group)
                    self._update(p, -grad if group["maximize"] else grad, group, self.state[p])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of the parameter: its state}, "param_groups": hyper-parameters and numbers}: the values of now."""
        number = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = [{**{k: v for k, v in g.items() if k != "params"}, "params": [number[id(p)] for p in g["params"]]} for g in self.param_groups]
        state = {number[id(p)]: {k: v.detach() if isinstance(v, md.Tensor) else v for k, v in s.items()} for p, s in self.state.items() if s}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; tensors go to the dtype and backend of their parameter. Raises ValueError where the groups differ in size."""
        saved = state_dict["param_groups"]
        sizes, wanted = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != wanted:
            raise ValueError(f"{type(self).__name__}: the saved groups hold {sizes} parameters, this optimizer's {wanted}")
        params: dict[Any, Any] = {}
        for old, group in zip(saved, self.param_groups, strict=True):
            params.update(zip(old["params"], group["params"], strict=True))
            group.update({k: v for k, v in old.items() if k != "params"})
        for i, values in state_dict["state"].items():
            self.state[params[i]] = {k: self._loaded(k, v, params[i]) for k, v in values.items() if v is not None}

    @staticmethod
    def _loaded(name: str, value: Any, p: md.Tensor) -> md.Tensor:
        dtype = md.float64 if name == "step" else p.dtype
        value = value.detach() if isinstance(value, md.Tensor) else value
        return md.asarray(value).to(dtype).to(backend=p.backend, device=p.device)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k != "params"]
        return "\n".join([*lines, ")"])
