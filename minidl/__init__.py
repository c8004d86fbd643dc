"""minidl: one small tensor and autodiff front end over NumPy, Numba, PyTorch and JAX.

    import minidl as md

    x = md.tensor([2.0], requires_grad=True)
    (x * x).backward()              # the eager tape
    md.grad(lambda x: x * x)(3.0)   # functional transforms
    md.jit(md.vmap(md.grad(f)))     # traced, compiled by the chosen backend

The backend is chosen by MINIDL_BACKEND, `md.set_backend` or `with md.use_backend("torch"):`; see `md.backends()`.
"""

from __future__ import annotations

import gc
import importlib
from math import e, inf, nan, pi
from typing import TYPE_CHECKING, Any

_collects = gc.isenabled()
gc.disable()  # what follows makes thousands of objects that all stay: no look at them on the way, nor in the end
try:
    from minidl import autograd, dtypes, ops, tree
    from minidl.autograd import enable_grad, is_grad_enabled, no_grad
    from minidl.backends import available as backends
    from minidl.backends import set_backend, use_backend
    from minidl.context import eagerly
    from minidl.dtypes import (
        DType,
        bfloat16,
        complex64,
        complex128,
        float16,
        float32,
        float64,
        int8,
        int16,
        int32,
        int64,
        uint8,
        uint16,
        uint32,
        uint64,
    )  # fmt: skip
    from minidl.dtypes import bool_ as bool
    from minidl.errors import checked, explained
    from minidl.graph import Graph
    from minidl.ops import *  # noqa: F403
    from minidl.settings import get_default_dtype, out_of_bounds, set_default_dtype, strict_promotion, strong_zero
    from minidl.tensors import Tensor
finally:
    if _collects:
        if not gc.get_freeze_count():  # what is frozen stays so; else the two together only put what is young among the old
            gc.freeze()
            gc.unfreeze()
        gc.enable()

if TYPE_CHECKING:
    from minidl.arrays.composites import *  # noqa: F403
    from minidl.arrays.elementwise import *  # noqa: F403
    from minidl.arrays.grids import *  # noqa: F403
    from minidl.arrays.products import *  # noqa: F403
    from minidl.arrays.sets import *  # noqa: F403
    from minidl.arrays.shaping import *  # noqa: F403
    from minidl.arrays.sorting import *  # noqa: F403
    from minidl.arrays.special import *  # noqa: F403
    from minidl.arrays.statistics import *  # noqa: F403
    from minidl.arrays.windows import *  # noqa: F403
    from minidl.batching import vmap
    from minidl.checkpointing import checkpoint
    from minidl.contest import set_auto
    from minidl.control import cond, fori_loop, map, scan, switch, while_loop
    from minidl.custom import custom_jvp, custom_vjp
    from minidl.einstein import einsum
    from minidl.explanation import explain
    from minidl.inspection import __array_namespace_info__, can_cast, finfo, iinfo, isdtype, result_type
    from minidl.jacobians import hessian, jacfwd, jacrev
    from minidl.jitting import jit
    from minidl.precision import autocast, full_precision, is_autocast_enabled, low_precision
    from minidl.profiling import profile
    from minidl.quantize import matmul_int8
    from minidl.random import manual_seed
    from minidl.tracing import host, trace
    from minidl.transforms import grad, jvp, linearize, stop_gradient, value_and_grad, vjp

__version__ = "0.1.0"
__array_api_version__ = ops.exchange.VERSIONS[-1]
newaxis = None
#: Array functions beside the core, by their rooms; those in the first row are no methods.
_ARRAYS = {
    "arrays.grids": "eye linspace meshgrid",
    "arrays.composites": "gelu layer_norm scaled_dot_product_attention", "arrays.elementwise": "angle heaviside",
    "arrays.products": "dot outer tensordot vecdot", "arrays.shaping": "chunk pad repeat roll tril triu",
    "arrays.sorting": "argsort nonzero sort topk", "arrays.special": "digamma i0 lgamma polygamma",
    "arrays.sets": "isin searchsorted unique_all unique_counts unique_inverse unique_values",
    "arrays.windows": "avg_pool conv conv_transpose max_pool",
    "arrays.statistics": "count_nonzero diff median norm quantile std var vector_norm",
}  # fmt: skip
#: Loaded when first used, which keeps `import minidl` near the cost of `import numpy`.
_LATER = {
    "batching": "vmap", "control": "cond fori_loop map scan switch while_loop", "checkpointing": "checkpoint", "contest": "set_auto",
    "custom": "custom_jvp custom_vjp", "deploy": "export freeze", "einstein": "einsum", "explanation": "explain",
    "inspection": "__array_namespace_info__ can_cast finfo iinfo isdtype result_type", "jacobians": "hessian jacfwd jacrev", "jitting": "jit",
    "precision": "autocast full_precision is_autocast_enabled low_precision", "profiling": "profile", "quantize": "matmul_int8",
    "random": "manual_seed", "testing": "bisect parity", "tracing": "host trace", "train": "summary",
    "transforms": "grad jvp linearize stop_gradient value_and_grad vjp", **_ARRAYS,
}  # fmt: skip
_HOME = {name: module for module, names in _LATER.items() for name in names.split()}
vars(backends).update(getattr(ops.methods.satellite("waiting"), "SWITCHES", {}))  # torch.backends.cudnn
for _name in " ".join(list(_ARRAYS.values())[1:]).split():
    setattr(Tensor, _name, ops.methods.Later(_name))
_SATELLITES = (
    "nn", "optim", "data", "distributions", "saving", "deploy", "quantize", "interpret", "privacy", "amp", "random", "linalg", "fft", "testing",
    "train", "draw", "extend", "idioms", "control", "cuda", "func", "special", "utils",
)  # fmt: skip

__all__ = [
    "DType", "Graph", "Tensor", "autograd", "backends", "bfloat16", "bool", "checked", "checkpoint", "complex64", "complex128", "cond",
    "custom_jvp", "custom_vjp", "dtypes", "eagerly", "einsum", "enable_grad", "explain", "explained", "float16", "float32", "float64", "fori_loop",
    "get_default_dtype", "grad", "hessian", "host", "int8", "int16", "int32", "int64", "is_grad_enabled", "jacfwd", "jacrev", "jit", "jvp",
    "linearize", "manual_seed", "map", "matmul_int8", "no_grad", "out_of_bounds", "profile", "scan", "set_auto", "set_backend", "set_default_dtype",
    "stop_gradient", "strict_promotion", "strong_zero", "switch", "trace", "tree", "uint8", "uint16", "uint32", "uint64", "use_backend",
    "value_and_grad", "vjp", "vmap", "while_loop", *ops.__all__, *" ".join(_ARRAYS.values()).split(), "autocast", "full_precision",
    "is_autocast_enabled", "low_precision",
    "__array_api_version__", "__array_namespace_info__", "can_cast", "e", "finfo", "iinfo", "inf", "isdtype", "nan", "newaxis", "pi", "result_type",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SATELLITES})


def __getattr__(name: str) -> Any:
    """Transforms, jit and control flow, and the satellites (md.nn, md.optim, md.data, md.linalg, md.fft), are loaded when first used."""
    if name in _SATELLITES:
        return importlib.import_module(f"minidl.{name}")
    if name in _HOME:
        found = globals()[name] = getattr(importlib.import_module(f"minidl.{_HOME[name]}"), name)
        return found
    return ops.methods.idiom(globals(), "md", f"module 'minidl' has no attribute {name!r}", name)
