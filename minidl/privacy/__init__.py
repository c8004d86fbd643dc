"""Training with differential privacy: gradients of single examples, clipped and noised, and an account of what was given away.

    sampler = PoissonSampler(len(data), rate, key)     each example enters a batch by chance, independently
    gradient = private_gradient(loss, clip, noise)     clipped, summed, noised, divided by the expected batch
    accountant = Accountant(noise, rate); accountant.step(); accountant.epsilon(delta)

>>> noise_for(epsilon=2.0, delta=1e-5, rate=0.01, steps=100) < 1.2
True
"""

from __future__ import annotations

from minidl.privacy.accounting import Accountant, noise_for
from minidl.privacy.gradients import clip_examples, example_gradients, private_gradient
from minidl.privacy.sampling import PoissonSampler
from minidl.privacy.training import PrivateStep

__all__ = ["Accountant", "PoissonSampler", "PrivateStep", "clip_examples", "example_gradients", "noise_for", "private_gradient"]
