"""torch.func: minidl's transforms where PyTorch's programs import them from, `from minidl.func import functional_call, vmap, grad`.

They are the functions of `md` themselves. A module is called with other parameters by functional_call, and several are mapped over as one by
stack_module_state.

>>> from minidl.func import grad, vmap
>>> vmap(grad(lambda w, x: (w * x).sum()), in_dims=(None, 0))(md.ones(2), md.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
[[1.0, 2.0], [3.0, 4.0]]
"""

from __future__ import annotations

from minidl import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from minidl.idioms.training import functional_call, grad_and_value, replace_all_batch_norm_modules_, stack_module_state

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize", "replace_all_batch_norm_modules_",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip
