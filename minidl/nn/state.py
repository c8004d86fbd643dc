"""What a Module keeps: state_dict, load_state_dict, the hooks round them, and extra state that is no tensor.

Promises: a state holds the values of now, which later training does not change, and what is stored in them in place is stored in the module;
load_state_dict changes nothing when it raises before the hooks of
the module are called; names, their order and the texts of errors are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import minidl as md
from minidl.nn.hooks import Hook, Hooks, RemovableHandle
from minidl.nn.parameter import Parameter, uninitialized

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What load_state_dict(strict=False) did not find, and what it could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class State:
    """The part of Module that saves and loads."""

    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _transient: set[str]
    _state_hooks: Hooks | None = None

    def get_extra_state(self) -> Any:
        """What a module keeps besides tensors, for its state_dict: define it together with set_extra_state."""
        raise RuntimeError(f"{type(self).__name__} has set_extra_state but no get_extra_state; define both")

    def set_extra_state(self, state: Any) -> None:
        """Take over what get_extra_state gave."""
        raise RuntimeError(f"{type(self).__name__} has get_extra_state but no set_extra_state; define both")

    def _has_extra(self) -> bool:
        return type(self).get_extra_state is not State.get_extra_state

    def _own(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """(name, parameter or persistent buffer, the dict that it is in)."""
        for holder in (self._parameters, self._buffers):
            for name, value in holder.items():
                if value is not None and (holder is self._parameters or name not in self._transient):
                    yield name, value, holder

    # ---- hooks ------------------------------------------------------------------------------------------------------------------------
    def _add_state_hook(self, kind: str, hook: Hook) -> RemovableHandle:
        if self._state_hooks is None:
            self._state_hooks = Hooks()
        return self._state_hooks.add(kind, hook, False)

    def _state_hooks_of(self, kind: str) -> list[Hook]:
        return [] if self._state_hooks is None else [hook for _, hook in self._state_hooks.of(kind)]

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call hook(module, prefix, keep_vars) before the module's state is taken."""
        return self._add_state_hook("save_pre", hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata) with the module's state in state_dict, which it may edit."""
        return self._add_state_hook("save", hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs) before the module's state is
        looked up: it may rename entries of state_dict, which is a copy, and add to the lists."""
        return self._add_state_hook("load_pre", hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call hook(module, incompatible_keys) after loading; a name that it takes from the lists is no error.

        >>> layer = md.nn.Linear(2, 1)
        >>> handle = layer.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
        >>> layer.load_state_dict({"weight": md.ones((1, 2))})
        <All keys matched successfully>
        """
        return self._add_state_hook("load", hook)

    # ---- saving -----------------------------------------------------------------------------------------------------------------------
    def state_dict(self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False) -> dict[str, md.Tensor]:
        """Parameters and persistent buffers by dotted name: the values of now, which later training does not change. In-place operations on them are
        stored in the module, too, and start from what it holds by then.

        destination: a dict to add them to. keep_vars: the parameters and buffers themselves instead.
        """
        out: dict[str, Any] = {} if destination is None else destination
        for hook in self._state_hooks_of("save_pre"):
            hook(self, prefix, keep_vars)
        for name, value, _ in self._own():
            out[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra():
            out[prefix + EXTRA] = self.get_extra_state()
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=out, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_hooks_of("save"):
            if hook(self, out, prefix, {}) is not None:
                raise RuntimeError("a state_dict post-hook edits the state in place and returns None")
        return out

    # ---- loading ----------------------------------------------------------------------------------------------------------------------
    def _upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """Bring a state of older versions up to date, in place."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Take over values by name, each converted to the dtype and backend of the one it replaces. Values may be NumPy arrays or torch tensors.

        assign: put the given values, with their dtype and backend, in the place of the parameters and buffers, which become new objects: make the
        optimizer afterwards. Raises RuntimeError that lists every missing and unexpected name (unless strict=False) and every wrong shape; then
        nothing is changed, unless a hook has to see the loaded module first.

        >>> md.nn.Linear(2, 1).load_state_dict({"weight": md.ones((1, 2)), "bias": md.zeros(1)})
        <All keys matched successfully>
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: a dict of names and tensors is wanted, not {type(state_dict).__name__}")
        state, problems = dict(state_dict), list[str]()
        keys = IncompatibleKeys([], [])
        slots: dict[str, tuple[Any, dict[str, Any], str]] = {}
        extras: dict[str, Any] = {}
        modules: list[Any] = []

        def visit(again: Any, module: Any, prefix: str) -> None:  # a function that named itself would hold the values until garbage is collected
            module._upgrade(state, prefix)
            for hook in module._state_hooks_of("load_pre"):
                hook(module, state, prefix, {}, strict, keys.missing_keys, keys.unexpected_keys, problems)
            slots.update((prefix + name, (value, holder, name)) for name, value, holder in module._own())
            if module._has_extra():
                extras[prefix + EXTRA] = module
            for name, child in module._modules.items():
                if child is not None:
                    again(again, child, f"{prefix}{name}.")
            modules.append(module)

        visit(visit, self, "")
        keys.missing_keys.extend(k for k in (*slots, *extras) if k not in state)
        keys.unexpected_keys.extend(k for k in state if k not in slots and k not in extras)
        new = {k: v if isinstance(v, md.Tensor) else md.asarray(v) for k, v in state.items() if k in slots}
        for k, v in new.items():
            if not uninitialized(slots[k][0]) and v.shape != slots[k][0].shape:
                problems.append(f"size mismatch for {k}: the state has {v.shape}, the module {slots[k][0].shape}.")
            elif v.dtype.is_complex and not assign and not uninitialized(slots[k][0]) and not slots[k][0].dtype.is_complex:
                kind = slots[k][0].dtype.name
                problems.append(f"dtype mismatch for {k}: the state has {v.dtype.name}, whose imaginary part the module's {kind} loses.")
        after = [(module, hook) for module in modules for hook in module._state_hooks_of("load")]
        if problems or not after:
            self._complain(keys, problems, strict)
        with md.no_grad():
            for k, v in new.items():
                old, holder, name = slots[k]
                if assign:
                    holder[name] = old.successor(v) if isinstance(old, Parameter) else v.detach().clone()
                elif uninitialized(old):
                    holder[name] = old.made(v)
                else:
                    old.assign(v.detach().to(dtype=old.dtype, backend=old.backend, device=old.device))
        for k, module in extras.items():
            if k in state:
                module.set_extra_state(state[k])
        for module, hook in after:
            hook(module, keys)
        self._complain(keys, [], strict)
        return keys

    def _complain(self, keys: IncompatibleKeys, problems: list[str], strict: bool) -> None:
        lists = [(what, names) for what, names in (("Missing", keys.missing_keys), ("Unexpected", keys.unexpected_keys)) if strict and names]
        text = [f"{what} key(s) in state_dict: " + ", ".join(f'"{k}"' for k in names) + "." for what, names in lists] + problems
        if text:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(text))
