"""Names of PyTorch that are not in minidl, and what there is for them: the end of the message of an AttributeError, and docs/torch_names.md."""

from __future__ import annotations

_VIEWS = "there are no views of memory; use indexing, reshape and x.at"
_CHANGES = "a tensor's shape never changes; make another one"

_LAYERS = """adaptive_avg_pool1d adaptive_max_pool1d alpha_dropout avg_pool1d batch_norm bilinear binary_cross_entropy_with_logits celu
channel_shuffle conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss cosine_similarity ctc_loss dropout
embedding embedding_bag group_norm hardshrink hinge_embedding_loss instance_norm kl_div margin_ranking_loss max_pool1d max_pool2d max_pool3d
pairwise_distance
pdist pixel_shuffle pixel_unshuffle poisson_nll_loss prelu rms_norm rrelu selu threshold triplet_margin_loss""".split()

#: Room -> name -> what there is for it.
ABSENT: dict[str, dict[str, str]] = {
    "md": {
        **{name: f"md.nn.functional.{name}" for name in _LAYERS},
        "as_strided": _VIEWS,
        "compile": "md.jit(f) compiles",
        "script": "md.jit(f) compiles",
        "functionalize": "md.jit(f) and md.trace(f) are made of values alone",
        "seed": "md.manual_seed(number)",
        "set_default_device": "md.set_backend(name) says where tensors are made; device= for one",
        "get_default_device": "md.zeros(()).device",
        "set_default_tensor_type": "md.set_default_dtype(dtype)",
        "set_printoptions": "print(x.numpy()) under numpy.printoptions",
        "use_deterministic_algorithms": "results do not depend on the order of threads but for sums of floats on accelerators",
        "set_num_threads": "the libraries below read OMP_NUM_THREADS and NUMBA_NUM_THREADS",
        "set_float32_matmul_precision": "md.full_precision and md.low_precision",
        "sparse_coo_tensor": "there are no sparse tensors; x.index_add and x.scatter_add take indices",
        "nonzero_static": "md.argwhere, outside jit",
        "multi_dot": "md.linalg.multi_dot",
        "lstsq": "md.linalg.lstsq(a, b)",
        "norm_except_dim": "md.vector_norm(x, axis=...)",
        "vander": "md.linalg.vander",
        "renorm": "x * (maxnorm / norm).clamp(max=1)",
        "lu": "md.linalg.solve",
        "range": "md.arange",
    },
    "Tensor": {
        "as_strided": _VIEWS,
        "data_ptr": _VIEWS,
        "stride": _VIEWS,
        "storage": _VIEWS,
        "untyped_storage": _VIEWS,
        "storage_offset": _VIEWS,
        "resize_": _CHANGES,
        "set_": _CHANGES,
        "t_": _CHANGES,
        "transpose_": _CHANGES,
        "squeeze_": _CHANGES,
        "unsqueeze_": _CHANGES,
        "swapaxes_": _CHANGES,
        "resize_as_": _CHANGES,
        "grad_fn": "x.is_leaf says whether x is the result of a recorded operation",
        "apply_": "md.vmap(f)(x)",
        "map_": "md.vmap(f)(x, y)",
        "pin_memory": "the loader's batches are moved as they are",
        "share_memory_": "arrays are not shared between processes",
        "to_sparse": "there are no sparse tensors",
        "to_dense": "there are no sparse tensors",
        "cross_entropy": "md.nn.functional.cross_entropy(x, target)",
        "renorm": "x * (maxnorm / norm).clamp(max=1)",
        "lu": "md.linalg.solve",
        "put_": "x.assign(x.view(-1).at[index].set(values).view(x.shape))",
        "indices": "PyTorch's x.max(1), x.sort() and the like are values and places where the axis is said as dim=: x.max(dim=1).indices",
        "values": "PyTorch's x.max(1), x.sort() and the like are values and places where the axis is said as dim=: x.max(dim=1).values",
        "histogram": "x.histc(), or md.bincount of x.bucketize(edges)",
    },
    "autograd": {
        "set_detect_anomaly": "md.testing.check_grad finds a wrong derivative",
        "detect_anomaly": "md.testing.check_grad finds a wrong derivative",
        "forward_ad": "md.jvp(f, primals, tangents)",
        "graph": "md.checkpoint, and md.jit(f, memory=...), say what a backward pass keeps",
        "profiler": "md.profile",
    },
}
