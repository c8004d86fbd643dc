"""Writes docs/torch_names.md: which names of torch's rooms and classes are names of minidl, and why the others are not.

    python docs/torch_names.py          needs torch

The names are looked up in the torch that is installed, so the page cannot be wrong about them; tests/test_torch_names.py fails where a name is
neither in minidl nor in ABSENT, where one in ABSENT is in minidl after all, and where the page is older than either.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).parent / "torch_names.md"
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

idioms: Any = importlib.import_module("minidl.idioms")

#: Rooms of torch, and what they are in minidl.
ROOMS = {
    "torch.nn": "md.nn",
    "torch.nn.functional": "md.nn.functional",
    "torch.nn.init": "md.nn.init",
    "torch.nn.utils": "md.nn.utils",
    "torch.nn.utils.parametrizations": "md.nn.utils.parametrizations",
    "torch.nn.utils.parametrize": "md.nn.utils.parametrize",
    "torch.nn.utils.prune": "md.nn.utils.prune",
    "torch.nn.utils.rnn": "md.nn.utils.rnn",
    "torch.nn.utils.stateless": "md.nn.utils.stateless",
    "torch.nn.attention": "md.nn",
    "torch.distributions": "md.distributions",
    "torch.autograd": "md.autograd",
    "torch.autograd.functional": "md.autograd.functional",
    "torch.func": "md.func",
    "torch.linalg": "md.linalg",
    "torch.fft": "md.fft",
    "torch.special": "md.special",
    "torch.amp": "md.amp",
    "torch.utils.data": "md.data",
    "torch.utils.checkpoint": "md.utils.checkpoint",
    "torch.optim": "md.optim",
    "torch.optim.lr_scheduler": "md.optim.lr_scheduler",
    "torch.optim.swa_utils": "md.optim.swa_utils",
}
#: Rooms too wide to give each name a reason: what is there is listed, and what is not where minidl.idioms.absent knows another way.
WIDE = {"torch": "md", "torch.cuda": "md.cuda"}
#: Classes whose methods are compared, too.
CLASSES = {
    "torch.Tensor": "md.Tensor",
    "torch.nn.Module": "md.nn.Module",
    "torch.optim.Optimizer": "md.optim.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler": "md.optim.lr_scheduler.LRScheduler",
}

_OLD = "deprecated in PyTorch; the name with an underscore behind it is there"
_KERNEL = "chooses among PyTorch's attention kernels; each backend of minidl has one"
_MACHINERY = "PyTorch's own machinery"
_MATRICES = "distributions of matrices are not built"
_PIPES = "DataPipes, which PyTorch gives up; Dataset, IterableDataset and DataLoader"
_CHART = "not built: a polynomial or Bessel function, of which no layer or loss is made"
_INPLACE = "changes its input; write x = F.{}(x)"
_INDICES = "F.{} with return_indices=True"
#: Room → name → why it is not in minidl, and what is there for it.
ABSENT: dict[str, dict[str, str]] = {
    "torch.nn": {
        "Container": "deprecated in PyTorch; Module",
        "CrossMapLRN2d": "undocumented in PyTorch; LocalResponseNorm",
        "DataParallel": "for several devices in one process; PyTorch advises against it",
        "LinearCrossEntropyLoss": "CrossEntropyLoss of a Linear",
        "LinearCrossEntropyOptions": "settings of PyTorch's chunked kernel",
        "NLLLoss2d": "deprecated in PyTorch; NLLLoss",
        "SyncBatchNorm": "averages over processes, and minidl runs in one; a BatchNorm under this name would train wrongly where there are several",
        "factory_kwargs": _MACHINERY,
    },
    "torch.nn.functional": {
        **{f"{n}_": _INPLACE.format(n) for n in ("celu", "elu", "hardtanh", "leaky_relu", "relu", "rrelu", "selu", "threshold")},
        **{f"{n}_with_indices": _INDICES.format(n) for kind in ("adaptive_max_pool", "max_pool") for n in (f"{kind}{i}d" for i in (1, 2, 3))},
        **{f"{n}_with_indices": _INDICES.format(n) for n in ("fractional_max_pool2d", "fractional_max_pool3d")},
        "assert_int_or_pair": _MACHINERY,
        **dict.fromkeys(("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _MACHINERY),
        "conv_tbc": "F.conv1d with the axes in another order",
        "native_channel_shuffle": "F.channel_shuffle",
        "linear_cross_entropy": "F.cross_entropy(F.linear(input, weight), target)",
        "grouped_mm": "products of matrices of unequal sizes by a CUDA kernel; md.matmul of each",
        **dict.fromkeys(("scaled_mm", "scaled_grouped_mm"), "products of 8-bit floats by a CUDA kernel; md.matmul_int8 is for integers"),
        **dict.fromkeys(("ScalingType", "SwizzleType"), "settings of scaled_mm"),
    },
    "torch.nn.init": dict.fromkeys(
        (
            "constant",
            "dirac",
            "eye",
            "kaiming_normal",
            "kaiming_uniform",
            "normal",
            "orthogonal",
            "sparse",
            "uniform",
            "xavier_normal",
            "xavier_uniform",
        ),
        _OLD,
    ),
    "torch.nn.utils": {
        "clip_grad_norm": _OLD,
        **{f"convert_conv{n}d_weight_memory_format": "each backend chooses how arrays lie in memory" for n in (2, 3)},
    },
    "torch.nn.utils.prune": {"PruningContainer": "a second method works on what the first one left, without a container"},
    "torch.nn.utils.rnn": {
        "PackedSequence_": _MACHINERY,
        "bind": _MACHINERY,
        "invert_permutation": "examples need no sorting, so nothing is permuted",
    },
    "torch.nn.attention": {
        "SDPBackend": _KERNEL,
        "sdpa_kernel": _KERNEL,
        **dict.fromkeys((f"{v}_flash_attention_impl" for v in ("activate", "current", "register", "restore")), _KERNEL),
        "list_flash_attention_impls": _KERNEL,
    },
    "torch.autograd": {
        "NestedIOFunction": _MACHINERY,
        **dict.fromkeys(("detect_anomaly", "set_detect_anomaly"), "md.testing.check_grad finds a wrong derivative"),
        **dict.fromkeys(("set_multithreading_enabled", "is_multithreading_enabled", "enforce_grad_layout_policy"), _MACHINERY),
        **dict.fromkeys(("is_view_replay_enabled", "has_torch_function", "variable"), _MACHINERY),
        **dict.fromkeys(("DeviceType", "SavedTensor", "kineto_available"), _MACHINERY),
        **dict.fromkeys((f"Profiler{n}" for n in ("Activity", "Config", "Event", "State")), "md.profile"),
    },
    "torch.func": {
        "debug_unwrap": _MACHINERY,
        "functionalize": "md.jit(f) and md.trace(f) are made of values alone",
        "rearrange": "md.nn.einops.rearrange",
    },
    "torch.linalg": {
        "LinAlgError": "what cannot be factored is nan, on every backend, and raises nothing",
        **dict.fromkeys(("cholesky_ex", "inv_ex", "solve_ex"), "the name without _ex: it raises nothing, and what cannot be factored is nan"),
        "lu_factor_ex": "the name without _ex: a singular matrix has factors, too",
        **dict.fromkeys(("ldl_factor", "ldl_factor_ex", "ldl_solve", "householder_product"), "md.linalg.cholesky, qr and solve"),
    },
    "torch.fft": dict.fromkeys(("hfft2", "hfftn", "ihfft2", "ihfftn"), "md.fft.irfftn of the conjugate, or the conjugate of md.fft.rfftn"),
    "torch.special": {
        "airy_ai": _CHART,
        **dict.fromkeys((f"bessel_{n}" for n in ("j0", "j1", "y0", "y1")), _CHART),
        **dict.fromkeys((f"{m}chebyshev_polynomial_{n}" for m in ("", "shifted_") for n in "tuvw"), _CHART),
        **dict.fromkeys(("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"), _CHART),
        "modified_bessel_i0": "md.special.i0",
        "modified_bessel_i1": "md.special.i1",
        **dict.fromkeys((f"{m}modified_bessel_{n}" for m in ("", "scaled_") for n in ("k0", "k1")), _CHART),
        "spherical_bessel_j0": "md.sinc(x / md.pi)",
    },
    "torch.amp": {
        **dict.fromkeys(("custom_bwd", "custom_fwd"), "a Function runs as the block around its call says, forward and backward"),
        "is_autocast_available": "every device has it",
    },
    "torch.utils.data": {
        **dict.fromkeys(("DFIterDataPipe", "DataChunk", "IterDataPipe", "MapDataPipe", "functional_datapipe"), _PIPES),
        **dict.fromkeys(("argument_validation", "guaranteed_datapipes_determinism", "non_deterministic"), _PIPES),
        **dict.fromkeys(("runtime_validation", "runtime_validation_disabled"), _PIPES),
    },
    "torch.utils.checkpoint": {
        **dict.fromkeys(("CheckpointError", "CheckpointFunction", "DefaultDeviceType", "GraphExecGroup", "SavedTensor"), _MACHINERY),
        **dict.fromkeys(("check_backward_validity", "detach_variable", "get_device_states", "noop_context_fn", "set_device_states"), _MACHINERY),
        **dict.fromkeys(("CheckpointPolicy", "SelectiveCheckpointContext", "create_selective_checkpoint_contexts"), "md.jit(f, memory=0.5) chooses"),
        **dict.fromkeys(("set_checkpoint_debug_enabled", "set_checkpoint_early_stop"), _MACHINERY),
    },
    "torch.distributions": {
        **dict.fromkeys(("biject_to", "transform_to"), "a registry of transforms by constraint; name the transform"),
        **dict.fromkeys(("CatTransform", "StackTransform"), "transform the parts, then md.concat or md.stack"),
        **dict.fromkeys(("CorrCholeskyTransform", "LKJCholesky", "LowerCholeskyTransform", "PositiveDefiniteTransform", "Wishart"), _MATRICES),
        "ExponentialFamily": _MACHINERY,
    },
    "torch.optim": {
        "SparseAdam": "for gradients that are sparse tensors, which minidl has not; Adam",
        "swap_in_optimizer_params_and_state": _MACHINERY,
    },
    "torch.nn.Module": {
        "compile": "md.jit(module)",
        "register_backward_hook": "deprecated in PyTorch; register_full_backward_hook",
        "share_memory": "arrays are not shared between processes",
        "to_empty": "there is no meta device; nn.utils.skip_init makes a module without drawing",
        **dict.fromkeys(("ipu", "mtia", "xpu"), "no backend has such devices"),
    },
    "torch.optim.Optimizer": {"profile_hook_step": _MACHINERY},
    "torch.cuda": importlib.import_module("minidl.cuda").ABSENT,
    # besides, minidl answers to others, such as those of what torch.max returns
    "torch.Tensor": {n: way for n, way in idioms.ABSENT["Tensor"].items() if hasattr(importlib.import_module("torch").Tensor, n)},
}
#: What has the same name and is not the same, by room.
DIFFERENT: dict[str, dict[str, str]] = {
    "torch": {
        "equal": "elementwise, as in the Array API; `md.all(a == b)` is one bool",
        "from_numpy": "copies; `md.asarray(array, copy=False)` shares the memory",
        "max": "and min, with an axis: values and places where `dim=` says so, as in `x.max(dim=1)`; `x.max(1)` and `axis=1` are the values alone",
        "median": "the mean of the two middle elements, and no places, but where `dim=` says the axis: PyTorch's two results",
        "meshgrid": "indexing is 'xy' unless 'ij' is said",
        "nonzero": "a tuple of one vector for each axis; `md.argwhere` is one matrix",
        "rand": "and every other draw: of minidl's own streams, the same on every backend",
        "save": "and load: safetensors, never a pickle",
        "sort": "values and places where the axis is said as `dim=`; without it the values alone, and `x.argsort(axis)` has the places",
        "nanmedian": "of all elements the mean of the two in the middle; PyTorch's two results where `dim=` says the axis",
        "polygamma": "the tensor stands first: md.polygamma(x, 1)",
        "argsort": "and diagonal, diff and tensordot take keywords behind their tensors, and add, sub and round no alpha and no decimals",
        "squeeze": "an axis of another size than 1 is a ValueError, as in the Array API; it stays in PyTorch's word, `x.squeeze(dim=1)`",
        "std": "and var: corrected in PyTorch's words, `x.std(dim=0)` and `unbiased=True`, and not in NumPy's, `x.std()` and `x.std(0)`",
        "trace": "of a function (md.trace(f)(x) shows its program); of a matrix it is `x.trace()` or md.linalg.trace",
        "take": "along an axis; `x.flatten().take(index)` is PyTorch's",
    },
    "torch.Tensor": {
        "data": "values of now; writing to it in place writes to the tensor, and a later change of the tensor does not show in it",
        "detach": "and views (view, x[i], T): values of now; `x[i].zero_()` and `x[i][j] = v` reach x, `y = x[i]; y += 1` does not",
        "device": "a string; `md.device(x.device).type` has its parts",
        "grad_fn": "None or the name of an operation; `print(md.trace(f)(x))` shows a function's graph",
        "repeat": "repeats elements, as in the Array API; `x.tile(2, 3)` is PyTorch's repeat",
        "size": "the number of elements; called, as `x.size()` or `x.size(0)`, PyTorch's",
    },
    "torch.nn": {
        "AdaptiveLogSoftmaxWithLoss": "every cluster is computed for every row, so that shapes are fixed",
        "GRU": "and GRUCell, LSTMCell: low under md.autocast on every device, as PyTorch's on CUDA; on the CPU PyTorch leaves them in float32",
        "LazyLinear": "and the other lazy layers: the first call makes new Parameters (a tensor's shape never changes), so optimizers come after it, "
        "and it is refused inside md.jit",
        "MultiheadAttention": "a row that may look nowhere is 0, not nan; with bias_k or add_zero_attn is_causal means the mask that is given, with "
        "need_weights and without",
        "UninitializedParameter": "materialize returns the Parameter that takes its place; state_dict refuses it",
    },
    "torch.nn.Module": {
        "state_dict": "the values of now: `copy_` into one changes no parameter (load_state_dict does), unless keep_vars=True was said",
    },
    "torch.nn.functional": {
        "softmax": "a row of -inf is 0, not nan; kinks and poles: kinks.md",
        "dropout": "here as elsewhere `inplace` is accepted and changes nothing",
        "embedding": "sparse is accepted, gradients are dense",
    },
    "torch.nn.utils": {
        "skip_init": "the values are zeros, not whatever was in memory",
        "weight_norm": "and spectral_norm: the weight follows its parts at once, not at the next forward; no warning",
    },
    "torch.nn.utils.stateless": {"functional_call": "a name that the module does not have is an error, also without strict"},
    "torch.nn.utils.rnn": {
        "PackedSequence": "(data, lengths): the padded tensor and the lengths, of fixed shape, not the packed one; batch_sizes is PyTorch's"
    },
    "torch.nn.utils.parametrizations": {"orthogonal": "signs on the diagonal of reflections count, not their size"},
    "torch.autograd": {
        "backward": "also called with several tensors; its words are those of Tensor.backward",
        "grad": "an unused input is an error unless allow_unused or materialize_grads says otherwise, also where it is 0 by a rule",
    },
    "torch.linalg": {
        "cholesky": "and the other factorizations: nan where there is none, instead of an error",
        "eigh": "reads both halves of the matrix; UPLO is not there",
    },
    "torch.utils.data": {
        "random_split": "and samplers: of minidl's streams, so the parts are other ones than PyTorch's for one seed",
        "DistributedSampler": "num_replicas and rank are wanted",
    },
    "torch.utils.checkpoint": {
        "checkpoint": "what the second run writes to buffers is undone: BatchNorm counts a batch once, in PyTorch twice",
    },
    "torch.optim": {"Optimizer": "every step is one compiled program; foreach, fused and capturable are accepted and mean nothing"},
}


def found(path: str) -> Any:
    """The module or class of a dotted name."""
    parts = path.split(".")
    for i in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(["minidl", *parts[1:i]] if parts[0] == "md" else parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(path)


def names(room: str) -> list[str]:
    """The names that a room of torch, or one of its classes, offers: its functions and classes, not what its file imports."""
    place, out = found(room), []
    if room in WIDE:
        ours = {*found("md").__all__, *idioms.NAMES["md"]} if room == "torch" else set(found(WIDE[room]).__all__)
        there = {*dir(place)} | {n for n in why(room) if importlib.util.find_spec(f"{room}.{n}")}  # loaded or not
        return sorted(n for n in there & (ours | why(room).keys()) if not n.startswith("_"))
    if room == "torch.Tensor":
        return [n for n in dir(place) if not n.startswith("_")]
    if isinstance(place, type):
        return [n for n in dir(place) if not n.startswith("_") and callable(getattr(place, n)) and n in _methods(place)]
    for name in dir(place):
        value = getattr(place, name)
        home = getattr(value, "__module__", None) or ""
        if name.startswith("_") or isinstance(value, types.ModuleType) or not callable(value):
            continue
        own = name in getattr(place, "__all__", ()) or home.startswith((room, "torch._C")) or (home in ("", "torch") and not isinstance(value, type))
        if own:
            out.append(name)
    return out


def _methods(kind: type) -> set[str]:
    return {n for base in kind.__mro__[:-1] for n, v in vars(base).items() if isinstance(v, (types.FunctionType, classmethod, staticmethod))}


def missing(room: str) -> list[str]:
    """Those that minidl has not."""
    ours = found((WIDE | ROOMS | CLASSES)[room])
    return [n for n in names(room) if not (n in dir(ours) and n not in why(room) if room == "torch.Tensor" else hasattr(ours, n))]


def why(room: str) -> dict[str, str]:
    """Name -> why it is not there, or what is there for it."""
    return idioms.ABSENT["md"] if room == "torch" else ABSENT.get(room, {})


def page() -> str:
    """The text of the page."""
    lines = [
        "# PyTorch's names in minidl", "",
        "Written by `python docs/torch_names.py` from the PyTorch that is installed, and tested against it. What is there has PyTorch's name,",
        "arguments and defaults, but for what is listed as not the same; layers have its state_dict keys and, in float64, its outputs and",
        "gradients (tests/test_nn_parity.py, by a grid of options; tests/test_nn_lazy.py, test_nn_utils.py, test_nn_rest.py, test_optim.py and",
        "test_schedules.py the rest). In `from minidl.idioms import torch` the functions that are listed as not the same (equal, max, median, sort,",
        "std, meshgrid, nonzero, take, trace, squeeze and the others) are PyTorch's, too; methods are the same everywhere.", "",
        "| torch | minidl | there | not there |", "|---|---|--:|--:|",
    ]  # fmt: skip
    for room, ours in (WIDE | ROOMS | CLASSES).items():
        gone = missing(room)
        lines.append(f"| `{room}` | `{ours}` | {len(names(room)) - len(gone)} | {len(gone)} |")
    for room, ours in (WIDE | ROOMS | CLASSES).items():
        gone = missing(room)
        have = ", ".join(f"`{n}`" for n in names(room) if n not in gone)
        lines += ["", f"## {room}", "", f"There, in `{ours}`: {have}." if have else "Nothing of it is there."]
        for title, rows in (("not there", {n: why(room).get(n, "") for n in gone}), ("not the same", DIFFERENT.get(room, {}))):
            if rows:
                lines += ["", f"| {title} | |", "|---|---|", *(f"| `{n}` | {why} |" for n, why in rows.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
