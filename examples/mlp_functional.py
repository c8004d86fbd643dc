"""Train a multi-layer perceptron in the JAX manner: parameters are plain arrays, and everything that happens to them is a function.

python examples/mlp_functional.py
"""

from options import options

import minidl as md

args = options(__doc__)
STEPS = 200 if args.small else 2000


def init(key, sizes):
    """One (weight, bias) pair per layer."""
    keys = md.random.split(key, len(sizes) - 1)
    return [(md.random.normal(k, (m, n)) * (1.0 / m) ** 0.5, md.zeros(n)) for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)]


def neural_net(params, x):
    """The output for one example, a vector; vmap makes it one for a batch."""
    for kernel, bias in params[:-1]:
        x = md.tanh(x @ kernel + bias)
    kernel, bias = params[-1]
    return x @ kernel + bias


def example_loss(params, x, label):
    return md.mean((neural_net(params, x) - label) ** 2)


@args.compile  # md.jit
def loss_fn(params, inputs, labels):
    return md.mean(md.vmap(example_loss, in_axes=(None, 0, 0))(params, inputs, labels))


@args.compile  # md.jit
def update(params, inputs, labels, rate):
    loss, grads = md.value_and_grad(loss_fn)(params, inputs, labels)
    return md.tree.map(lambda p, g: p - rate * g, params, grads), loss


init_key, data_key = md.random.split(md.random.key(0))
inputs = md.random.uniform(data_key, (256, 2), minval=-1.0, maxval=1.0)
labels = md.stack([md.sin(3 * inputs[:, 0]) * inputs[:, 1], md.cos(inputs[:, 0] + inputs[:, 1])], axis=1)
params = init(init_key, (2, 32, 32, 2))

print(f"loss before training  {loss_fn(params, inputs, labels).item():.5f}")
for i in range(STEPS):
    params, loss = update(params, inputs, labels, 0.3 if i < 0.75 * STEPS else 0.05)  # a number is an input: changing it does not compile anew
    if i % (STEPS // 5) == STEPS // 5 - 1:
        print(f"step {i + 1:4d}             {loss.item():.5f}")
if args.jit:
    print(f"compiled {update.compiles} time(s) for {STEPS} steps")

# A gradient for each example, from the function of one example: which of them pull hardest?
grads = args.compile(md.vmap(md.grad(example_loss), in_axes=(None, 0, 0)))(params, inputs, labels)
size = md.sqrt(sum(md.sum(g * g, axis=tuple(range(1, g.ndim))) for g in md.tree.leaves(grads)))
worst = md.argsort(size, descending=True)[:3]
print("\nexamples with the largest gradients:")
for i in worst.tolist():
    x = ", ".join(f"{v:.2f}" for v in inputs[i].tolist())
    print(f"  input ({x})  gradient norm {size[i].item():.3f}")

# The derivative of the network itself, at one input: forward mode.
print("\nJacobian of the network at (0, 0):")
for row in md.jacfwd(lambda x: neural_net(params, x))(md.zeros(2)).tolist():
    print("  ", [round(v, 3) for v in row])
print("exact:\n   [0.0, 0.0]\n   [0.0, 0.0]")
if not args.small:
    assert loss.item() < 0.005, "the network must learn the function"
