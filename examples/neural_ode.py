"""A neural ordinary differential equation: learn the law of a spiral from points on it, by differentiating through the solver.

    python examples/neural_ode.py

The solver is Runge and Kutta's, in md.scan: a graph of a thousand steps is as small as one of ten. Source: R. T. Q. Chen et al., Neural ordinary
differential equations (NeurIPS 2018).
"""

from options import options
from tqdm import tqdm

import minidl as md
import minidl.optim as optim

args = options(__doc__)
STEPS, POINTS = (10, 16) if args.small else (600, 48)


def solve(field, start, step, n):
    """The states at n times, `step` apart."""

    def advance(u, _):
        k1 = field(u)
        k2 = field(u + 0.5 * step * k1)
        k3 = field(u + 0.5 * step * k2)
        k4 = field(u + step * k3)
        return u + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), u

    return md.scan(advance, start, None, length=n)[1]


def spiral(u):
    """The true law: a turn that slowly shrinks, the faster the further out."""
    x, y = u[..., 0:1], u[..., 1:2]
    return md.concat([-0.1 * x**3 + 2.0 * y**3, -2.0 * x**3 - 0.1 * y**3], axis=-1)


keys = md.random.split(md.random.key(0), 3)
params = [md.random.normal(keys[0], (2, 32)) * 0.4, md.zeros(32), md.random.normal(keys[1], (32, 2)) * 0.1, md.zeros(2)]
optimizer = optim.Adam([p.requires_grad_() for p in params], lr=0.01)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


def learned(u):
    w1, b1, w2, b2 = params
    return md.tanh(u**3 @ w1 + b1) @ w2 + b2


starts = md.random.uniform(keys[2], (8, 2), minval=-1.6, maxval=1.6)
step_size = 0.05
truth = solve(spiral, starts, step_size, POINTS)


@args.compile
def train_step():
    optimizer.zero_grad()
    loss = md.mean(md.abs(solve(learned, starts, step_size, POINTS) - truth))
    loss.backward()
    optimizer.step()
    return loss


losses = []
bar = tqdm(range(STEPS), desc="train", unit="step", mininterval=1.0)
for i in bar:
    losses.append(train_step().item())
    schedule.step()
    if i % 50 == 0:
        bar.set_postfix(distance=f"{losses[-1]:.4f}")

start = md.tensor([[1.5, 0.0]])
with md.no_grad():
    a, b = (solve(field, start, step_size, POINTS)[:, 0].tolist() for field in (spiral, learned))
print(f"mean distance: {losses[0]:.3f} before training, {losses[-1]:.4f} after; a start that it has not seen:\n")
canvas = [[" "] * 61 for _ in range(21)]
for points, mark in ((a, "o"), (b, "+")):
    for u, v in points:
        row, column = round(10 - 6 * v), round(30 + 18 * u)
        if 0 <= row < 21 and 0 <= column < 61:
            canvas[row][column] = "#" if canvas[row][column] == "o" and mark == "+" else mark
print("\n".join("".join(line).rstrip() for line in canvas) + "\no the law, + the network, # both")
if not args.small:
    assert losses[-1] < 0.1 * losses[0], "the network must learn the law"
