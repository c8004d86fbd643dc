"""GradScaler: losses scaled up so that the gradients of float16 do not vanish, and steps left out whose gradients overflowed."""

from __future__ import annotations

from typing import Any

import minidl as md


class GradScaler:
    """Scales losses, unscales gradients, leaves out steps with inf or nan in them, and adapts the scale; as torch.amp.GradScaler
    (P. Micikevicius et al., Mixed precision training, ICLR 2018).

    After a step with inf or nan the scale is multiplied by backoff_factor; after growth_interval steps without by growth_factor. enabled=False: every
    method does what it would without scaling. device: where the scale lies, if not with the first loss. scale, step and update of one iteration may
    stand in one jitted function. Raises ValueError for factors on the wrong side of 1, RuntimeError for calls out of order.

    >>> scaler = GradScaler(init_scale=4.0)
    >>> scaler.scale(md.asarray(2.0)).item()
    8.0
    """

    __minidl_state__ = ("scale", "unscale_", "step", "update", "_place", "_record")

    def __init__(
        self,
        device: str | None = None,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        if isinstance(device, (int, float)):
            raise TypeError("GradScaler: the first argument is a device; write init_scale=...")
        if growth_factor <= 1 or not 0 < backoff_factor < 1:
            raise ValueError(
                f"GradScaler: growth_factor must be above 1 and backoff_factor between 0 and 1; got {growth_factor} and {backoff_factor}"
            )
        self._enabled, self._device = bool(enabled), device
        self._growth_factor, self._backoff_factor, self._growth_interval = growth_factor, backoff_factor, growth_interval
        self._init_scale, self._init_growth_tracker = float(init_scale), 0
        place = {} if device is None else {"device": device}
        self._scale = md.asarray(self._init_scale, dtype=md.float32, **place)
        self._growth_tracker = md.asarray(0, dtype=md.int32, **place)
        self._optimizers: dict[int, dict[str, Any]] = {}  # by id, from unscale_ to update: the stage, and whether inf or nan was found

    def _place(self, like: md.Tensor) -> None:
        """Lie where the losses are, from the first one on."""
        if self._device is None and (self._scale.backend, self._scale.device) != (like.backend, like.device):
            place = {"backend": like.backend, "device": like.device}
            self._scale = md.asarray(self._init_scale, dtype=md.float32, **place)
            self._growth_tracker = md.asarray(self._init_growth_tracker, dtype=md.int32, **place)

    def scale(self, outputs: Any) -> Any:
        """A loss, or a pytree of them, times the scale."""
        if not self._enabled:
            return outputs
        for x in md.tree.leaves(outputs):
            if not isinstance(x, md.Tensor):
                raise TypeError(f"GradScaler.scale: wanted Tensors, got {type(x).__name__}")
            self._place(x)
        return md.tree.map(lambda x: x * self._scale.to(backend=x.backend, device=x.device), outputs)

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, once in an iteration: before they are clipped, say."""
        if not self._enabled:
            return
        record = self._optimizers.setdefault(id(optimizer), {"stage": "ready"})
        if record["stage"] != "ready":
            what = "for the second time since update()" if record["stage"] == "unscaled" else "after step()"
            raise RuntimeError(f"GradScaler.unscale_: called {what}")
        record.update(stage="unscaled", found=self._record(optimizer))

    def _record(self, optimizer: Any) -> md.Tensor:
        """Unscale, and say with 1.0 that something was not finite."""
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not params:
            raise RuntimeError("GradScaler: the optimizer's parameters have no gradients; call scale(loss).backward() first")
        with md.no_grad():
            inverse = (1.0 / self._scale.to(md.float64)).to(md.float32)
            found = md.zeros((), dtype=md.bool, backend=params[0].backend, device=params[0].device)
            for p in params:
                if p.grad.dtype is md.float16:
                    raise ValueError("GradScaler: gradients in float16 cannot be unscaled; keep the parameters in float32 and use md.autocast")
                g = p.grad * inverse.to(backend=p.backend, device=p.device).to(p.grad.dtype)
                found = found | ~md.all(md.isfinite(g))
                p.grad = g
            return found.to(md.float32)

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step() with unscaled gradients, unless one of them is inf or nan; returns what it returns, or None."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or kwargs:
            raise RuntimeError("GradScaler.step: an optimizer that takes a closure calls it several times; that cannot be scaled")
        record = self._optimizers.setdefault(id(optimizer), {"stage": "ready"})
        if record["stage"] == "stepped":
            raise RuntimeError("GradScaler.step: called for the second time since update()")
        if record["stage"] == "ready":
            self.unscale_(optimizer)
        record["stage"] = "stepped"
        optimizer.stepped = True

        def go() -> None:
            optimizer.step()

        with md.no_grad():
            md.cond(record["found"] == 0.0, go, lambda: None)
        return None

    def update(self, new_scale: float | md.Tensor | None = None) -> None:
        """Adapt the scale at the end of an iteration, or set it."""
        if not self._enabled:
            return
        with md.no_grad():
            if new_scale is not None:
                value = new_scale.to(md.float32) if isinstance(new_scale, md.Tensor) else md.full_like(self._scale, new_scale)
                self._scale.assign(value.reshape(()).detach())
            else:
                place = {"backend": self._scale.backend, "device": self._scale.device}
                records = [r["found"].to(**place) for r in self._optimizers.values() if "found" in r]
                if not records:
                    raise RuntimeError("GradScaler.update: no step came before it")
                found = sum(records[1:], records[0]) > 0.0
                good = self._growth_tracker + 1
                grown = self._scale * self._growth_factor
                due = good == self._growth_interval
                larger = md.where(due & md.isfinite(grown), grown, self._scale)
                self._scale.assign(md.where(found, self._scale * self._backoff_factor, larger))
                self._growth_tracker.assign(md.where(found | due, 0, good).to(md.int32))
        self._optimizers.clear()

    # ---- what it holds --------------------------------------------------------------------------------------------------------------------
    def get_scale(self) -> float:
        """The scale of now; 1.0 when switched off."""
        return float(self._scale) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set by what the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set by what the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many good steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many good steps the scale grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers under PyTorch's keys; empty when switched off."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval, "_growth_tracker": int(self._growth_tracker),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state, PyTorch's too. Raises RuntimeError for that of a scaler that was switched off."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("GradScaler.load_state_dict: the state is empty, perhaps saved from a scaler with enabled=False")
        self._init_scale, self._init_growth_tracker = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._scale.assign(md.full_like(self._scale, self._init_scale))
        self._growth_tracker.assign(md.full_like(self._growth_tracker, self._init_growth_tracker))
