"""PyTorch's programs as their authors write them: two results where `dim` says so, positional arguments of topk, state of generators, torch.func."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import minidl as md
import minidl.nn.functional as F
from minidl.idioms import torch as idiom

torch = pytest.importorskip("torch")
X = np.array([[3.0, 1.0, 3.0], [2.0, 5.0, 4.0]])
CALLS = {
    "max": lambda T, x: x.max(dim=1),
    "max, kept": lambda T, x: T.max(x, dim=-1, keepdim=True),
    "min": lambda T, x: T.min(x, dim=0),
    "sort": lambda T, x: T.sort(x, dim=-1, descending=True, stable=True),
    "sort, a method": lambda T, x: x.sort(dim=0),
    "max, the axis by its place": lambda T, x: x.max(1, keepdim=True),
    "median, the axis by its place": lambda T, x: T.median(x, 1, keepdim=True),
    "topk": lambda T, x: x.topk(2, 1, False, True),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_word_dim_brings_values_and_places(name, backend):
    f = CALLS[name]
    want = f(torch, torch.tensor(X))
    for run in (f, lambda T, x: md.jit(lambda x: f(T, x))(x)) if backend != "numba" or name == "sort" else (f,):
        values, places = run(md, md.tensor(X))
        assert values.tolist() == want.values.tolist()
        assert places.tolist() == want.indices.tolist()
    both = f(md, md.tensor(X))
    assert both.values.tolist() == both[0].tolist() == want[0].tolist()
    assert both.indices.dtype is md.int64


ALONG = """softmax log_softmax sum mean max min amax amin argmax argmin sort argsort cumsum cumprod cummax cummin logcumsumexp logsumexp median
nanmedian mode prod all any std var norm std_mean var_mean aminmax nansum nanmean count_nonzero flip transpose index_select gather scatter_add
index_add index_fill quantile nanquantile topk kthvalue movedim""".split()
MORE = {"norm": (2,), "quantile": (0.5,), "nanquantile": (0.5,), "topk": (1,), "kthvalue": (1,)}


@pytest.mark.filterwarnings("ignore:std:UserWarning", "ignore:var:UserWarning")  # torch's, of one element
@pytest.mark.parametrize("name", ALONG)
def test_a_number_is_taken_along_dim_0_or_its_last_one(name):
    def call(T, dim, by_word):
        x, zero = T.tensor(2.0), T.tensor(0)
        rest = {"index_select": (zero,), "gather": (zero,), "scatter_add": (zero, x), "index_add": (zero, x), "index_fill": (zero, 3.0)}.get(name, ())
        if name in ("transpose", "movedim"):
            return getattr(T, name)(x, dim, dim)
        if by_word and not rest:
            return getattr(T, name)(x, *MORE.get(name, ()), **{"dims" if name == "flip" else "dim": (dim,) if name == "flip" else dim})
        return getattr(T, name)(x, *MORE.get(name, ()), (dim,) if name == "flip" else dim, *rest)

    plain = lambda out: [(tuple(t.shape), str(t.tolist())) for t in (out if isinstance(out, tuple) else (out,))]
    for dim in (0, -1):
        want = plain(call(torch, dim, name == "aminmax"))
        assert plain(call(idiom, dim, True)) == want
        assert name == "aminmax" or plain(call(idiom, dim, False)) == want
        if name not in ("aminmax", "flip", "transpose", "movedim", "norm"):
            assert plain(call(md, dim, True)) == want
    with pytest.raises((IndexError, ValueError)):
        call(idiom, 1, False) if name != "aminmax" else call(idiom, 1, True)


WHOLE = "sum mean std var amax amin nansum nanmean count_nonzero norm std_mean var_mean all any".split()


@pytest.mark.parametrize("name", WHOLE)
def test_a_dim_that_names_no_axis_means_what_torch_says_and_an_axis_what_numpy_does(name):
    call = lambda T, dim: getattr(T, name)(T.tensor(X if name not in ("all", "any") else X > 2), dim=dim)
    for dim in ((), []):
        want, found = call(torch, dim), [call(md, dim), call(idiom, dim), md.jit(lambda dim=dim: call(md, dim))()]
        if name != "norm":  # whose second place is another argument
            found += [getattr(idiom, name)(md.tensor(X if name not in ("all", "any") else X > 2), dim)]
        for got in found:
            for g, w in zip(*((v if isinstance(v, tuple) else (v,)) for v in (got, want)), strict=True):
                assert g.shape == tuple(w.shape)
                np.testing.assert_allclose(g.numpy(), w.numpy())
    if hasattr(np, name):
        got = getattr(md, name)(md.tensor(X), axis=())
        assert got.tolist() == getattr(md.tensor(X), name)(axis=()).tolist() == getattr(np, name)(X, axis=()).tolist()


def test_logsumexp_and_roll_over_no_named_axis_are_over_all():
    x, t = md.tensor(X), torch.tensor(X)
    want = torch.logsumexp(t, (), keepdim=True)  # without keepdim PyTorch raises an error of its own
    for got in (md.logsumexp(x, dim=(), keepdim=True), x.logsumexp(dim=[], keepdim=True), idiom.logsumexp(x, (), True)):
        np.testing.assert_allclose(got.numpy(), want.numpy())
    assert idiom.logsumexp(x, dim=()).item() == want.item() and md.logsumexp(x, axis=()).shape == x.shape
    for got in (md.roll(x, 1, dims=()), x.roll(shifts=1, dims=[]), idiom.roll(x, 1), idiom.roll(x, 1, ()), idiom.roll(x, 1, dims=())):
        assert got.tolist() == torch.roll(t, 1, dims=()).tolist()
    assert idiom.roll(x, (1, 2), (0, 1)).tolist() == torch.roll(t, (1, 2), (0, 1)).tolist() == md.roll(x, (1, 2), dims=[0, 1]).tolist()
    assert idiom.roll(x, 1, axis=1).tolist() == torch.roll(t, 1, 1).tolist() and md.roll(x, 1, axis=()).tolist() == x.tolist()


ONE_OR_NONE = {
    "gather": lambda T, x, i: x.gather(0, i), "scatter": lambda T, x, i: x.scatter(0, i, T.full_like(i, 9).double()),
    "scatter, a number": lambda T, x, i: x.scatter(0, i, 9.0), "scatter_add": lambda T, x, i: x.scatter_add(0, i, T.full_like(i, 9).double()),
    "scatter_reduce": lambda T, x, i: x.scatter_reduce(0, i, T.full_like(i, 9).double(), "amax"),
    "index_select": lambda T, x, i: x.index_select(0, i), "take": lambda T, x, i: x.take(i), "take, a function": lambda T, x, i: T.take(x, i),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_OR_NONE)
def test_a_number_is_a_vector_of_one_element_where_places_are_said(name, backend):
    f = lambda x, i: ONE_OR_NONE[name](idiom, x, i)
    for x in (5.0, [5.0]):
        for i in (0, [0]):
            want = ONE_OR_NONE[name](torch, torch.tensor(x, dtype=torch.float64), torch.tensor(i))
            given = md.tensor(x, dtype=md.float64), md.tensor(i)
            for got in (f(*given), md.jit(f)(*given)) if backend in ("numpy", "torch") else (f(*given),):
                assert got.tolist() == want.tolist()
            g = md.grad(lambda x, i: f(x, i).sum())(*given)
            assert g.shape == given[0].shape
    if name == "index_select":
        for x, i in ((md.ones(3), [[0]]), (md.tensor(1.0), [0, 0])):
            with pytest.raises(ValueError, match="index_select: a vector of positions is wanted"):
                x.index_select(0, md.tensor(i))


@pytest.mark.parametrize("right", [False, True])
def test_each_row_of_a_sorted_tensor_is_searched_for_itself(right, backend):
    r = np.random.default_rng(0)
    x, v = r.integers(0, 6, (2, 3, 5)).astype(np.float32), r.integers(-1, 7, (2, 3, 4)).astype(np.float32)
    order = np.argsort(x, -1)
    want = torch.searchsorted(torch.tensor(x), torch.tensor(v), right=right, sorter=torch.tensor(order)).tolist()
    for wrap in (lambda f: f, md.jit):
        assert wrap(lambda x, v: md.searchsorted(md.sort(x), v, right=right))(md.tensor(x), md.tensor(v)).tolist() == want
    assert md.searchsorted(md.tensor(x), md.tensor(v), right=right, sorter=md.tensor(order)).tolist() == want
    assert md.searchsorted(md.zeros((0, 3)), md.zeros((0, 2))).shape == (0, 2)
    assert md.searchsorted(md.zeros((2, 0)), md.zeros((2, 3))).tolist() == [[0] * 3] * 2
    with pytest.raises(ValueError, match=r"leading axes of f32\[2,3,4\], not be f32\[3,5\]"):
        md.searchsorted(md.tensor(x[0]), md.tensor(v))


def test_a_diagonal_is_said_by_places_as_in_numpy_and_pytorch():
    x = np.arange(24).reshape(2, 3, 4)
    for T in (md, idiom):
        assert T.diagonal(T.tensor(x), 1, 0, 2).tolist() == T.tensor(x).diagonal(1, 0, 2).tolist() == x.diagonal(1, 0, 2).tolist()
        assert T.diagonal(T.tensor(x), offset=1, dim1=0, dim2=2).tolist() == torch.diagonal(torch.tensor(x), 1, 0, 2).tolist()


@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
@pytest.mark.parametrize("asked", [0.5, [0.5], [0.1, 0.9]])
@pytest.mark.parametrize("keepdim", [False, True])
def test_quantiles_of_a_number_are_as_many_as_are_asked_for(name, asked, keepdim):
    want = getattr(torch, name)(torch.tensor(2.0), torch.tensor(asked), 0, keepdim)
    q = md.tensor(asked)
    for T in (md, idiom):
        assert getattr(T, name)(T.tensor(2.0), q, dim=0, keepdim=keepdim).tolist() == want.tolist()
    assert getattr(idiom, name)(md.tensor(2.0), q, 0, keepdim).tolist() == want.tolist()


@pytest.mark.parametrize("name", ["narrow", "tensor_split", "select", "unflatten", "renorm"])
def test_what_refuses_a_number_names_its_dim(name):
    rest = {"narrow": (0, 0, 1), "tensor_split": (1,), "select": (0, 0), "unflatten": (0, (1,)), "renorm": (2, 0, 1.0)}[name]
    with pytest.raises((RuntimeError, IndexError)):
        getattr(torch, name)(torch.tensor(2.0), *rest)
    with pytest.raises(IndexError, match=rf"{name}: dim 0 is out of range for shape \(\)"):
        getattr(md, name)(md.tensor(2.0), *rest)


@pytest.mark.parametrize("name", "softmax sum moveaxis flip topk sort std cumsum var_mean amax nanmedian".split())
def test_a_function_of_the_idiom_can_be_pickled(name):
    f = getattr(idiom, name)
    assert pickle.loads(pickle.dumps(f)) is f


@pytest.mark.parametrize("name", "sort max std median nanmedian diff argsort nanquantile".split())
def test_two_words_for_one_argument_are_refused(name):
    more = (0.5,) if name == "nanquantile" else ()
    with pytest.raises(TypeError, match="two words"):
        getattr(idiom, name)(md.tensor(X), *more, dim=1, axis=1)
    if name.startswith("nan"):
        with pytest.raises(TypeError, match="two words"):
            getattr(md, name)(md.tensor(X), *more, dim=1, axis=1)


def test_functionals_take_a_number_along_a_dim():
    x = md.tensor(2.0, requires_grad=True)
    out = [F.softmax(x, -1), F.log_softmax(x, 0), F.softmin(x, dim=0), F.normalize(x, dim=0), F.gumbel_softmax(x, hard=True)]
    out.append(F.cosine_similarity(x, -x, dim=0))
    assert [t.shape for t in out] == [()] * 6 and [t.item() for t in out] == [1.0, 0.0, 1.0, 1.0, 1.0, -1.0]
    (out[3] * 3 + x.max(dim=0).values).backward()
    assert x.grad.item() == 1.0
    with pytest.raises(IndexError, match="out of range"):
        md.sum(x, axis=0)  # as JAX and the Array API have it
    with pytest.raises(IndexError, match="out of range"):
        x.sum(dim=1)


@pytest.mark.parametrize("name", "mode cummax cummin aminmax unbind std_mean var_mean kthvalue amax nansum cumsum logcumsumexp".split())
def test_numpys_words_are_known_beside_dim(name):
    f, more = getattr(md, name), (1,) if name == "kthvalue" else ()
    plain = lambda out: [t.tolist() for t in (out if isinstance(out, tuple) else (out,))]
    x = md.tensor(X)
    assert plain(f(x, *more, axis=1)) == plain(getattr(torch, name)(torch.tensor(X), *more, axis=1))
    assert name == "unbind" or "cum" in name or plain(f(x, *more, axis=1, keepdims=True)) == plain(f(x, *more, dim=1, keepdim=True))
    with pytest.raises(TypeError, match="two words"):
        f(x, *more, dim=1, axis=1)


def test_nonzero_is_what_as_tuple_says():
    for x, y in ((md.tensor(X > 2), torch.tensor(X > 2)),):
        assert x.nonzero(as_tuple=False).tolist() == md.nonzero(x, as_tuple=False).tolist() == y.nonzero(as_tuple=False).tolist()
        assert [i.tolist() for i in md.nonzero(x, as_tuple=True)] == [i.tolist() for i in y.nonzero(as_tuple=True)]


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_unique_along_a_dim_is_torchs(dim, backend):
    x = np.array([[2, 1, 2], [3, 1, 3], [2, 1, 2]])
    mine, its = (T.unique(T.tensor(x), dim=dim, return_inverse=True, return_counts=True) for T in (md, torch))
    assert [t.tolist() for t in mine] == [t.tolist() for t in its]
    assert md.unique(md.tensor(x), dim=dim).tolist() == torch.unique(torch.tensor(x), dim=dim).tolist()


def test_memory_formats_are_accepted_and_a_range_is_an_index():
    x = md.tensor(X)
    assert x.to(memory_format=md.channels_last) is x
    assert x.contiguous(memory_format=md.contiguous_format).tolist() == x.tolist()
    assert x.clone(memory_format=md.preserve_format).tolist() == x.tolist()
    assert md.ones_like(x, memory_format=md.preserve_format, dtype=md.int64).dtype is md.int64
    with pytest.raises(TypeError, match="memory_format"):
        md.sin(x, memory_format=md.preserve_format)
    assert isinstance(md.nn.Linear(2, 2).to("cpu", non_blocking=True, memory_format=md.preserve_format), md.nn.Linear)
    assert not x.is_sparse
    assert x[range(2), [0, 2]].tolist() == [3.0, 4.0]
    x[range(2), 1] = 7.0
    assert x[:, 1].tolist() == [7.0, 7.0]


def test_norms_take_torchs_positions():
    a, b = md.tensor(X), torch.tensor(X)
    for f in (
        lambda T, x: T.linalg.vector_norm(x, 3, 1, True), lambda T, x: T.linalg.matrix_norm(x, 2), lambda T, x: T.linalg.matrix_norm(x, 1, (1, 0)),
        lambda T, x: T.linalg.matrix_norm(x[None], "nuc", dim=(0, 2), keepdim=True), lambda T, x: T.matrix_exp(x[:, :2]),
    ):  # fmt: skip
        mine, its = f(md, a), f(torch, b)
        assert mine.shape == tuple(its.shape)
        np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=1e-12)


def test_the_places_carry_no_gradient_and_the_values_minidls():
    x = md.tensor([[1.0, 4.0], [5.0, 2.0]], requires_grad=True)
    values, places = x.max(dim=1)
    (values * md.tensor([2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert not places.requires_grad
    x.grad = None
    (x.sort(dim=1).values * md.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [[1.0, 10.0], [10.0, 1.0]]
    assert md.vmap(lambda v: v.max(dim=0).indices)(x).tolist() == [1, 0]
    assert md.vmap(md.vmap(lambda v: v * 2, randomness="different"), chunk_size=1)(x).tolist() == (x * 2).tolist()


def test_other_words_and_positions_mean_what_they_meant():
    x = md.tensor(X)
    for one in (x.max(1), x.max(axis=1), md.max(x, 1), x.max(dim=(0, 1)), md.sort(x), x.sort(), md.sort(x, axis=1), md.max(x)):
        assert isinstance(one, md.Tensor)
    with pytest.raises(TypeError, match="two words"):
        x.max(dim=1, axis=1)
    with pytest.raises(TypeError, match=r"x.tile\(2, 1\).*axis="):
        x.repeat(2, 1)
    with pytest.raises(TypeError, match="randomness"):
        md.vmap(lambda v: v, randomness="same")
    np.testing.assert_allclose(x.std(ddof=1).item(), X.std(ddof=1))


@pytest.mark.parametrize("make", [md.zeros, md.ones, lambda *a: md.full(a[0], 2, *a[1:]), md.empty], ids=["zeros", "ones", "full", "empty"])
def test_a_dtype_may_stand_behind_the_shape(make):
    for shape, dtype in (((2, 3), md.int32), ([], md.float64), (2, md.int64)):
        out = make(shape, dtype)
        assert out.dtype is dtype
        assert out.shape == np.zeros(shape).shape
    assert md.zeros(2, 3).shape == (2, 3)
    assert md.zeros_like(md.ones(2), md.int64).dtype is md.int64
    with pytest.raises(TypeError, match="integers"):
        md.zeros((2, 3), md.int32, dtype=md.int64)


def test_the_state_of_generators_comes_and_goes():
    state = md.get_rng_state()
    a = md.rand(3)
    md.set_rng_state(state)
    assert md.rand(3).tolist() == a.tolist()
    g = md.Generator().manual_seed(3)
    kept = g.get_state()
    a = md.rand(3, generator=g)
    assert md.rand(3, generator=g.set_state(kept)).tolist() == a.tolist()


def test_a_backward_that_is_differentiated_once():
    class Cube(md.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @md.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * g * x**2

    x = md.tensor([2.0], requires_grad=True)
    Cube.apply(x).sum().backward()
    assert x.grad.tolist() == [12.0] == md.jit(md.grad(lambda x: Cube.apply(x).sum()))(x.detach()).tolist()
    (g,) = md.autograd.grad(Cube.apply(x).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_a_module_is_itself_in_forward_and_backward():
    class Through(md.autograd.Function):
        @staticmethod
        def forward(ctx, x, net):
            ctx.net = net
            ctx.save_for_backward(x)
            with md.no_grad():
                return net(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            assert ctx.net is net
            with md.enable_grad():
                x = x.detach().requires_grad_()
                gx, gw = md.autograd.grad(ctx.net(x), [x, ctx.net.weight], grad_outputs=g)
            seen.append(gw)
            return gx, None

    net, seen = md.nn.Linear(2, 3), []
    x = md.ones(4, 2, requires_grad=True)
    Through.apply(x, net).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(net.weight.detach().numpy().sum(0), (4, 2)), rtol=1e-6)
    assert seen[0].tolist() == [[4.0, 4.0]] * 3


def test_torch_func_has_its_order():
    g, (value, aux) = md.grad_and_value(lambda x: (x * x, x + 1), has_aux=True)(md.tensor(3.0))
    assert (g.item(), value.item(), aux.item()) == (6.0, 9.0, 4.0)
    net = md.nn.Sequential(md.nn.Linear(2, 2), md.nn.BatchNorm1d(2))
    md.replace_all_batch_norm_modules_(net)
    assert net[1].running_mean is None and md.vmap(net)(md.randn(3, 4, 2)).shape == (3, 4, 2)


def test_data_sets_are_generic():
    class Lines(md.data.Dataset[str]): ...

    class Order(md.data.Sampler[list[int]]): ...

    class Stream(md.data.IterableDataset[int]): ...

    assert issubclass(Lines, md.data.Dataset) and issubclass(Order, md.data.Sampler) and issubclass(Stream, md.data.IterableDataset)


def test_einsum_takes_its_arrays_as_one_list():
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert md.einsum("ij,jk->ik", [x, x]).tolist() == md.einsum("ij,jk->ik", x, x).tolist() == (x @ x).tolist()
    assert md.einsum("ij->", (x,)).item() == 10.0
    with pytest.raises(ValueError, match="einsum"):
        md.einsum("i->", [1.0, 2.0])


def test_what_is_computed_can_be_waited_for(backend):
    x = md.ones((2, 3))
    y = (x + 1.0).block_until_ready()
    found = md.block_until_ready({"a": y, "b": [y * 2.0, 5]})
    assert y.tolist() == [[2.0] * 3] * 2 and found["b"][1] == 5 and found["b"][0].tolist() == [[4.0] * 3] * 2
    assert md.jit(lambda x: x.block_until_ready() + 1.0)(x).tolist() == y.tolist() == md.vmap(lambda v: v.block_until_ready() + 1.0)(x).tolist()


def test_select_names_what_jax_means_by_it():
    with pytest.raises(TypeError, match=r"select: dim is the number of an axis; md\.where"):
        md.select(md.tensor(True), md.ones(1), md.zeros(1))


@pytest.mark.filterwarnings("ignore:size_average")
def test_the_older_words_of_losses_are_reductions():
    def of(T):
        a, b, t = T.tensor([[0.2, 0.8], [0.6, 0.4]]), T.tensor([[0.0, 1.0], [1.0, 1.0]]), T.tensor([1, 0])
        F, nn = T.nn.functional, T.nn
        for words in ({"size_average": False}, {"reduce": False}, {"size_average": True, "reduce": True}, {"size_average": None, "reduction": "sum"}):
            yield F.mse_loss(a, b, **words)
            yield F.nll_loss(a, t, **words)
            yield F.cross_entropy(a, t, **words)
            yield F.binary_cross_entropy(a, b, **words)
            yield nn.MSELoss(**words)(a, b)
            yield nn.BCEWithLogitsLoss(**words)(a, b)
            yield nn.NLLLoss(**words)(a, t)

    for ours, theirs in zip(of(md), of(torch), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    x, t = md.ones(1, 2), md.tensor([1])
    for call in (lambda: md.nn.functional.nll_loss(x, t, None, False), lambda: md.nn.CrossEntropyLoss(None, False)(x, t)):
        with pytest.raises(TypeError, match="size_average says reduction="):
            call()


def test_einsum_takes_numbers_of_axes_and_lstsq_has_names():
    x, y = md.tensor(X), md.tensor(X.T)
    for axes in (
        ([0, 1], [1, 2], [0, 2]), ([0, 1], [1, 2]), ([..., 1], [1, 0], [..., 0]), ([0, 1], [1, 0], []), ([27, 1], [1, 0]), ([26, 51], [51, 25]),
    ):  # fmt: skip
        want = np.einsum(X, axes[0], X.T, axes[1], *axes[2:])
        for wrap in (lambda f: f, md.jit):
            np.testing.assert_allclose(wrap(lambda x, y: md.einsum(x, axes[0], y, axes[1], *axes[2:]))(x, y).numpy(), want)  # noqa: B023
    with pytest.raises(TypeError, match=r"einsum: subscripts must be a string, or a list of numbers of axes behind each array, not f64\[2,3\]"):
        md.einsum(x, y)
    for wrong in (-1, 52):
        with pytest.raises(ValueError, match=f"einsum: the number of an axis is from 0 to 51, not {wrong}"):
            md.einsum(x, [0, wrong])
    found = md.linalg.lstsq(y, md.tensor([[1.0], [2.0], [3.0]], dtype=md.float64))
    want = torch.linalg.lstsq(torch.tensor(X.T), torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64), driver="gelsd")
    np.testing.assert_allclose(found.solution.numpy(), want.solution.numpy())
    assert found.rank.item() == want.rank.item() == 2 and found[0] is found.solution
    np.testing.assert_allclose(found.singular_values.numpy(), want.singular_values.numpy())
