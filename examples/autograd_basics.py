"""Derivatives in both styles: PyTorch's backward() and JAX's transforms, on the same tensors.

python examples/autograd_basics.py
"""

from options import options

import minidl as md

options(__doc__)

# The tape, as in PyTorch: operations on tensors that require grad are recorded, backward() fills in .grad.
x = md.tensor([2.0], requires_grad=True)
y = md.tensor([2.0], requires_grad=True)
out = x + y
out.backward()
print("d(x + y)/dx, dy          ", x.grad.tolist(), y.grad.tolist())


# A jitted function is traced once and compiled. Its results can be differentiated with backward() ...
@md.jit
def f(x):
    return (x * x).sum()


x = md.random.normal(md.random.key(0), (2, 2)).requires_grad_()
out = f(x)
out.backward()
print("backward() through jit   ", x.grad.tolist())

# ... and with transforms of functions, as in JAX.
print("grad(f) gives the same   ", md.grad(f)(x.detach()).tolist())
assert md.grad(f)(x.detach()).tolist() == x.grad.tolist() == (2 * x).tolist()

# Transforms nest in any order. Third derivative of x**4 at 2, as grad of grad of grad:
print("(x**4)''' at 2           ", md.grad(md.grad(md.grad(lambda x: x**4)))(2.0).item())


# Forward mode, Jacobians and Hessians:
def g(v):
    return md.sin(v[0]) * v[1] ** 2


v = md.tensor([0.5, 3.0])
value, tangent = md.jvp(g, (v,), (md.tensor([1.0, 0.0]),))
print("g and its slope along v0 ", round(value.item(), 4), round(tangent.item(), 4))
print("Hessian of g             ", [[round(h, 4) for h in row] for row in md.hessian(g)(v).tolist()])

# vmap turns a function of one example into one of a batch; around grad it gives a gradient per example, and jit compiles it all.
points = md.random.normal(md.random.key(1), (3, 2))
per_point = md.jit(md.vmap(md.grad(g)))(points)
print("gradient at three points ", [[round(h, 4) for h in row] for row in per_point.tolist()])

# Outside jit, the user's Python runs on concrete values, so that a function may branch on them:
print("derivative of a branch   ", md.grad(lambda x: x * x if x > 0 else -x)(md.tensor(-3.0)).item())

# What jit compiles can be looked at: typed Python in single assignments.
print("\nthe graph of grad(g):\n" + str(md.trace(md.grad(g))(v)))
