"""PyTorch's other rooms under minidl's name: func, special, cuda.amp, utils.data, utils.checkpoint, and autograd's checks, against torch's."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
X = np.array([[0.3, 1.7, 2.5], [0.9, 0.2, 4.0]])


def test_a_program_of_torch_func_runs_with_its_imports_changed():
    rows = {}
    for name, tensor in (("torch", torch.tensor), ("minidl", md.tensor)):
        func = importlib.import_module(f"{name}.func")
        nn = importlib.import_module(f"{name}.nn")
        net, w = nn.Linear(3, 1), tensor([[0.1, -0.2, 0.3]])
        params = {"weight": w.double() if name == "torch" else w.to(md.float64), "bias": tensor([0.5]).double()}

        def loss(params, x, net=net, func=func):
            return (func.functional_call(net, params, (x.unsqueeze(0),)) ** 2).sum()

        each = func.vmap(func.grad(loss), in_dims=(None, 0), randomness="error", chunk_size=1)(params, tensor(X))
        rows[name] = {k: v.numpy() for k, v in each.items()}
    for k, v in rows["torch"].items():
        np.testing.assert_allclose(rows["minidl"][k], v, rtol=1e-6)


OTHERWISE = {"polygamma", "softmax", "log_softmax", "logsumexp", "multigammaln", "round"}  # called with more than numbers


@pytest.mark.parametrize("name", sorted({*md.special.__all__} - OTHERWISE))
def test_special_functions_are_torchs(name):
    two = name in ("xlogy", "xlog1py", "gammainc", "gammaincc", "zeta")
    args = [X + 1.1, X[:, ::-1] + 0.5] if two else [X / 5 if name in ("ndtri", "erfinv", "logit") else X]
    want = getattr(torch.special, name)(*(torch.tensor(a.copy()) for a in args))
    np.testing.assert_allclose(getattr(md.special, name)(*(md.tensor(a.copy()) for a in args)).numpy(), want.numpy(), rtol=1e-9)


def test_softmax_and_round_take_torchs_words():
    of = lambda T, x: [
        T.special.softmax(x, 1, dtype=T.float64), T.special.log_softmax(x, dim=0, dtype=T.float64), T.special.logsumexp(x, dim=1),
        T.special.round(x, decimals=1),
    ]  # fmt: skip
    x = X.astype(np.float32) * 1.23
    for mine, its in zip(of(md, md.tensor(x)), of(torch, torch.tensor(x)), strict=True):
        np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=1e-6)
        assert mine.numpy().dtype == its.numpy().dtype


def test_checkpoint_is_called_as_torch_calls_it():
    from minidl.utils.checkpoint import checkpoint, checkpoint_sequential

    runs = []

    def f(x, scale=1.0):
        runs.append(scale)
        return md.exp(md.exp(x)) * scale

    x = md.tensor([0.1, 0.2], requires_grad=True)
    checkpoint(f, x, use_reentrant=False, scale=2.0).sum().backward()
    assert runs == [2.0, 2.0]  # forward, and again in the backward pass
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp([0.1, 0.2] + np.exp([0.1, 0.2])), rtol=1e-6)
    net = md.nn.Sequential(*(md.nn.Linear(3, 3) for _ in range(5)))
    data = md.tensor(X).float()
    for functions in (net, list(net)):
        net.zero_grad()
        checkpoint_sequential(functions, 2, data, use_reentrant=False).sum().backward()
        found = [p.grad.numpy() for p in net.parameters()]
        net.zero_grad()
        net(data).sum().backward()
        assert all(np.array_equal(p.grad.numpy(), g) for p, g in zip(net.parameters(), found, strict=True))


def test_amp_of_cuda_trains_where_there_is_no_cuda():
    from minidl.cuda.amp import GradScaler, autocast

    net, scaler = md.nn.Linear(3, 1), GradScaler(256.0)
    opt = md.optim.SGD(net.parameters(), lr=0.1)
    before = net.weight.detach().numpy()
    with autocast(enabled=True):
        out = net(md.tensor(X).float())
    assert out.dtype is (md.float16 if out.device.startswith("cuda") else md.float32)
    scaler.scale((out**2).mean()).backward()
    scaler.step(opt)
    scaler.update()
    assert scaler.get_scale() == 256.0
    assert not np.array_equal(before, net.weight.detach().numpy())


def test_data_lies_in_utils_too():
    from minidl.utils.data import DataLoader, TensorDataset, random_split

    a, b = random_split(TensorDataset(md.arange(10)), [7, 3])
    assert (len(a), len(b), len(DataLoader(a, batch_size=4))) == (7, 3, 2)
    assert md.utils.data.Dataset is md.data.Dataset
    assert md.cuda.is_available() == (md.cuda.device_count() > 0)
    assert issubclass(md.cuda.amp.autocast, md.autocast)


def test_gradcheck_says_true_for_a_derivative_and_raises_for_another():
    class Wrong(md.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0].detach()

    x, y = (md.tensor(v, dtype=md.float64).requires_grad_() for v in ([0.3, 2.0], [1.5, -0.4]))
    assert md.autograd.gradcheck(lambda x, y: (x * y, x.exp().sum()), (x, y), eps=1e-6, atol=1e-4)
    assert md.autograd.gradgradcheck(lambda x, y: x**3 * y, (x, y))
    assert md.autograd.gradcheck(lambda x, n: x * n, (x, 3))
    assert not md.autograd.gradcheck(Wrong.apply, (x,), raise_exception=False)
    assert not md.autograd.gradgradcheck(Wrong.apply, (x,), raise_exception=False)
    with pytest.raises(RuntimeError, match="output 0 in input 0"):
        md.autograd.gradcheck(Wrong.apply, (x,))
    with pytest.raises(ValueError, match="requires grad"):
        md.autograd.gradcheck(md.sin, (x.detach(),))
    with pytest.raises(TypeError, match="real inputs"):
        md.autograd.gradcheck(lambda z: z * z, (md.ones(1, dtype=md.complex128).requires_grad_(),))
    assert md.autograd.gradcheck(lambda x: md.complex(x * x, md.sin(x)), (x,))
    with pytest.raises(RuntimeError, match="output 0 in input 0"):
        md.autograd.gradcheck(lambda x: md.complex(Wrong.apply(x), x), (x,))
    assert md.autograd.gradgradcheck(lambda x: (x**3, x > 0), (x,))
    assert md.autograd.Variable(x).requires_grad is False


def test_functional_keeps_the_graph_where_it_is_told_to():
    def third(T, tensor):
        x = tensor([1.0, 2.0], requires_grad=True)
        of = T.autograd.functional
        found = of.jacobian(lambda v: v**3, x, create_graph=True)
        h = of.hessian(lambda v: (v**4).sum(), x, create_graph=True)
        (d,) = T.autograd.grad(found.sum() + h.sum(), x)
        assert not of.jacobian(lambda v: v**3, x, vectorize=T is md).requires_grad
        assert not of.vjp(lambda v: v * x, x, x)[1].requires_grad
        return [d, of.jvp(lambda v: v * v, tensor(3.0), None)[1], of.hvp(lambda v: (v**3).sum(), x, x)[1]]

    for mine, its in zip(third(md, md.tensor), third(torch, torch.tensor), strict=True):
        np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="strict"):
        md.autograd.functional.jacobian(md.sin, md.ones(1), strict=True)
    with pytest.raises(RuntimeError, match="v, the direction"):
        md.autograd.functional.jvp(md.sin, md.ones(2))


def test_functional_wants_one_element_where_torch_does():
    of, theirs, f = md.autograd.functional, torch.autograd.functional, lambda x: (x * x).sum().reshape(1)
    assert of.hessian(f, md.ones(2)).shape == tuple(theirs.hessian(f, torch.ones(2)).shape) == (2, 2)
    assert of.vjp(f, md.ones(2))[1].tolist() == theirs.vjp(f, torch.ones(2))[1].tolist()
    assert of.jvp(lambda x: x * x, md.ones(1))[1].tolist() == theirs.jvp(lambda x: x * x, torch.ones(1))[1].tolist()
    for T in (md, torch):
        with pytest.raises(RuntimeError, match="one element|single element"):
            T.autograd.functional.vjp(lambda x: x * x, T.ones(2))
        with pytest.raises(RuntimeError, match="one element|single element"):
            T.autograd.functional.hessian(lambda x: x * x, T.ones(2))


def test_backward_fills_the_inputs_alone_that_are_named():
    def found(T, tensor):
        out = []
        a, b = (tensor([1.0, 2.0]).double().requires_grad_() for _ in range(2))
        a.register_hook(lambda g: g * 10)
        c = (a * b).sum()
        c.backward(inputs=[a], retain_graph=True)
        out += [a.grad.tolist(), b.grad]
        c.backward(inputs=b)
        (a * 3).sum().backward(inputs=(a, b, a))
        out += [a.grad.tolist(), b.grad.tolist()]
        out.append(T.autograd.grad((a * 2).sum(), [a, b], materialize_grads=True)[1].tolist())
        out.append(T.autograd.grad((a * 2).sum(), [a, b], None, None, False, True, True)[1])  # only_inputs, allow_unused
        z = tensor([1 + 2j, 3 - 1j]).requires_grad_()
        (z * z.conj()).real.sum().backward(inputs=[z])
        return [*out, z.grad.tolist()]

    assert found(md, md.tensor) == found(torch, torch.tensor)
    w, v = (md.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    step = md.jit(lambda x: (w * v * x).sum().backward(inputs=[w]))
    for _ in range(3):
        step(md.ones(2))
    assert w.grad.tolist() == [3.0, 6.0]
    assert v.grad is None
    for inputs in ([w * 2], [], [v.detach()], "w"):
        with pytest.raises(RuntimeError, match="backward: inputs are leaves"):
            (w * 2).sum().backward(inputs=inputs)
    with pytest.raises(RuntimeError, match="backward: output .* does not require grad"):
        v.detach().sum().backward(inputs=[w])
    with pytest.raises(ValueError, match="allow_unused"):
        md.autograd.grad((w * 2).sum(), [v], allow_unused=False, materialize_grads=True)
    v.grad = (v * v).detach()
    (v**3).sum().backward(inputs=[v], create_graph=True)
    (v * 2).sum().backward(inputs=[v])  # as it is without inputs: what grows by numbers is a number
    assert v.grad.tolist() == [6.0, 18.0]
    assert v.grad.node is None


def test_polygamma_and_factorizations_take_torchs_positions():
    np.testing.assert_allclose(md.special.polygamma(1, md.tensor(X)).numpy(), torch.special.polygamma(1, torch.tensor(X)).numpy(), rtol=1e-8)
    assert md.linalg.qr(md.tensor(X.T), "complete")[0].shape == (3, 3)
    assert md.linalg.svd(md.tensor(X), False)[2].shape == (2, 3)
    assert md.func.jacrev(lambda x: x * x, chunk_size=1)(md.tensor([3.0])).tolist() == [[6.0]]
    assert [t.item() for t in md.func.jvp(md.sin, (md.tensor(0.0),), (md.tensor(1.0),))] == [0.0, 1.0]


@pytest.mark.cpu
def test_cuda_says_what_there_is_for_streams_and_events():
    for name, way in (("Stream", r"md\.cuda\.synchronize"), ("CUDAGraph", "cudagraph"), ("nosuch", "no attribute 'nosuch'$")):
        with pytest.raises(AttributeError, match=way):
            getattr(md.cuda, name)


def test_cuda_is_asked_where_there_is_none():
    assert md.cuda.is_available() is md.cuda.is_initialized() is md.cuda.is_bf16_supported() is False
    assert md.cuda.memory_allocated() == md.cuda.max_memory_allocated(0) == md.cuda.memory_reserved("cuda:0") == md.cuda.max_memory_reserved() == 0
    for call in (md.cuda.empty_cache, md.cuda.synchronize, md.cuda.reset_peak_memory_stats, lambda: md.cuda.set_device(0)):
        assert call() is None
    assert md.zeros(()).device == "cpu"
    with pytest.raises(RuntimeError, match="computes on 'cpu'"):
        md.cuda.current_device()
    with pytest.raises(RuntimeError, match="no CUDA"):
        md.cuda.get_device_name()


@pytest.mark.cpu
def test_scripts_begin_with_switches_devices_and_parallel():
    import minidl.backends.cudnn as cudnn

    assert cudnn is md.backends.cudnn and cudnn.benchmark is False
    md.backends.cudnn.benchmark = cudnn.deterministic = md.backends.cuda.matmul.allow_tf32 = True
    assert cudnn.benchmark and not cudnn.is_available() and not md.backends.mps.is_available() and md.backends()["numpy"] is True
    cudnn.benchmark = cudnn.deterministic = md.backends.cuda.matmul.allow_tf32 = False
    before = md.get_default_device()
    md.set_default_device(md.device("cpu"))
    md.set_default_device(None)
    assert md.get_default_device() == before and before.type == "cpu"
    with pytest.raises(ValueError, match="device"):
        md.set_default_device("cuda:7")
    net, x = md.nn.Linear(3, 2), md.ones(4, 3)
    assert (md.nn.parallel.data_parallel(net, (x,), [0]) == net(x)).all().item()
    with pytest.raises(NotImplementedError, match="2 devices"):
        md.nn.parallel.data_parallel(net, x, range(2))
    with pytest.raises(AttributeError, match="leave the wrapper out"):
        _ = md.nn.parallel.DistributedDataParallel


@pytest.mark.parametrize(
    ("room", "name", "way"), [("optim", "SparseAdam", "Adam$"), ("nn", "DataParallel", "one device"), ("nn", "SyncBatchNorm", "BatchNorm2d")]
)
def test_what_is_not_built_says_what_to_use(room, name, way):
    with pytest.raises(AttributeError, match=f"module 'minidl.{room}' has no attribute '{name}'; .*{way}"):
        getattr(getattr(md, room), name)
    assert not hasattr(getattr(md, room), "Nothing")
