"""Learn to learn (MAML): a start from which a few gradient steps fit any sine, found by differentiating through those steps.

    python examples/maml.py

Source: C. Finn et al., Model-agnostic meta-learning for fast adaptation of deep networks (ICML 2017), the sinusoid experiment.
"""

from options import options
from tqdm import tqdm

import minidl as md

args = options(__doc__)
STEPS, INNER, RATE = (10, 3, 0.05) if args.small else (1000, 3, 0.05)


def init(key, sizes=(1, 40, 40, 1)):
    keys = md.random.split(key, len(sizes) - 1)
    return [(md.random.normal(k, (m, n)) * (1.0 / m) ** 0.5, md.zeros(n)) for k, m, n in zip(keys, sizes, sizes[1:], strict=False)]


def network(params, x):
    for w, b in params[:-1]:
        x = md.tanh(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def loss(params, x, y):
    return md.mean((network(params, x) - y) ** 2)


def adapted(params, x, y, steps=INNER):
    """The parameters after some gradient steps on one task."""
    for _ in range(steps):
        params = md.tree.map(lambda p, g: p - RATE * g, params, md.grad(loss)(params, x, y))
    return params


def task(key):
    """Ten points to learn from and ten to be judged by, of a sine of random height and phase."""
    k1, k2, k3 = md.random.split(key, 3)
    height, phase = md.random.uniform(k1, (), minval=0.5, maxval=3.0), md.random.uniform(k2, (), minval=0.0, maxval=3.14159)
    x = md.random.uniform(k3, (20, 1), minval=-4.0, maxval=4.0)
    y = height * md.sin(x + phase)
    return x[:10], y[:10], x[10:], y[10:]


def after(params, key):
    """The loss on a new task after learning from its ten points."""
    x, y, tx, ty = task(key)
    return loss(adapted(params, x, y), tx, ty)


def joint(params, key):
    """The loss on a task without learning from it: what plain training on all tasks brings down."""
    _, _, tx, ty = task(key)
    return loss(params, tx, ty)


def train(objective):
    """Adam on the mean of the objective over 16 tasks, all at once by vmap."""
    params = init(md.random.key(0))
    moments = [md.tree.map(md.zeros_like, params) for _ in range(2)]

    @args.compile
    def update(params, m, v, key, t):
        mean = lambda p: md.mean(md.vmap(objective, in_axes=(None, 0))(p, md.random.split(key, 16)))
        value, g = md.value_and_grad(mean)(params)
        m = md.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = md.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        scale = 2e-3 * md.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        return md.tree.map(lambda p, a, b: p - scale * a / (md.sqrt(b) + 1e-8), params, m, v), m, v, value

    bar = tqdm(range(STEPS), desc=objective.__name__, unit="step", mininterval=1.0)
    for i in bar:
        params, *moments, value = update(params, *moments, md.random.fold_in(md.random.key(1), i), md.asarray(float(i + 1)))
        if i % 100 == 0:
            bar.set_postfix(loss=f"{value.item():.3f}")
    return params


keys = md.random.split(md.random.key(2), 100)
score = args.compile(lambda params: md.mean(md.vmap(after, in_axes=(None, 0))(params, keys)))
results = {}
for objective in (joint, after):
    results[objective.__name__] = score(train(objective)).item()
print(f"\nmean squared error on 100 new sines after {INNER} steps on ten points each:")
print(f"  start trained on all sines at once  {results['joint']:.3f}\n  start trained to be adapted (MAML)  {results['after']:.3f}")
if not args.small:
    assert results["after"] < 0.5 * results["joint"], "a gradient through gradient steps must pay"
