"""What all tests share: Hypothesis profiles, and a guard that fails any test which leaves something global changed behind it.

Profiles: dev (the default), ci (`--hypothesis-profile=ci`), nightly.
"""

from __future__ import annotations

import sys

import hypothesis
import numpy as np
import pytest

from minidl import dtypes
from minidl.backends import default
from minidl.context import busy, state

_COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow], "print_blob": True}
hypothesis.settings.register_profile("dev", max_examples=20, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=100, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=10_000, **_COMMON)
hypothesis.settings.load_profile("dev")


def _globals() -> dict[str, object]:
    """Everything that a test must leave as it found it; a library counts once something has imported it."""
    found: dict[str, object] = {
        "interpreter": state.interpreter,
        "grad mode": state.grad,
        "interpreters alive": busy[0],
        "default dtype": dtypes.Defaults.floating,
        "strict promotion": dtypes.StrictPromotion.on,
        "numpy errors": np.geterr(),
    }
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        if hasattr(torch, "get_default_dtype"):
            found["torch"] = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled())
    if "jax" in sys.modules:
        jax = sys.modules["jax"]
        if hasattr(jax, "config"):
            found["jax x64"] = bool(jax.config.jax_enable_x64)
    return found


@pytest.fixture(autouse=True)
def nothing_leaks():
    """Fails a test that leaks an interpreter, a grad mode, a default or a setting of a library below."""
    before, chosen = _globals(), default()
    yield
    after = _globals()
    leaked = {k: (before[k], after[k]) for k in before if before[k] != after[k]}
    assert not leaked, f"left changed: {leaked}"
    assert default() is chosen, f"left backend {default()} chosen instead of {chosen}"
