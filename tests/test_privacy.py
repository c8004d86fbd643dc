"""DP-SGD: single gradients against a loop, clipping and noise by their definitions, the account against published figures, training on digits."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim, privacy
from minidl.nn import functional as F

RNG = np.random.default_rng(0)


def loss(params, x, y):
    w, b = params
    return ((md.tanh(x @ w) + b - y) ** 2).sum()


def problem():
    rng = np.random.default_rng(1)
    params = (md.tensor(rng.normal(size=(4, 2))), md.tensor(rng.normal(size=2)))
    return params, md.tensor(rng.normal(size=(6, 4))), md.tensor(rng.normal(size=(6, 2)))


# ---- gradients -----------------------------------------------------------------------------------------------------------------------------
def test_single_gradients_clipped_and_summed(backend):
    params, x, y = problem()
    found = privacy.example_gradients(loss)(params, x, y)
    single = [md.grad(loss)(params, x[i], y[i]) for i in range(6)]
    flat = np.stack([np.concatenate([g.numpy().ravel() for g in s]) for s in single])
    norms = np.linalg.norm(flat, axis=1)
    clip = float(np.median(norms))
    assert np.allclose(found[0].numpy().reshape(6, -1), flat[:, :8])
    sums, measured = privacy.clip_examples(found, clip)
    want = (flat * np.minimum(1, clip / norms)[:, None]).sum(0)
    assert np.allclose(measured.numpy(), norms) and np.allclose(np.concatenate([s.numpy().ravel() for s in sums]), want)
    weights = md.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    f = privacy.private_gradient(loss, clip, 0.0, expected=3.0)
    for g in (f, md.jit(f)):
        got = g(md.random.key(0), params, x, y, weights=weights)
        want = (flat * np.minimum(1, clip / norms)[:, None])[weights.numpy() > 0].sum(0) / 3
        assert isinstance(got, tuple) and np.allclose(np.concatenate([v.numpy().ravel() for v in got]), want)
    zero = privacy.clip_examples(md.zeros((3, 2)), 1.0)
    assert zero[0][0].tolist() == [0.0, 0.0]


def test_noise_has_the_size_that_was_asked_for():
    params = md.zeros((20_000,))
    f = privacy.private_gradient(lambda w, x: (w * x).sum(), clip=0.5, noise=3.0)
    noise = f(md.random.key(1), params, md.zeros((10, 20_000))).numpy() * 10
    assert abs(noise.std() - 1.5) < 0.03 and abs(noise.mean()) < 0.03
    other = f(md.random.key(2), params, md.zeros((10, 20_000))).numpy() * 10
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03


def test_private_gradients_are_the_same_on_every_backend():
    found = []
    for name in ("numpy", "numba", "torch", "jax"):
        with md.use_backend(name):
            params, x, y = problem()
            got = md.jit(privacy.private_gradient(loss, 1.0, 1.1))(md.random.key(3), params, x, y)
            found.append(np.concatenate([v.numpy().ravel() for v in got]))
    assert all(np.allclose(v, found[0], rtol=1e-10, atol=1e-13) for v in found)


# ---- the account ---------------------------------------------------------------------------------------------------------------------------
def test_the_account_is_the_published_one():
    pytest.importorskip("dp_accounting")
    accountant = privacy.Accountant(noise=4.0, rate=0.01)  # M. Abadi et al. 2016, section 3.2: epsilon 1.26 after 10,000 steps
    accountant.step(10_000)
    assert abs(accountant.epsilon(1e-5) - 1.26) < 0.26 and accountant.epsilon(1e-7) > accountant.epsilon(1e-5)
    again = privacy.Accountant(noise=4.0, rate=0.01)
    again.load_state_dict(accountant.state_dict())
    assert again.epsilon(1e-5) == accountant.epsilon(1e-5) and "steps=10000" in repr(again)
    noise = privacy.noise_for(epsilon=2.0, delta=1e-5, rate=0.1, steps=100)
    exact, less = privacy.Accountant(noise, 0.1), privacy.Accountant(noise * 0.98, 0.1)
    exact.step(100)
    less.step(100)
    assert 1.95 < exact.epsilon(1e-5) <= 2.0 < less.epsilon(1e-5)
    assert privacy.Accountant(0.0, 0.5).epsilon(0.1) == 0.0
    full = privacy.Accountant(2.0, 1.0)
    full.step()
    assert 0 < full.epsilon(1e-5) < float("inf")


@pytest.mark.parametrize(("noise", "rate", "steps"), [(4.0, 0.01, 10_000), (2.0, 1.0, 30), (10.0, 0.1, 500)])
def test_the_account_is_that_of_dp_accounting(noise, rate, steps):
    """Asked directly, with its own orders, of which some are no integers: these can only make the bound a little smaller."""
    dp = pytest.importorskip("dp_accounting")
    one = dp.GaussianDpEvent(noise)
    theirs = dp.rdp.RdpAccountant().compose(dp.SelfComposedDpEvent(one if rate == 1 else dp.PoissonSampledDpEvent(rate, one), steps))
    ours = privacy.Accountant(noise, rate)
    ours.step(steps)
    for delta in (1e-5, 1e-7):
        assert theirs.get_epsilon(delta) * (1 - 1e-9) <= ours.epsilon(delta) <= theirs.get_epsilon(delta) * 1.01


def test_batches_are_drawn_by_chance_and_padded():
    sampler = privacy.PoissonSampler(500, 0.05, md.random.key(0))
    seen, sizes = np.zeros(500), []
    for _ in range(20):
        for positions, weights in sampler:
            assert positions.shape == weights.shape == (sampler.size,)
            kept = positions.numpy()[weights.numpy() > 0]
            assert len(set(kept)) == len(kept)
            seen[kept] += 1
            sizes.append(len(kept))
    assert abs(np.mean(sizes) - 25) < 1.5 and 3.5 < np.std(sizes) < 6.5 and abs(seen.mean() - 20) < 1
    first, second = (privacy.PoissonSampler(50, 0.5, md.random.key(1)) for _ in range(2))
    batches = [p.tolist() for p, _ in first]
    second.load_state_dict({"batch": 1})
    assert next(iter(second))[0].tolist() == batches[1] != batches[0]
    with pytest.raises(RuntimeError, match="examples were drawn, and a batch holds 2; give a larger size"):
        list(privacy.PoissonSampler(100, 0.5, md.random.key(0), size=2))


def test_batches_are_where_the_key_is():
    for name in ("numpy", "torch"):
        with md.use_backend("torch" if name == "numpy" else "numpy"):
            positions, weights = next(iter(privacy.PoissonSampler(20, 0.5, md.random.key(0).to(backend=name))))
        assert positions.backend == weights.backend == name


def test_a_batch_holds_ten_standard_deviations_more_than_is_expected_and_at_most_all():
    assert privacy.PoissonSampler(10_000, 0.01, md.random.key(0)).size == 100 + 99 + 10
    positions, weights = next(iter(privacy.PoissonSampler(3, 1.0, md.random.key(0))))
    assert positions.tolist() == [0, 1, 2] and weights.tolist() == [1.0] * 3
    assert len(list(privacy.PoissonSampler(1, 0.5, md.random.key(0)))) == 2


@pytest.mark.parametrize("jit", [False, True])
def test_the_loss_is_that_of_the_parameters_that_came(jit):
    model, x, y = nn.Linear(2, 1), md.ones((4, 2)), md.tensor([[1.0], [2.0], [3.0], [100.0]])
    settings = {"clip": 1.0, "noise": 0.0, "rate": 1.0, "n": 4, "key": md.random.key(0), "jit": jit}
    step = privacy.PrivateStep(model, optim.SGD(model.parameters(), lr=0.3), F.mse_loss, **settings)
    for _ in range(2):
        wanted = F.mse_loss(model(x[:3]), y[:3]).item()
        assert step(x, y, md.tensor([1.0, 1.0, 1.0, 0.0])).item() == pytest.approx(wanted, rel=1e-5)


def test_wrong_use_says_so():
    for call, text in [
        (lambda: privacy.clip_examples(md.ones((2, 2)), 0.0), "clip must be above 0"),
        (lambda: privacy.private_gradient(loss, 1.0, -1.0), "noise must not be negative"),
        (lambda: privacy.Accountant(1.0, 0.0), r"rate must be in \(0, 1\]"),
        (lambda: privacy.Accountant(1.0, 1.1), r"rate must be in \(0, 1\]"),
        (lambda: privacy.Accountant(-1.0, 0.5), "noise must not be negative"),
        (lambda: privacy.Accountant(1.0, 0.5).epsilon(0.0), "delta must be between 0 and 1"),
        (lambda: privacy.Accountant(1.0, 0.5).epsilon(1.0), "delta must be between 0 and 1"),
        (lambda: privacy.noise_for(0.0, 1e-5, 0.1, 10), "epsilon above 0"),
        (lambda: privacy.PoissonSampler(0, 0.1, md.random.key(0)), "at least one example"),
    ]:
        with pytest.raises(ValueError, match=text):
            call()
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="1 mixes the examples of a batch; use GroupNorm or LayerNorm"):
        privacy.PrivateStep(model, optim.SGD(model.parameters()), F.mse_loss, clip=1.0, noise=1.0, rate=0.1, n=10, key=md.random.key(0))


# ---- training ------------------------------------------------------------------------------------------------------------------------------
def digits():
    from minidl.data.digits import digits_arrays

    images, labels = digits_arrays()
    x, y = md.asarray((images / 16.0).reshape(-1, 64).astype(np.float32)), md.asarray(labels.astype(np.int64))
    return x[:1440], y[:1440], x[1440:], y[1440:]


def accuracy(model, x, y):
    return (md.argmax(model(x), axis=1) == y).to(md.float32).mean().item()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_private_training_learns_less_and_says_what_it_gave_away(backend):
    with md.use_backend(backend):
        x, y, tx, ty = digits()
        results = {}
        for noise in (0.0, 1.0, 60.0):
            md.manual_seed(0)
            model = nn.Linear(64, 10)
            sampler = privacy.PoissonSampler(len(x), 0.1, md.random.key(0))
            optimizer = optim.SGD(model.parameters(), lr=1.0)
            step = privacy.PrivateStep(
                model, optimizer, nn.CrossEntropyLoss(), clip=1.0, noise=noise, rate=0.1, n=len(x), key=md.random.key(1)
            )
            for _ in range(6):
                for positions, weights in sampler:
                    lost = step(x[positions], y[positions], weights)
            assert step._update.compiles <= 2 and lost.item() > 0 and all(p.grad is None for p in model.parameters())
            results[noise] = accuracy(model, tx, ty)
        assert results[0.0] > 0.8 and results[1.0] > 0.75 and results[60.0] < results[1.0] - 0.1
        assert step.accountant.steps == 60 and step.accountant.epsilon(1e-4) < 0.5
        weights_after = []
        for jit in (False, True):
            md.manual_seed(0)
            model = nn.Linear(64, 10)
            options = {"clip": 1.0, "noise": 1.0, "rate": 0.1, "n": len(x), "key": md.random.key(1), "jit": jit}
            step = privacy.PrivateStep(model, optim.SGD(model.parameters(), lr=1.0), nn.CrossEntropyLoss(), **options)
            for (positions, weights), _ in zip(privacy.PoissonSampler(len(x), 0.1, md.random.key(0)), range(2), strict=False):
                step(x[positions], y[positions], weights)
            weights_after.append(model.weight.detach().numpy())
        assert step.accountant.steps == 2 and np.allclose(*weights_after, atol=1e-6)


# ---- a step in parts and in pieces ---------------------------------------------------------------------------------------------------------
def stepped(model, noise=0.0, **options):
    trained = [p for p in model.parameters() if p.requires_grad]
    return privacy.PrivateStep(
        model, optim.SGD(trained, lr=1.0), nn.MSELoss(), **{"clip": 0.5, "noise": noise, "rate": 1.0, "n": 8, "key": md.random.key(0), **options}
    )


@pytest.mark.parametrize("jit", [False, True])
def test_frozen_parameters_have_no_share_in_the_norms(jit):
    md.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    model[0].requires_grad_(False)
    x, y = md.tensor(RNG.normal(size=(8, 3)) * 5), md.tensor(RNG.normal(size=(8, 1)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step = stepped(model, jit=jit)

    def alone(i):
        """The clipped gradient of one example, by the tape."""
        model.zero_grad()
        F.mse_loss(model(x[i : i + 1]), y[i : i + 1]).backward()
        flat = np.concatenate([p.grad.numpy().ravel() for p in model[2].parameters()])
        model.zero_grad()
        return flat * min(1, 0.5 / np.linalg.norm(flat))

    want = sum(alone(i) for i in range(8)) / 8
    step(x, y)
    after = model.state_dict()
    moved = np.concatenate([(before[k] - after[k]).numpy().ravel() for k in ("2.weight", "2.bias")])
    assert np.allclose(moved, want, rtol=1e-10) and all((before[k] == after[k]).all().item() for k in ("0.weight", "0.bias"))
    model[0].requires_grad_(True)  # and from now on they have
    for p in model[2].parameters():
        p.requires_grad_(False)
    step(x, y)
    assert all((after[k] == v).all().item() for k, v in model.state_dict().items())  # the optimizer has not got them
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="PrivateStep: no parameter of the model requires grad"):
        step(x, y)


def test_a_step_that_goes_on_draws_new_noise(tmp_path):
    def parts():
        md.manual_seed(0)
        model = nn.Linear(3, 1)
        return model, stepped(model, noise=2.0, rate=0.5)

    x, y = md.ones((4, 3)), md.ones((4, 1))
    (one, straight), (other, first) = parts(), parts()
    for _ in range(3):
        straight(x, y)
    first(x, y)
    md.saving.save_checkpoint(tmp_path / "c.safetensors", model=other, step=first)
    other, second = parts()
    md.saving.load_checkpoint(tmp_path / "c.safetensors", model=other, step=second)
    assert second.accountant.steps == 1
    for _ in range(2):
        second(x, y)
    assert all((a == b).all().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert second.accountant.epsilon(1e-5) == straight.accountant.epsilon(1e-5)
    with pytest.raises(ValueError, match="the account was kept for noise and rate"):
        stepped(nn.Linear(3, 1), noise=1.0).load_state_dict(second.state_dict())
