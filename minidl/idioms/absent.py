"""Names of PyTorch that are not in minidl, and what there is for them: the end of the message of an AttributeError, and docs/torch_names.md."""

from __future__ import annotations

_VIEWS = "there are no views of memory; use indexing, reshape and x.at"
_SPARSE = "there are no sparse tensors; x.index_add and x.scatter_add take indices"
_QUANTIZED = "md.quantize makes layers of 8-bit numbers; a tensor itself has no scale"
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
        "set_default_tensor_type": "md.set_default_dtype(dtype)",
        "set_printoptions": "print(x.numpy()) under numpy.printoptions",
        "use_deterministic_algorithms": "results do not depend on the order of threads but for sums of floats on accelerators",
        "set_num_threads": "the libraries below read OMP_NUM_THREADS and NUMBA_NUM_THREADS",
        "set_float32_matmul_precision": "md.full_precision and md.low_precision",
        "sparse_coo_tensor": _SPARSE,
        "multi_dot": "md.linalg.multi_dot",
        "lstsq": "md.linalg.lstsq(a, b)",
        "norm_except_dim": "md.vector_norm(x, axis=...)",
        "vander": "md.linalg.vander",
        "lu": "md.linalg.lu and md.linalg.lu_factor",
        "range": "md.arange",
        **dict.fromkeys(("svd_lowrank", "pca_lowrank", "lobpcg"), "md.linalg.svd and md.linalg.eigh, of the whole matrix"),
        **dict.fromkeys(("frobenius_norm", "nuclear_norm"), "md.linalg.matrix_norm(x, ord=...)"),
        "matrix_rank": "md.linalg.matrix_rank",
        "lu_unpack": "md.linalg.lu(x) has P, L and U themselves",
        "segment_reduce": "md.segment_sum and its kin",
        "grid_sampler": "md.nn.functional.grid_sample",
        "GradScaler": "md.amp.GradScaler",
        "is_inference_mode_enabled": "not md.is_grad_enabled()",
        **dict.fromkeys(("get_num_threads", "set_num_interop_threads", "get_num_interop_threads"), "the libraries below read OMP_NUM_THREADS"),
        "get_float32_matmul_precision": "md.full_precision and md.low_precision",
        **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "md.nn.LSTM and its kin"),
        **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), "md.nn.LSTMCell and its kin"),
        "frombuffer": "md.from_numpy(numpy.frombuffer(...))",
        **dict.fromkeys(("sparse_csr_tensor", "sparse_csc_tensor", "sparse_bsr_tensor", "sparse_bsc_tensor"), _SPARSE),
        **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel"), _QUANTIZED),
        **dict.fromkeys(("Storage", "UntypedStorage", "TypedStorage", "empty_strided"), _VIEWS),
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
        "swapdims_": _CHANGES,
        **dict.fromkeys(("resize", "resize_as"), "x.reshape, or x.new_empty of another size"),
        "new_empty_strided": _VIEWS,
        "as_strided_": _VIEWS,
        "as_strided_scatter": _VIEWS,
        **dict.fromkeys(("const_data_ptr", "is_set_to", "storage_type", "slice_inverse"), _VIEWS),
        **dict.fromkeys("ccol_indices col_indices crow_indices row_indices coalesce is_coalesced dense_dim sparse_dim sparse_mask".split(), _SPARSE),
        **dict.fromkeys("resize_as_sparse_ sparse_resize_ sparse_resize_and_clear_ smm sspaddmm to_padded_tensor to_mkldnn".split(), _SPARSE),
        **dict.fromkeys((f"to_sparse_{n}" for n in ("bsc", "bsr", "coo", "csc", "csr")), _SPARSE),
        **dict.fromkeys("dequantize int_repr q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale".split(), _QUANTIZED),
        **dict.fromkeys(("q_zero_point", "qscheme"), _QUANTIZED),
        **dict.fromkeys(("ipu", "mtia", "xpu", "record_stream"), "no backend has such devices; x.to(device=...)"),
        "chalf": "there are no complex numbers of half precision; x.to(md.complex64)",
        "retains_grad": "x.retain_grad() may be called again, and x.grad is then kept",
        **dict.fromkeys("as_subclass grad_dtype hash_tensor module_load output_nr volatile".split(), "it belongs to PyTorch's own machinery"),
        "reinforce": "the logarithm of a probability times the reward has that gradient: -(d.log_prob(action) * reward)",
        "index": "x[...]",
        "eig": "md.linalg.eig(x)",
        "symeig": "md.linalg.eigh(x)",
        "lstsq": "md.linalg.lstsq(a, b)",
        "solve": "md.linalg.solve(a, b)",
        "triangular_solve": "md.linalg.solve_triangular(a, b, upper=True)",
        **dict.fromkeys(("geqrf", "orgqr", "ormqr"), "md.linalg.qr(x) has Q and R themselves"),
        "pin_memory": "the loader's batches are moved as they are",
        "share_memory_": "arrays are not shared between processes",
        "to_sparse": _SPARSE,
        "to_dense": _SPARSE,
        "cross_entropy": "md.nn.functional.cross_entropy(x, target)",
        "lu": "md.linalg.lu and md.linalg.lu_factor",
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
