"""The names of PyTorch that are another name of a function of minidl, and what of all is a method and has a form that stores its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms import functions, shaping, words
from minidl.idioms.numbers import along, one_of, whole, word_all


def _dimmed(f: Callable[..., Any], name: str) -> Callable[..., Any]:
    """f(x, axis, keepdims) as name(input, dim, keepdim), or by NumPy's words for these."""

    def function(input: Any, dim: Any = None, keepdim: bool = False, *, axis: Any = None, keepdims: bool = False) -> Any:
        return f(input, axis=whole(name, dim) if axis is None else one_of(dim, axis), keepdims=keepdim or keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{f.__name__} with PyTorch's arguments."
    return along(function)


def cross(input: md.Tensor, other: md.Tensor, dim: int | None = None) -> md.Tensor:
    """The cross product along an axis of size 3, the first such where none is said: md.linalg.cross."""
    sizes = md.broadcast_shapes(input.shape, other.shape)
    return md.linalg.cross(input, other, axis=(sizes.index(3) - len(sizes) if 3 in sizes else -1) if dim is None else dim)


def _running(f: Callable[..., Any], name: str) -> Callable[..., Any]:
    """f(x, axis=) as name(input, dim), or by NumPy's word for it; an array of one axis needs none."""

    def function(input: Any, dim: int | None = None, *, dtype: Any = None, axis: int | None = None, reverse: bool = False) -> Any:
        axis = one_of(dim, axis)
        if reverse:  # jax.lax's, which starts from the other end
            axis = 0 if axis is None else axis
            return md.flip(f(md.flip(input if dtype is None else input.to(dtype), axis=axis), axis=axis), axis=axis)
        return f(input if dtype is None else input.to(dtype), axis=axis)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{f.__name__} with PyTorch's arguments."
    return along(function)


def cat(tensors: Any, dim: int = 0, *, axis: int | None = None) -> md.Tensor:
    """Tensors joined along an axis that they have, which NumPy calls axis: md.concat.

    >>> md.cat([md.zeros(1), md.ones(1)]).tolist()
    [0.0, 1.0]
    """
    return md.concat(tensors, axis=dim if axis is None else axis)


def split_with_sizes(input: md.Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[md.Tensor, ...]:
    """Pieces of these sizes along an axis: md.split."""
    return md.split(input, split_sizes, axis=dim)


word_all(globals(), ["cross", "split_with_sizes"])
#: How arrays lie in memory, which a backend chooses: accepted where PyTorch takes them.
_FORMATS = ("channels_last", "channels_last_3d", "contiguous_format", "preserve_format")
#: Under other names of PyTorch the same things.
ALIASES: dict[str, Any] = {
    "float": md.float32, "double": md.float64, "half": md.float16, "long": md.int64, "int": md.int32, "short": md.int16,
    "cfloat": md.complex64, "cdouble": md.complex128, "dtype": md.DType, "cat": cat, "concatenate": cat,
    "inference_mode": lambda mode=True: md.no_grad()(mode) if callable(mode) else (md.no_grad if mode else md.enable_grad)(),
    "set_grad_enabled": md.autograd.set_grad_enabled,
    "absolute": md.abs, "arccos": md.acos, "arccosh": md.acosh, "arcsin": md.asin, "arcsinh": md.asinh, "arctan": md.atan, "arctan2": md.atan2,
    "arctanh": md.atanh, "sub": md.subtract, "mul": md.multiply, "true_divide": md.divide, "conjugate": md.conj, "neg": md.negative,
    "eq": md.equal, "ne": md.not_equal, "lt": md.less, "le": md.less_equal, "gt": md.greater, "ge": md.greater_equal,
    "bitwise_not": md.bitwise_invert, "fix": md.trunc, "bmm": md.matmul, "mv": md.matmul, "ger": md.outer, "vdot": md.vecdot,
    "permute": md.permute_dims, "unsqueeze": md.expand_dims, "clone": md.positive, "clamp": md.clip, "swapdims": md.swapaxes,
    "adjoint": lambda input: md.conj(md.matrix_transpose(input)), "numel": lambda input: input.numel(), "detach": lambda input: input.detach(),
    "argwhere": lambda input: words.matrix_of(input),
    "inverse": lambda input: md.linalg.inv(input), "pinverse": lambda input, rcond=1e-15: md.linalg.pinv(input, rtol=rcond),
    "cholesky": lambda input: md.linalg.cholesky(input), "slogdet": lambda input: md.linalg.slogdet(input),
    "matrix_exp": lambda input: md.linalg.matrix_exp(input), "matrix_power": lambda input, n: md.linalg.matrix_power(input, n),
    "cross": cross, "split_with_sizes": split_with_sizes, "Size": tuple,
    **{name: f"torch.{name}" for name in _FORMATS}, "promote_types": md.result_type,
    "strided": "torch.strided", "broadcast_tensors": md.broadcast_arrays, "trapz": functions.trapezoid, "row_stack": shaping.vstack,
    "constant_pad_nd": lambda input, pad, value=0: md.nn.functional.pad(input, pad, value=value),
    "rsub": lambda input, other, *, alpha=1: other - alpha * input,
    "fill": lambda input, value: md.full_like(input, value),
    "isposinf": lambda input: input == math.inf, "isneginf": lambda input: input == -math.inf,
    **{name: _dimmed(f, name) for name, f in {"amax": md.max, "amin": md.min}.items()},
    **{name: _running(f, name) for name, f in {
        "cumsum": md.cumulative_sum, "cumprod": md.cumulative_prod, "logcumsumexp": md.cumulative_logsumexp,
    }.items()},
}  # fmt: skip
for _name, _f in ALIASES.items():
    if getattr(_f, "__module__", None) == __name__ and globals().get(_f.__name__) is not _f:
        _f.__name__ = _f.__qualname__ = _name
        _f.__module__ = "minidl.idioms"  # where it is found, also by pickle
#: Functions that are no methods.
_FUNCTIONS = set(
    """get_default_device set_default_device as_tensor atleast_1d atleast_2d atleast_3d bartlett_window binomial blackman_window block_diag
    BoolTensor broadcast_tensors ByteTensor cartesian_prod cat cdist cdouble cfloat chain_matmul CharTensor column_stack complex concatenate
    constant_pad_nd cumulative_trapezoid device double DoubleTensor dstack dtype fill float FloatTensor from_numpy functional_call Generator
    get_rng_state grad_and_value half HalfTensor hamming_window hann_window hstack inference_mode initial_seed int IntTensor is_tensor
    kaiser_window load logspace long LongTensor normal poisson polar promote_types rand randint randn randperm replace_all_batch_norm_modules_
    row_stack rsub save scalar_tensor set_grad_enabled set_rng_state short ShortTensor Size stack_module_state std_mean strided trapezoid trapz
    tril_indices triu_indices unravel_index var_mean vstack""".split()
) | {*_FORMATS}
#: Methods of which there is a form with _ behind the name that stores the result.
_STORING = """abs absolute acos acosh addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan
atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp_max clamp_min clip
conj_physical copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv exp exp2 expm1 fix float_power floor
floor_divide fmod frac gcd ge greater greater_equal gt heaviside hypot i0 igamma igammac index_add index_copy index_fill index_put
index_reduce lcm ldexp le lerp less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt
masked_fill masked_scatter multiply mvlgamma nan_to_num ne neg negative nextafter not_equal polygamma put rad2deg reciprocal relu
remainder renorm round rsqrt scatter scatter_add scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square subtract tan tanh tril triu
true_divide trunc xlogy""".split()


#: Those that PyTorch has as functions, too: `torch.relu_(x)`.
_IN_PLACE = """abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ atan_ atanh_ ceil_ clamp_ clamp_max_
clamp_min_ clip_ conj_physical_ cos_ cosh_ deg2rad_ detach_ erf_ erfc_ exp2_ exp_ expm1_ fill_ fix_ floor_ frac_ gcd_ i0_ index_put_ lcm_ ldexp_
log10_ log1p_ log2_ log_ logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ relu_ round_ rsqrt_ sigmoid_ sin_ sinc_ sinh_ sqrt_
square_ tan_ tanh_ trunc_ xlogy_ zero_""".split()


def _in_place(name: str) -> Callable[..., md.Tensor]:
    def function(input: md.Tensor, *args: Any, **params: Any) -> md.Tensor:
        return getattr(input, name)(*args, **params)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"input.{name}(...): stored in the tensor."
    function.__module__ = "minidl.idioms"
    return function


FUNCTIONS = {name: _in_place(name) for name in _IN_PLACE}


def _storing(name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    storing = md.extend.storing(f)
    storing.__name__, storing.__qualname__, storing.__module__ = f"{name}_", f"Tensor.{name}_", "minidl"
    storing.__doc__ = f"{name}, stored in this tensor."
    return storing


def _of_truths(f: Callable[..., Any]) -> Callable[..., Any]:
    """A logical function of whether numbers are true: the result, too, is stored as numbers."""
    return lambda *tensors: f(*(t != 0 for t in tensors))


def attach(functions: dict[str, Any], methods: dict[str, Any]) -> frozenset[str]:
    """Make methods of Tensor of the functions, and of the forms that store; what Tensor has already stays. Returns the new names."""
    before = frozenset(n for n, v in vars(md.Tensor).items() if not hasattr(type(v), "awaits"))
    for name, f in {**{n: f for n, f in functions.items() if n not in _FUNCTIONS}, **methods}.items():
        if name not in before:
            setattr(md.Tensor, name, f)
    for name in _STORING:
        if name + "_" not in before:
            f = getattr(md.Tensor, name)
            setattr(md.Tensor, name + "_", _storing(name, _of_truths(f) if name.startswith("logical") else f))
    return frozenset(n for n, v in vars(md.Tensor).items() if not hasattr(type(v), "awaits")) - before
