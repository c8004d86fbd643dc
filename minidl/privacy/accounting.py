"""What a private training has given away so far, by the dp-accounting package: Rényi accounting of the Gaussian mechanism on Poisson samples.

Source: I. Mironov, Rényi differential privacy (2017); I. Mironov et al., Rényi differential privacy of the sampled Gaussian mechanism (2019).
"""

from __future__ import annotations

from typing import Any


def _library() -> Any:
    try:
        import dp_accounting
    except ImportError:
        raise ImportError('privacy: accounting needs the dp-accounting package; pip install "minidl[privacy]"') from None
    return dp_accounting


def _check(name: str, noise: float, rate: float) -> None:
    if noise < 0 or not 0 < rate <= 1:
        raise ValueError(f"{name}: noise must not be negative and rate must be in (0, 1], got {noise} and {rate}")


class Accountant:
    """The privacy that steps with `noise` on batches sampled at `rate` have cost.

    noise: as in private_gradient, the standard deviation over the clip; rate: the chance with which an example enters a batch (PoissonSampler).
    Raises ImportError without dp-accounting, ValueError for numbers out of range.

    >>> accountant = Accountant(noise=1.0, rate=0.01)
    >>> accountant.step(1000)
    >>> 1.8 < accountant.epsilon(delta=1e-5) < 2.2
    True
    """

    def __init__(self, noise: float, rate: float):
        _check("Accountant", noise, rate)
        _library()
        self.noise, self.rate, self.steps = noise, rate, 0

    def step(self, steps: int = 1) -> None:
        """Count so many more steps."""
        self.steps += steps

    def epsilon(self, delta: float) -> float:
        """The epsilon for which the training so far is (epsilon, delta)-private; infinity without noise, 0 before the first step."""
        if not 0 < delta < 1:
            raise ValueError(f"Accountant: delta must be between 0 and 1, got {delta}")
        if not self.steps:
            return 0.0
        return _epsilon(self.noise, self.rate, self.steps, delta) if self.noise else float("inf")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"noise": self.noise, "rate": self.rate, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved account. Raises ValueError where it was kept for another noise or rate."""
        if (state["noise"], state["rate"]) != (self.noise, self.rate):
            kept, own = (state["noise"], state["rate"]), (self.noise, self.rate)
            raise ValueError(f"Accountant: the account was kept for noise and rate {kept}, and these are {own}")
        self.steps = int(state["steps"])

    def __repr__(self) -> str:
        return f"Accountant(noise={self.noise}, rate={self.rate}, steps={self.steps})"


def _event(dp: Any, noise: float, rate: float, steps: int) -> Any:
    one = dp.GaussianDpEvent(noise)
    return dp.SelfComposedDpEvent(one if rate == 1 else dp.PoissonSampledDpEvent(rate, one), steps)


#: Integers only, where batches are sampled: for these the divergence is a finite sum (I. Mironov et al. 2019, section 3.3), while that of other
#: orders is a series which need not converge.
_ORDERS = [*range(2, 65), *range(72, 257, 8), *range(288, 1025, 32)]


def _accountant(dp: Any, rate: float) -> Any:
    return dp.rdp.RdpAccountant(_ORDERS if rate < 1 else None)


def _epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    dp = _library()
    return float(_accountant(dp, rate).compose(_event(dp, noise, rate, steps)).get_epsilon(delta))


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least noise with which so many steps at this sampling rate stay (epsilon, delta)-private.

    Raises ImportError without dp-accounting, ValueError for numbers out of range.

    >>> noise = noise_for(epsilon=1.0, delta=1e-5, rate=0.02, steps=500)
    >>> accountant = Accountant(noise, 0.02)
    >>> accountant.step(500)
    >>> 0.99 < accountant.epsilon(1e-5) <= 1.0
    True
    """
    _check("noise_for", 0.0, rate)
    if epsilon <= 0 or not 0 < delta < 1 or steps < 1:
        raise ValueError(f"noise_for: epsilon above 0, delta between 0 and 1, at least one step are wanted; got {epsilon}, {delta}, {steps}")
    dp = _library()
    found = dp.calibrate_dp_mechanism(lambda: _accountant(dp, rate), lambda noise: _event(dp, noise, rate, steps), epsilon, delta)
    return float(found)
