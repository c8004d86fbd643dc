"""What PyTorch's programs find before minidl.idioms is loaded: the names of the methods that it brings to Tensor (and of others, which it answers
with a way), and the switches of torch.backends."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

METHODS = """
H abs_ absolute absolute_ acos_ acosh_ addbmm addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr addr_ adjoint allclose amax
amin aminmax apply_ arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan2_ arctan_ arctanh arctanh_ argwhere
as_strided as_strided_ as_strided_scatter as_subclass asin_ asinh_ atan2_ atan_ atanh_ baddbmm baddbmm_ bernoulli bernoulli_ bincount bitwise_and_
bitwise_left_shift_ bitwise_not bitwise_not_ bitwise_or_ bitwise_right_shift_ bitwise_xor_ block_until_ready bmm bucketize byte cauchy_ ccol_indices
cdouble ceil_ cfloat chalf char cholesky cholesky_inverse cholesky_solve clamp_max clamp_max_ clamp_min clamp_min_ clip_ coalesce col_indices
combinations conj_physical conj_physical_ conjugate const_data_ptr copysign_ corrcoef cos_ cosh_ cov cross cross_entropy crow_indices cummax cummin
cumprod cumprod_ cumsum cumsum_ data data_ptr deg2rad deg2rad_ dense_dim dequantize det detach_ diag diag_embed diagflat diagonal_scatter digamma_
dim_order dist div div_ divide_ dsplit eig element_size eq eq_ erf_ erfc_ erfinv_ exp2 exp2_ exp_ expand expand_as expm1_ exponential_ fill_diagonal_
fix fix_ fliplr flipud float_power float_power_ floor_ floor_divide_ fmod fmod_ frac frac_ frexp gather gcd gcd_ ge ge_ geometric_ geqrf ger
get_device grad_dtype grad_fn greater_ greater_equal_ gt gt_ hardshrink hash_tensor heaviside_ histc histogram hsplit hypot_ i0_ igamma igamma_
igammac igammac_ index index_add index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce index_reduce_ index_select
indices inner int_repr inverse ipu is_coalesced is_complex is_conj is_contiguous is_cpu is_cuda is_distributed is_floating_point is_inference is_ipu
is_maia is_meta is_mkldnn is_mps is_mtia is_neg is_nested is_nonzero is_pinned is_quantized is_same_size is_set_to is_shared is_signed is_sparse
is_sparse_csr is_vulkan is_xla is_xpu isclose isneginf isposinf isreal istft itemsize kron kthvalue layout lcm lcm_ ldexp ldexp_ le le_ lerp lerp_
less_ less_equal_ lgamma_ log10_ log1p_ log2_ log_ log_normal_ logaddexp2 logcumsumexp logdet logical_and_ logical_not_ logical_or_ logical_xor_ logit
logit_ lstsq lt lt_ lu lu_solve mH map2_ map_ masked_fill masked_fill_ masked_scatter masked_scatter_ masked_select matrix_exp matrix_power mm mode
module_load movedim msort mtia mul multinomial multiply_ mv mvlgamma mvlgamma_ name nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum narrow
narrow_copy ndimension ne ne_ neg neg_ negative_ nelement new new_empty new_empty_strided new_full new_ones new_tensor new_zeros nextafter_
nonzero_static normal_ not_equal_ orgqr ormqr output_nr pin_memory pinverse polygamma_ prelu put put_ q_per_channel_axis q_per_channel_scales
q_per_channel_zero_points q_scale q_zero_point qr qscheme rad2deg rad2deg_ rand_like randint_like randn_like random_ ravel reciprocal_ record_stream
register_post_accumulate_grad_hook reinforce relu_ remainder_ renorm renorm_ repeat_interleave reshape_as resize resize_ resize_as resize_as_
resize_as_sparse_ resolve_conj resolve_neg retains_grad rot90 round_ row_indices rsqrt_ scatter scatter_ scatter_add scatter_add_ scatter_reduce
scatter_reduce_ select select_scatter set_ sgn sgn_ share_memory_ short sigmoid_ sign_ sin_ sinc sinc_ sinh_ slice_inverse slice_scatter slogdet smm
solve sparse_dim sparse_mask sparse_resize_ sparse_resize_and_clear_ split_with_sizes sqrt_ square_ squeeze_ sspaddmm stft storage storage_offset
storage_type stride subtract_ sum_to_size svd swapaxes_ swapdims swapdims_ symeig t t_ take_along_dim tan_ tanh_ tensor_split to_dense to_mkldnn
to_padded_tensor to_sparse to_sparse_bsc to_sparse_bsr to_sparse_coo to_sparse_csc to_sparse_csr trace transpose_ triangular_solve tril_ triu_
true_divide true_divide_ trunc_ type type_as unbind unflatten unfold uniform_ unique unique_consecutive unsafe_chunk unsafe_split
unsafe_split_with_sizes unsqueeze_ untyped_storage values vdot view_as view_as_complex view_as_real volatile vsplit where xlogy_ xpu
""".split()


class Switches(SimpleNamespace):
    """Settings of PyTorch's own kernels, as torch.backends.cudnn has them: kept, and without a meaning here."""

    def is_available(self) -> bool:
        """Whether such kernels run: never minidl's own."""
        return False

    is_built = is_available

    def version(self) -> None:
        """None: there is no such library."""


#: What md.backends has besides what it says when it is called.
SWITCHES: dict[str, Any] = {
    "cudnn": Switches(enabled=False, benchmark=False, deterministic=False, allow_tf32=False),
    "cuda": Switches(matmul=Switches(allow_tf32=False)), "mps": Switches(), "mkldnn": Switches(enabled=False),
}  # fmt: skip
sys.modules |= {f"minidl.backends.{name}": value for name, value in SWITCHES.items()}  # for `import minidl.backends.cudnn as cudnn`
