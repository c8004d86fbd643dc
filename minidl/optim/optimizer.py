"""What optimizers share: parameter groups, state per parameter, the stateful and the functional way to use them, saving and loading.

An optimizer says one thing in `_update`: the new parameter and the new state, as a pure function of the old ones, the gradient and the settings.
`step` stores the result in place, as one compiled program, `update` returns it, and a jitted function traces either.

Promises: numbers among the settings are inputs of a jitted step, so a schedule does not compile again; parameters and state change by in-place
assignment under no_grad; `param_groups`, `state` and the form of state_dict are PyTorch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, ClassVar

import minidl as md
from minidl.optim import programs
from minidl.optim.hooked import Hooked

State = dict[str, Any]
#: What PyTorch's optimizers are told about how their kernels run; accepted as `**execution`, and minidl has no use for it.
_EXECUTION = ("foreach", "fused", "capturable", "differentiable")


class Group(dict):
    """A parameter group. Its numbers are inputs of a jitted function, whoever reads them."""

    def __getitem__(self, key: Any) -> Any:
        return md.host(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        """As of any dict."""
        return self[key] if key in self else default

    def settings(self) -> dict[str, Any]:
        """All but the parameters, as they are read now."""
        return {k: self[k] for k in self if k not in ("params", "param_names")}


class Optimizer(Hooked):
    """The base of all optimizers: subclasses define `_update` for one parameter and `_start` for its state.

    params: tensors, (name, tensor) pairs, or dicts that say "params" and settings of their own. execution: foreach, fused, capturable and
    differentiable=False, which choose among PyTorch's kernels, mean nothing here. Raises TypeError for what is no iterable of such, for integer
    tensors, and for a setting that is unknown or of another kind than its default; ValueError for an empty list, for a tensor that is given twice or
    is the result of an operation, for a setting that is out of range, and for differentiable=True.
    Without params the optimizer is for functional use:

    >>> opt = md.optim.SGD(lr=0.5)
    >>> params, grads = {"w": md.ones(2)}, {"w": md.ones(2)}
    >>> state = opt.init(params)
    >>> params, state = opt.update(grads, state, params)
    >>> params["w"].tolist()
    [0.5, 0.5]
    """

    __slots__ = ("__dict__", "__weakref__", "stepped")  # stepped: apart from what jit guards; a schedule asks whether a step came before it
    #: The methods that jit looks into.
    __minidl_state__ = ("step", "_step_all", "zero_grad", "init", "update", "_update", "_start", "_run_hooks", "_hooks_of")
    _dtypes: ClassVar[dict[str, Any]] = {"step": md.float64}  # the state that has not the parameter's dtype

    def __init__(self, params: Iterable[Any] | None, defaults: dict[str, Any], execution: Mapping[str, Any] | None = None):
        for k, v in (execution or {}).items():
            if k not in _EXECUTION:
                raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument {k!r}; there are {', '.join(defaults)}")
            if k == "differentiable" and v:
                raise ValueError(f"{type(self).__name__}: step() changes parameters in place; gradients flow through init and update")
        self.defaults = defaults
        self.state: dict[md.Tensor, State] = {}
        self.param_groups: list[Group] = []
        self.stepped = False
        if isinstance(params, md.Tensor):
            raise TypeError(f"{type(self).__name__}: params is an iterable of tensors or of dicts, not one Tensor; write [tensor]")
        if hasattr(params, "parameters"):
            raise TypeError(f"{type(self).__name__}: params is an iterable of tensors or of dicts, not a module; write model.parameters()")
        if not isinstance(params, (Iterable, type(None))):
            raise TypeError(f"{type(self).__name__}: params is an iterable of tensors or of dicts, not {params!r}")
        groups = [] if params is None else list(params)
        if not groups and params is not None:
            raise ValueError(
                f"{type(self).__name__}: got an empty parameter list; a generator is empty when it was used "
                "once, and a Module does not see modules in a plain list (nn.ModuleList)"
            )
        for group in groups if groups and isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train more parameters, with hyper-parameters of their own where the dict names them.

        Raises TypeError for what is no Tensor, ValueError for results of operations and for a parameter that is trained already.
        """
        name = type(self).__name__
        params = param_group.get("params") if isinstance(param_group, Mapping) else None
        if not isinstance(params, Iterable):
            raise TypeError(f'{name}: a parameter group is a dict with "params", an iterable of tensors; got {param_group!r}')
        params = [params] if isinstance(params, md.Tensor) else list(params)
        names = {}
        if params and all(isinstance(p, tuple) for p in params):
            names = {"param_names": [n for n, _ in params]}
            params = [p for _, p in params]
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, md.Tensor):
                raise TypeError(f"{name}: only Tensors can be trained, not {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"{name}: a tensor of shape {p.shape} is the result of an operation and cannot be trained; use a leaf (.detach())")
            if id(p) in known:
                raise ValueError(f"{name}: a parameter of shape {p.shape} appears more than once")
            known.add(id(p))
        full = Group({"params": params, **names, **{k: param_group.get(k, v) for k, v in self.defaults.items()}})
        full.update({k: v for k, v in param_group.items() if k not in full})
        self._check(full)
        self.param_groups.append(full)
        programs.forget(self)
        for p in params:
            if p.requires_grad:  # from the start, so that a jitted first step does not differ from the others
                self._begin(p, full)

    def _check(self, group: dict[str, Any]) -> None:
        """Raise TypeError for hyper-parameters of another kind than the constructor's default, ValueError for those out of range."""
        for k, parameter in inspect.signature(type(self)).parameters.items():
            if k in group and (wanted := _other_kind(group[k], parameter.default)):
                raise TypeError(f"{type(self).__name__}: {k} must be {wanted}, not {group[k]!r}")
        for name in ("lr", "lr_decay", "momentum", "momentum_decay", "alpha", "weight_decay", "eps", "initial_accumulator_value"):
            if isinstance(group.get(name), (int, float)) and not group[name] >= 0:
                raise ValueError(f"{type(self).__name__}: {name} must not be negative, got {group[name]}")
        for beta in group.get("betas", ()):
            if isinstance(beta, (int, float)) and not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__}: betas must lie in [0, 1), got {group['betas']}")
        for p in group["params"]:
            self._check_parameter(p)

    def _check_parameter(self, p: md.Tensor) -> None:
        """Raise for a parameter that this optimizer cannot train."""
        if not p.dtype.inexact:
            raise TypeError(f"{type(self).__name__}: only float and complex tensors can be trained, not one of {p.dtype.name}")

    # ---- what an optimizer is -----------------------------------------------------------------------------------------------------------
    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        """The state that a parameter begins with."""
        return {}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        """The parameter and its state after one step along grad. Changes nothing; what it does not return of the state stays as it is."""
        raise NotImplementedError(f"{type(self).__name__} is missing the required _update")

    def _apply(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        """`_update` in the direction that is asked for; of complex tensors, on real and imaginary parts, as PyTorch does."""
        grad = -grad if group.get("maximize") else grad
        if not p.dtype.is_complex:
            return self._update(p, grad, group, state)
        new, after = self._update(_parts(p), _parts(grad), group, {k: _parts(v) for k, v in state.items()})
        return _whole(new, p), {k: v if k in self._dtypes else _whole(v, p) for k, v in after.items()}

    def _begin(self, p: md.Tensor, group: dict[str, Any]) -> None:
        with md.no_grad():
            self.state[p] = self._start(p.detach().clone(), group)

    # ---- stateful ---------------------------------------------------------------------------------------------------------------------------
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = md.zeros_like(p.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient; returns what closure, which computes the loss and its gradients, returns.

        The first step compiles the update, which takes about 1.5 ms for each parameter, and on numba half a second at first. Operation by operation
        run classes of your own, parameters on several backends or devices, and steps of which something new is asked again and again.
        """
        self.stepped = True
        closure = self._run_hooks("pre", closure)
        loss = None
        if closure is not None:
            with md.enable_grad():
                loss = closure()
        programs.run(self)
        self._run_hooks("post", closure)
        return loss

    def _step_all(self) -> None:
        """All updates, in place."""
        with md.no_grad():
            for group in self.param_groups:
                settings = group.settings()
                for p in group["params"]:
                    grad = p.grad
                    if grad is None:
                        self._check_in_use(p)
                        continue
                    if p not in self.state:
                        self._begin(p, settings)
                    state = self.state[p]
                    new, after = self._apply(p, grad, settings, state)
                    for k, v in after.items():
                        if k in state:
                            state[k].assign(v)
                        else:
                            state[k] = v
                    p.assign(new)

    def _check_in_use(self, p: md.Tensor) -> None:
        """Raise RuntimeError for a parameter without a gradient that its module has no more."""
        if getattr(p, "_replaced", False):
            raise RuntimeError(
                f"{type(self).__name__}.step: the model has another parameter in the place of this one of shape {p.shape}, since it was moved to "
                "another dtype, backend or device (or loaded with assign=True); make the optimizer of model.parameters() after that"
            )

    # ---- functional -------------------------------------------------------------------------------------------------------------------------
    def init(self, params: Any) -> dict[int, State]:
        """The state for a pytree of parameters, for `update`: {number of the leaf: its state}, as in state_dict()["state"].

        Raises ValueError for an optimizer of several groups, TypeError for leaves that cannot be trained.
        """
        group = self._only_group("init")
        leaves = md.tree.leaves(params)
        for p in leaves:
            if not isinstance(p, md.Tensor):
                raise TypeError(f"{type(self).__name__}.init: only Tensors can be trained, not {type(p).__name__}")
            self._check_parameter(p)
        return {i: self._start(p.detach().clone(), group) for i, p in enumerate(leaves)}

    def update(self, grads: Any, state: Mapping[int, State], params: Any, **settings: Any) -> tuple[Any, dict[int, State]]:
        """(new parameters, new state) after one step; a pure function, which can be jitted, mapped and differentiated.

        grads: a pytree like params. settings: hyper-parameters for this step, numbers or tensors, instead of those of the optimizer's group.
        Raises ValueError where the pytrees differ in structure, TypeError for a setting that this optimizer does not have.

        >>> opt = md.optim.Adam(lr=0.1)
        >>> w = md.ones(2)
        >>> w, state = opt.update(md.ones(2), opt.init(w), w, lr=0.5)
        >>> [round(v, 6) for v in w.tolist()], int(state[0]["step"])
        ([0.5, 0.5], 1)
        """
        name = type(self).__name__
        group = self._only_group("update").settings()
        if unknown := [k for k in settings if k not in self.defaults]:
            raise TypeError(f"{name}.update: no setting {unknown[0]!r}; there are {', '.join(self.defaults)}")
        self.stepped = True
        group.update(settings)
        leaves, structure = md.tree.flatten(params)
        given, found = md.tree.flatten(grads)
        if found != structure:
            raise ValueError(f"{name}.update: gradients and parameters differ in structure: {found} and {structure}")
        if len(state) != len(leaves):
            raise ValueError(f"{name}.update: a state for {len(state)} tensors, where there are {len(leaves)}; make it with init(params)")
        done = [self._apply(p, g, group, state[i]) for i, (p, g) in enumerate(zip(leaves, given, strict=True))]
        return md.tree.unflatten(structure, [p for p, _ in done]), {i: {**state[i], **s} for i, (_, s) in enumerate(done)}

    def _only_group(self, what: str) -> Group:
        if len(self.param_groups) != 1:
            raise ValueError(f"{type(self).__name__}.{what}: functional use is for one group of settings, not {len(self.param_groups)}")
        return self.param_groups[0]

    # ---- saving ---------------------------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """{"state": {number of the parameter: its state}, "param_groups": hyper-parameters and numbers}: the values of now."""
        for hook in self._hooks_of("save_pre"):
            hook(self)
        number = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        groups = [{**{k: v for k, v in g.items() if k != "params"}, "params": [number[id(p)] for p in g["params"]]} for g in self.param_groups]
        state = {number[id(p)]: {k: _now(v) for k, v in s.items()} for p, s in self.state.items() if s}
        return self._replaced("save", {"state": state, "param_groups": groups})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state, PyTorch's too; tensors go to the dtype and backend of their parameter, in place where there are such already, so
        that nothing is compiled again. Raises ValueError where the groups differ in size or a tensor in shape; then nothing is changed."""
        state_dict = self._replaced("load_pre", dict(state_dict))
        saved = state_dict["param_groups"]
        sizes, wanted = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != wanted:
            raise ValueError(f"{type(self).__name__}: the saved groups hold {sizes} parameters, this optimizer's {wanted}")
        params: dict[Any, Any] = {}
        for old, group in zip(saved, self.param_groups, strict=True):
            params.update(zip(old["params"], group["params"], strict=True))
        state = {
            params[int(i)]: {k: self._loaded(k, v, params[int(i)]) for k, v in s.items() if v is not None} for i, s in state_dict["state"].items()
        }
        for p, loaded in state.items():
            for k, v in loaded.items():
                kept = self.state.get(p, {}).get(k)
                if isinstance(kept, md.Tensor) and isinstance(v, md.Tensor) and kept.shape != v.shape:
                    name = type(self).__name__
                    raise ValueError(f"{name}: the saved {k} has shape {v.shape}, and a parameter of shape {p.shape} wants {kept.shape}")
        for old, group in zip(saved, self.param_groups, strict=True):
            group.update({k: tuple(v) if type(v) is list else v for k, v in old.items() if k not in ("params", "param_names", *_EXECUTION)})
        same = [self._take_over(p, loaded) for p, loaded in state.items()]
        if not all(same):
            programs.forget(self)  # they hold the tensors that were replaced
        self.stepped = True  # as the one that was saved had been, for all that a schedule can know
        for hook in self._hooks_of("load"):
            hook(self)

    def _take_over(self, p: md.Tensor, loaded: State) -> bool:
        """Make this the state of a parameter; whether every tensor stayed the one it was."""
        kept = self.state.setdefault(p, {})  # changed in place, for jit guards which dict it is
        same = kept.keys() == loaded.keys()
        for k, v in loaded.items():
            old = kept.get(k)
            if isinstance(old, md.Tensor) and isinstance(v, md.Tensor) and _kind(old) == _kind(v):
                with md.no_grad():
                    loaded[k] = old.assign(v)
            elif isinstance(old, md.Tensor) or isinstance(v, md.Tensor):
                same = False
        kept.clear()
        kept.update(loaded)
        return same

    def _loaded(self, name: str, value: Any, p: md.Tensor) -> Any:
        if isinstance(value, list):
            return [self._loaded(name, v, p) for v in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value if name not in self._dtypes else md.asarray(value, dtype=self._dtypes[name], backend=p.backend, device=p.device)
        value = value.detach().clone() if isinstance(value, md.Tensor) else value  # which a step changes, and not what was loaded
        return md.asarray(value).to(self._dtypes.get(name, p.dtype)).to(backend=p.backend, device=p.device)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


def _number(value: Any) -> bool:
    return isinstance(value, (Real, md.Tensor)) or hasattr(value, "number")  # a number that may change from call to call of a jitted function


def _other_kind(value: Any, default: Any) -> str:
    """What is wanted instead of a setting, "" where it is of the default's kind."""
    if isinstance(default, (int, float)):
        return "" if _number(value) else "True or False" if isinstance(default, bool) else "a number"
    if isinstance(default, tuple):
        fits = isinstance(value, (tuple, list)) and len(value) == len(default)
        fits = fits and all(_number(v) or (v is None and d is None) for v, d in zip(value, default, strict=True))
        return "" if fits else f"{len(default)} numbers"
    return ""


def _kind(x: md.Tensor) -> tuple[Any, ...]:
    return x.shape, x.dtype, x.backend, x.device


def _now(value: Any) -> Any:
    """A tensor's value of now; later steps do not change it."""
    if isinstance(value, list):
        return [_now(v) for v in value]
    return value.detach() if isinstance(value, md.Tensor) else value


def _parts(x: Any) -> Any:
    """A complex tensor as real and imaginary parts in a last axis."""
    return md.stack([md.real(x), md.imag(x)], axis=-1) if x.dtype.is_complex else x


def _whole(x: md.Tensor, like: md.Tensor) -> md.Tensor:
    return x[..., 0].to(like.dtype) + x[..., 1].to(like.dtype) * 1j


def scalar(value: Any, like: md.Tensor) -> Any:
    """A setting that may be a number or a 0-d Tensor, as an operand that leaves `like` its dtype."""
    return value.to(like.dtype) if isinstance(value, md.Tensor) else value


def decayed(p: md.Tensor, grad: md.Tensor, group: Mapping[str, Any]) -> tuple[md.Tensor, md.Tensor]:
    """Weight decay: of the parameter where the group says that it is decoupled, else by the gradient."""
    decay = group["weight_decay"]
    if decay == 0:
        return p, grad
    return (p * scalar(1 - group["lr"] * decay, p), grad) if group.get("decoupled_weight_decay") else (p, grad + p * decay)


def count(p: md.Tensor) -> md.Tensor:
    """A step count of zero: a 0-d float64 Tensor, in which bias corrections are computed, on the parameter's backend."""
    return md.zeros((), dtype=md.float64, backend=p.backend, device=p.device)
