"""Random numbers: equal to jax.random where promised, well distributed, and one stream whatever the backend or transform."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

import minidl as md

jax = pytest.importorskip("jax")
SEEDS = (0, 42, 2**32 - 1)
SHAPES = ((), (1,), (7,), (3, 5), (2, 0, 3))


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


def pair(seed):
    return md.random.key(seed), jax.random.key(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_equal_jax(seed):
    ours, theirs = pair(seed)
    np.testing.assert_array_equal(ours.numpy(), jax.random.key_data(theirs))
    np.testing.assert_array_equal(md.random.split(ours, 5).numpy(), jax.random.key_data(jax.random.split(theirs, 5)))
    np.testing.assert_array_equal(md.random.fold_in(ours, 7).numpy(), jax.random.key_data(jax.random.fold_in(theirs, 7)))
    np.testing.assert_array_equal(md.random.fold_in(ours, md.asarray(7)).numpy(), jax.random.key_data(jax.random.fold_in(theirs, 7)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64"])
def test_bits_equal_jax(dtype, shape):
    for seed in SEEDS:
        ours, theirs = pair(seed)
        with jax.enable_x64(True):
            want = np.asarray(jax.random.bits(theirs, shape, dtype))
        got = md.random.bits(ours, shape, dtype).numpy()
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_equals_jax(dtype):
    for seed in SEEDS:
        ours, theirs = pair(seed)
        with jax.enable_x64(True):
            want = np.asarray(jax.random.uniform(theirs, (1000,), dtype))
        got = md.random.uniform(ours, (1000,), dtype).numpy()
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))


def test_bounded_uniform_is_rounded_once_and_stays_below_its_bound():
    key, bound = md.random.key(3), 0.05
    unit = md.random.uniform(key, (5000,)).numpy().astype(np.float64)
    np.testing.assert_array_equal(md.random.uniform(key, (5000,), None, -bound, bound).numpy(), (unit * (2 * bound) - bound).astype(np.float32))
    assert md.random.uniform(key, (200000,), "float16", 1000.0, 1001.0).max().item() < 1001.0
    low = md.asarray([0.0, 10.0])
    between = md.random.uniform(key, (100, 2), None, low, low + 1.0).numpy()
    assert ((between >= [0, 10]) & (between < [1, 11])).all()


MOST = {name: float(md.finfo(name).max) for name in ("float16", "bfloat16", "float32", "float64")}


@pytest.mark.parametrize(("dtype", "low", "high"), [
    *((name, -most, most) for name, most in MOST.items()), ("float64", -1.7e308, 1.7e308), ("float64", -1e308, 0.5e308),
    ("float32", 3e38, 3.4028235e38),
])  # fmt: skip
def test_bounds_may_be_as_far_apart_as_the_dtype_has(dtype, low, high):
    draws = []
    for backend in ("numpy", "numba", "torch", "jax"):
        with md.use_backend(backend):
            key = md.random.key(3)
            draws.append(md.random.uniform(key, (900,), dtype, low, high))
            ends = [md.asarray(v, "float64") for v in (low, high)]
            draws.append(md.jit(lambda k, a, b: md.random.uniform(k, (900,), dtype, a, b))(key, *ends))
            total = md.grad(lambda a, b, k=key: md.sum(md.random.uniform(k, (900,), "float64", a, b)), argnums=(0, 1))(*ends)
            np.testing.assert_allclose(sum(t.item() for t in total), 900, rtol=1e-12)
    values = [d.numpy().astype(np.float64) for d in draws]
    for v in values:
        np.testing.assert_array_equal(v, values[0])
        assert (v >= low).all() and (v < high).all() and v.min() < low + (high / 16 - low / 16) and v.max() > high - (high / 16 - low / 16)


def test_bounds_beyond_the_dtype_are_refused():
    for low, high, wrong in ((0.0, 1e39, "maxval"), (-1e39, 0.0, "minval"), (-np.inf, 1.0, "minval")):
        with pytest.raises(ValueError, match=rf"random\.uniform: {wrong} must be finite in float32, not -?(1e\+39|inf)"):
            md.random.uniform(md.random.key(0), (2,), "float32", low, high)


def test_normal_is_the_quantile_of_the_uniform_draw():
    key = md.random.key(42)
    u = md.random.uniform(key, (5000,)).numpy() * np.float32(2) + np.float32(-1 + 2**-24)
    exact = np.array([NormalDist().inv_cdf((1 + float(x)) / 2) for x in u])
    got = md.random.normal(key, (5000,)).numpy()
    assert (np.abs(got - exact) <= 0.5001 * np.spacing(np.abs(exact).astype(np.float32))).all()
    # NormalDist is an implementation of the same algorithm, in double precision
    u = md.random.uniform(key, (3000,), "float64").numpy() * 2 - 1 + 2**-53
    exact = np.array([NormalDist().inv_cdf(0.5 + float(x) / 2) for x in u])
    np.testing.assert_allclose(md.random.normal(key, (3000,), "float64").numpy(), exact, rtol=1e-12, atol=4e-16)  # p itself is rounded


def test_normal_is_close_to_jax_and_well_distributed():
    ours, theirs = pair(7)
    got = md.random.normal(ours, (20000,)).numpy()
    np.testing.assert_allclose(got, np.asarray(jax.random.normal(theirs, (20000,))), atol=1e-4)  # jax's own erfinv is off by 2e-5 in the tails
    assert abs(got.mean()) < 0.03 and abs(got.std() - 1) < 0.03


def test_randint_equals_jax_for_small_ranges_and_covers_large_ones():
    ours, theirs = pair(11)
    np.testing.assert_array_equal(md.random.randint(ours, (500,), -3, 10).numpy(), np.asarray(jax.random.randint(theirs, (500,), -3, 10)))
    wide = md.random.randint(ours, (20000,), 0, 2**31).numpy()
    assert wide.min() >= 0 and wide.max() < 2**31 and abs(wide.mean() / 2**30 - 1) < 0.03
    with pytest.raises(ValueError, match="randint"):
        md.random.randint(ours, (), 3, 3)


def test_bernoulli_and_permutation_equal_jax():
    ours, theirs = pair(5)
    np.testing.assert_array_equal(md.random.bernoulli(ours, 0.3, (400,)).numpy(), np.asarray(jax.random.bernoulli(theirs, 0.3, (400,))))
    for n in (1, 2, 10, 3000):
        np.testing.assert_array_equal(md.random.permutation(ours, n).numpy(), np.asarray(jax.random.permutation(theirs, n)))
    x = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(md.random.permutation(ours, md.asarray(x)).numpy(), np.asarray(jax.random.permutation(theirs, x)))


@pytest.mark.parametrize("p", [0.0, 2.0**-40, 2.0**-16, 0.1, 0.5, 1 - 2.0**-33, 1.0])
def test_coins_are_the_words_of_threefry_and_those_with_their_halves_exchanged(p):
    key, n = md.random.key(8), 2**16 + 3
    first, second = (w.numpy() for w in md.extend.ns.threefry2x32(key[:1], key[1:], 0, md.arange(-(-n // 4), dtype=md.uint32)))
    turned = [w << np.uint32(16) | w >> np.uint32(16) for w in (first, second)]
    u = np.stack([turned[0], first, turned[1], second], axis=1).reshape(-1)[:n] / 2.0**32
    for shape in ((n,), (1, n), ()):
        got = md.random.coins(key, p, shape)
        assert got.dtype is md.bool and got.shape == shape
        np.testing.assert_array_equal(got.numpy().reshape(-1), (u < round(p * 2**32) / 2**32)[: got.size])
    many = md.random.coins(key, p, (4, 2**18)).numpy()
    assert abs(many.mean() - p) <= 5 * (p * (1 - p) / many.size) ** 0.5 + 2.0**-33
    pairs = many.reshape(-1, 2).all(axis=1).mean()
    assert abs(pairs - p * p) <= 5 * (p * p * (1 - p * p) * 2 / many.size) ** 0.5 + 2.0**-16


def test_coins_count_the_word_that_is_just_small_enough(backend):
    key = md.random.key(8)
    first, second = (int(w.item()) for w in md.extend.ns.threefry2x32(key[:1], key[1:], 0, md.arange(1, dtype=md.uint32)))
    for i, word in enumerate((first << 16 & 0xFFFFFFFF | first >> 16, first, second << 16 & 0xFFFFFFFF | second >> 16, second)):
        for run in (md.random.coins, md.jit(md.random.coins, static_argnums=(1, 2))):
            assert [run(key, (most + 1) / 2.0**32, (4,)).tolist()[i] for most in (word, word - 1)] == [True, False]


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_what_a_generator_tosses_are_coins_of_its_next_key(backend, p):
    """Few at once, many by the backend's kernel; and the stream goes on alike."""
    with md.use_backend(backend):
        ours, keys = md.random.Generator(3), md.random.Generator(3)
        for shape in ((), (0,), (3, 5), (4, 257), (5000,)):
            x = md.ones(())
            got = ours.coins(p, shape, like=x)
            assert (got.dtype, got.shape, got.backend) == (md.bool, shape, x.backend)
            assert got.tolist() == md.random.coins(keys.next_key(), p, shape).tolist()
        assert ours.key.tolist() == keys.key.tolist()
        assert (ours.coins(p, 3).shape, ours.coins(p, [2, 3]).shape) == ((3,), (2, 3))
        with pytest.raises(ValueError, match=r"random\.coins: p must be between 0 and 1, not 1\.5"):
            ours.coins(1.5, (3,))


def test_coins_are_the_same_where_torchs_compiler_reads():
    """What a compiler reads, and what a GPU runs, are torch's own operations."""
    torch = pytest.importorskip("torch")
    from minidl.random.on_torch import coins

    for key, shape in ((md.random.key(7), ()), (md.random.key(7), (3, 7)), (md.random.key(7), (0, 4)), (md.random.split(md.random.key(3), 3), (6,))):
        bits = torch.from_numpy(key.numpy())
        one = key if key.ndim == 1 else key[0]
        word = int(md.extend.ns.threefry2x32(one[:1], one[1:], 0, md.arange(1, dtype=md.uint32))[0].item())  # the second element's
        for most in (2**31 + 12345, word, word - 1):
            want, got = (coins(k, shape=shape, most=most) for k in (bits, torch.nn.Parameter(bits, requires_grad=False)))
            np.testing.assert_array_equal(got.numpy(), want.numpy())
            assert got.shape == (*key.shape[:-1], *shape)


def test_coins_take_a_key_and_a_probability():
    key = md.random.key(0)
    assert md.random.coins(key, 0.5, (0, 3)).shape == (0, 3) and md.jit(lambda k: md.random.coins(k, 0.5, (2, 0)))(key).shape == (2, 0)
    with pytest.raises(ValueError, match=r"random\.coins: p must be between 0 and 1, not 1\.5"):
        md.random.coins(key, 1.5)
    for p in (0.0, 0.5):
        with pytest.raises(TypeError, match=r"md\.random\.key"):
            md.random.coins(md.asarray([1, 2]), p)


def test_a_key_must_be_a_key():
    with pytest.raises(TypeError, match=r"md\.random\.key"):
        md.random.uniform(md.asarray([1, 2]), (3,))
    with pytest.raises(TypeError, match="randint"):
        md.random.uniform(md.random.key(0), (3,), "int32")


def test_the_generator_splits_on_each_draw_and_a_seed_starts_it_anew():
    first = [md.random.default_generator.next_key().tolist() for _ in range(3)]
    want, state = [], md.random.key(0)
    for _ in range(3):
        pair = md.random.split(state)
        want.append(pair[1].tolist())
        state = pair[0]
    assert first == want and len({tuple(k) for k in first}) == 3
    md.manual_seed(0)
    traced = md.jit(lambda: md.random.default_generator.next_key())
    assert [traced().tolist() for _ in range(3)] == want
    md.manual_seed(0)
    assert md.random.default_generator.next_key().tolist() == first[0]


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_bits_and_normal_are_the_same_on_every_backend(name):
    pytest.importorskip(name)
    key = md.random.key(9)
    with md.use_backend(name):
        other = md.random.key(9)
        assert other.backend == name
        for draw in (
            lambda k: md.random.bits(k, (999,), "uint64"),
            lambda k: md.random.uniform(k, (999,), None, -0.3, 0.7),
            lambda k: md.random.randint(k, (999,), 0, 1000),
            lambda k: md.random.bernoulli(k, 0.1, (999,)),
            lambda k: md.random.coins(k, 0.1, (9, 111)),
            lambda k: md.random.coins(k, 3.5 / 2**16, (3000,)),  # with ties of upper halves
            lambda k: md.random.permutation(k, 999),
        ):
            np.testing.assert_array_equal(draw(key).numpy(), draw(other).numpy())
        a, b = md.random.normal(key, (20000,)).numpy(), md.random.normal(other, (20000,)).numpy()
        assert (a == b).mean() >= 0.9999 and (np.abs(a - b) <= np.spacing(np.abs(a))).all()


def test_one_stream_whichever_backend_draws():
    pytest.importorskip("torch")
    want = [md.random.default_generator.next_key().tolist() for _ in range(4)]
    md.manual_seed(0)
    got = []
    for name in ("numpy", "torch", "torch", "numpy"):
        with md.use_backend(name):
            got.append(md.random.default_generator.next_key().tolist())
    assert got == want


def test_jit_carries_the_state():
    step = md.jit(lambda x: md.nn.functional.dropout(x, 0.5))
    x = md.ones(64)
    jitted = [step(x).tolist() for _ in range(3)]
    md.manual_seed(0)
    assert jitted == [md.nn.functional.dropout(x, 0.5).tolist() for _ in range(3)]
    assert jitted[0] != jitted[1] and step.compiles == 1


def test_vmap_draws_per_lane_what_a_loop_over_split_keys_draws():
    x = md.ones((3, 16))
    got = md.vmap(lambda row: md.nn.functional.dropout(row, 0.5))(x)
    md.manual_seed(0)
    keys = md.random.split(md.random.default_generator.next_key(), 3)
    want = md.stack([md.where(md.random.coins(k, 0.5, (16,)), 2.0, 0.0) for k in keys])
    assert got.tolist() == want.tolist()
    functional = md.vmap(lambda k: md.random.normal(k, (4,)))(keys)
    assert functional.tolist() == [md.random.normal(k, (4,)).tolist() for k in keys]


@pytest.mark.parametrize("wrap", [lambda f: f, md.jit], ids=["eager", "jit"])
def test_checkpoint_replays_the_draws_wherever_the_state_lies(wrap):
    pytest.importorskip("torch")
    with md.use_backend("numpy"):
        md.random.default_generator.next_key()
    drop = md.checkpoint(lambda x: md.nn.functional.dropout(x, 0.5))
    x = md.tensor(np.ones(64, "float32"), backend="torch", requires_grad=True)
    y = wrap(drop)(x)
    state = md.random.default_generator.key.tolist()
    y.sum().backward()
    assert x.grad.tolist() == y.tolist() and set(y.tolist()) == {0.0, 2.0}
    assert md.random.default_generator.key.tolist() == state  # the replay left no trace
