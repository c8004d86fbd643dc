"""Solve a differential equation with a network: u'' + u'^2 = f on [0, 1] with u(0) = u(1) = 0, learned from the equation alone.

    python examples/pinn.py

The loss holds second derivatives of the network, by md.grad of md.grad; training differentiates these once more.
"""

from options import options
from tqdm import tqdm

import minidl as md
import minidl.optim as optim

args = options(__doc__)
STEPS = 30 if args.small else 2500


def exact(x):
    return md.sin(3.14159265 * x) * x


def network(params, x):
    """u(x) for a number x; the factor x (1 - x) makes it 0 at both ends."""
    h = md.tanh(x * params["w1"] + params["b1"])
    h = md.tanh(params["w2"] @ h + params["b2"])
    return x * (1.0 - x) * md.tensordot(params["w3"], h, axes=1)


def operator(u, x):
    """u'' + u'^2 at a number x, for a function u."""
    du = md.grad(u)
    return md.grad(du)(x) + du(x) ** 2


def loss(params, points):
    wanted = md.vmap(lambda x: operator(exact, x))(points)
    found = md.vmap(lambda x: operator(lambda x: network(params, x), x))(points)
    return md.mean((found - wanted) ** 2)


keys = md.random.split(md.random.key(0), 3)
params = {
    "w1": md.random.normal(keys[0], (24,)) * 3.0, "b1": md.zeros(24), "w2": md.random.normal(keys[1], (24, 24)) / 24**0.5, "b2": md.zeros(24),
    "w3": md.random.normal(keys[2], (24,)) / 24**0.5,
}  # fmt: skip
points = md.linspace(0.0, 1.0, 64)
optimizer = optim.Adam([p.requires_grad_() for p in params.values()], lr=0.01)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


@args.compile
def step():
    optimizer.zero_grad()
    value = loss(params, points)
    value.backward()
    optimizer.step()
    return value


bar = tqdm(range(STEPS), desc="train", unit="step", mininterval=1.0)
for i in bar:
    value = step()
    schedule.step()
    if i % 100 == 0:
        bar.set_postfix(residual=f"{value.item():.2e}")

with md.no_grad():
    u = md.vmap(lambda x: network(params, x))(points)
error = md.max(md.abs(u - exact(points))).item()
print(f"mean squared residual {value.item():.2e}; largest distance from the exact solution {error:.1e}\n")
for i in range(0, 64, 7):
    print(f"x = {points[i].item():.2f}  network {u[i].item():+.4f}  exact {exact(points[i]).item():+.4f}")
if not args.small:
    assert error < 0.01, "the network must solve the equation"
