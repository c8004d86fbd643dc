"""Using minidl changes no setting of NumPy, torch, jax, numba or the process, and loads no framework that was not chosen.

Each backend is used in a fresh process for eager work, derivatives, jit, training and random numbers; everything global that a user may have set is
looked at before and after. The one exception is jax's preallocation of a GPU's memory, which minidl turns off if it starts the client and the user
said nothing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

BACKENDS = ("numpy", "numba", "torch", "jax")

#: What is global. Values are compared as JSON text; `first` are settings that the user made before, which must survive.
PREAMBLE = """
import builtins, decimal, faulthandler, gc, json, locale, logging, multiprocessing, os, random, resource, signal, socket, sys, tempfile, threading
import time, warnings
import numpy as np
backend = sys.argv[1]
FRAMEWORKS = ("torch", "jax", "numba")

def load():
    if backend == "torch":
        global torch
        import torch
    elif backend == "jax":
        global jax, jnp
        import jax, jax.numpy as jnp
    elif backend == "numba":
        global numba
        import numba
        numba.get_num_threads()  # which starts numba's threads, and asks multiprocessing for a start method; minidl's do neither

def settings():
    found = {
        "numpy errors": np.geterr(), "numpy error callback": repr(np.geterrcall()), "numpy print": np.get_printoptions(),
        "numpy buffer": np.getbufsize(), "numpy random": repr(np.random.get_state()), "numpy promotion": str((np.ones(1, "f4") * 2.5).dtype),
        "random": repr(random.getstate()), "warnings": [repr(f) for f in warnings.filters], "showwarning": repr(warnings.showwarning),
        "environment": {k: v for k, v in os.environ.items() if not (backend == "jax" and k == "XLA_PYTHON_CLIENT_PREALLOCATE")},
        "path": list(sys.path), "hooks": repr([sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook, sys.meta_path]),
        "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(), "trace": repr([sys.gettrace(), sys.getprofile()]),
        "signals": {int(s): repr(signal.getsignal(s)) for s in signal.valid_signals()}, "gc": [gc.isenabled(), gc.get_threshold()],
        "threads": sorted(t.name for t in threading.enumerate()), "cwd": os.getcwd(), "locale": locale.setlocale(locale.LC_ALL),
        "logging": [logging.root.level, repr(logging.root.handlers), logging.root.manager.disable],
        "start method": multiprocessing.get_start_method(allow_none=True), "decimal": repr(decimal.getcontext()),
        "streams": repr([sys.stdout, sys.stderr, sys.stdin]), "nice": os.nice(0), "affinity": sorted(os.sched_getaffinity(0)),
        "collector": [gc.get_freeze_count(), repr(gc.callbacks), gc.get_debug()],
        "loggers": {n: [v.level, repr(v.handlers), v.propagate, v.disabled] for n, v in list(logging.root.manager.loggerDict.items())
                    if isinstance(v, logging.Logger) and not n.startswith("minidl")},
        "logging classes": repr([logging.getLoggerClass(), logging.lastResort]), "faulthandler": faulthandler.is_enabled(),
        "limits": [resource.getrlimit(getattr(resource, k)) for k in dir(resource) if k.startswith("RLIMIT_")],
        "timeout": socket.getdefaulttimeout(), "builtins": [sorted(vars(builtins)), repr(builtins.__import__)], "path hooks": repr(sys.path_hooks),
        "interpreter": [threading.stack_size(), sys.get_int_max_str_digits(), sys.getdlopenflags(), sys.dont_write_bytecode, time.tzname],
        "timers": [signal.getitimer(t) for t in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "temporary": tempfile.tempdir,
        "subnormals": float(np.float64(5e-324) * 1.0), "umask": os.umask(os.umask(0o22)) * 0,
    }
    if "torch" in globals():
        cudnn = torch.backends.cudnn
        found |= {
            "dtype": str(torch.get_default_dtype()), "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
            "anomaly": torch.is_anomaly_enabled(), "torch threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
            "deterministic": [torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()],
            "tf32": [torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32], "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic],
            "device": str(torch.get_default_device()), "seed": torch.initial_seed(), "torch random": torch.get_rng_state().tolist(),
            "precision": torch.get_float32_matmul_precision(), "torch print": repr(torch._tensor_str.PRINT_OPTS),
            "autocast": [torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")], "mkldnn": torch.backends.mkldnn.enabled,
            "warn always": torch.is_warn_always_enabled(), "sharing": torch.multiprocessing.get_sharing_strategy(),
            "modes": [torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack(), torch.is_autocast_cache_enabled()],
            "kernels": [torch.backends.quantized.engine, torch.backends.opt_einsum.enabled, torch.backends.cuda.flash_sdp_enabled(),
                        torch.backends.cuda.mem_efficient_sdp_enabled()],
            "flush": torch.tensor([1e-40]).mul(1.0).item() > 0, "attention": torch.backends.cuda.math_sdp_enabled(),
        }
    if "jax" in globals():
        found |= {
            "arange": str(jnp.arange(3).dtype), "division": str((jnp.arange(3) / 2).dtype),
            "config": {k: repr(v) for k, v in sorted(jax.config.values.items())}, "devices": repr(jax.devices()),
        }
    if "numba" in globals():
        found |= {"numba config": {k: repr(getattr(numba.config, k)) for k in dir(numba.config) if k.isupper()}}
        found |= {"numba threads": numba.get_num_threads(), "numba mask": numba.config.NUMBA_NUM_THREADS}
    return json.loads(json.dumps(found, default=str))

def compare(before, after, doing):
    after["loggers"] = {n: v for n, v in after["loggers"].items() if n in before["loggers"]}  # a module that is loaded may have one of its own
    different = {k: (v, after[k]) for k, v in before.items() if v != after[k]}
    assert not different, (doing, different)
"""

USE = """
def work():
    md.manual_seed(1)
    x = md.tensor([[0.5, -1.0], [2.0, 3.0]], dtype=md.float64, requires_grad=True)
    f = lambda x: (md.exp(-x) @ x / (1 + x * x)).sum() + md.log(-(x * x)).max()  # NaN on purpose: no error state may leak
    f(x).backward()
    assert x.grad.dtype is md.float64
    md.jit(md.grad(f))(x.detach())
    md.vmap(md.grad(lambda r: (r * r).sum()))(x.detach())
    md.random.normal(md.random.key(0), (3,))
    md.random.permutation(md.random.key(0), 5)
    md.arange(3) // 0
    md.tensor([1.0, float("nan"), 1e30]).to(md.int32)
    md.full((2,), 1e30) * 1e30
    md.linalg.solve(x.detach(), x.detach())
    model = md.nn.Sequential(md.nn.Linear(2, 3), md.nn.ReLU(), md.nn.Dropout(0.5), md.nn.Linear(3, 1))
    optimizer = md.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = md.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    data = md.ones((4, 2)), md.zeros((4, 1))
    step(*data)
    jitted = md.jit(step)
    first = jitted(*data).item()
    assert jitted(*data).item() != first
    with md.no_grad():
        f(x)
    for wrong in (lambda: md.ones((2,)) + md.ones((3,)), lambda: md.ones((3,))[5], lambda: md.linalg.inv(md.zeros((2, 2)))):
        try:
            wrong()
        except (ValueError, IndexError):
            continue
        raise AssertionError("no error")
    repr(x)
"""

DEFAULTS = (
    PREAMBLE
    + """
if sys.argv[2] == "first":
    load()
    before = settings()
import minidl as md
if sys.argv[2] == "first":
    compare(before, settings(), "import")
assert not {"torch", "jax", "numba"} & set(sys.modules) - {backend}
md.set_backend(backend)
(md.ones((2,)) + 1.0).sum().item()
if sys.argv[2] == "after":  # minidl loads the library; its own import may set what it likes, using it may not
    load()
    before = settings()
"""
    + USE
    + """
work()
compare(before, settings(), "use")
others = {name for name in FRAMEWORKS if name in sys.modules} - {backend}
assert not others, f"the {backend} backend loaded {others}"
md.set_backend("numpy")
(md.ones((2,)) + 1.0).sum().item()
compare(before, settings(), "leaving")
"""
)

#: Settings that differ from the defaults: they survive, and the results do not depend on them.
OWN = (
    PREAMBLE
    + """
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
load()
np.seterr(all="raise"), np.set_printoptions(precision=2), np.random.seed(5), random.seed(5), warnings.simplefilter("error")
signal.signal(signal.SIGUSR1, lambda *a: None), logging.root.setLevel(logging.ERROR)
if backend == "torch":
    torch.set_default_dtype(torch.float64), torch.set_grad_enabled(False), torch.manual_seed(5), torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True), torch.set_printoptions(precision=2), torch.set_float32_matmul_precision("high")
if backend == "jax":
    jax.config.update("jax_enable_x64", True), jax.config.update("jax_default_matmul_precision", "float32")
    jax.config.update("jax_debug_nans", False), jax.config.update("jax_numpy_rank_promotion", "raise")
if backend == "numba":
    numba.set_num_threads(1)
before = settings()
import minidl as md
md.set_backend(backend)
"""
    + USE
    + """
work()
assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
assert md.ones((2,)).dtype is md.float32 and (md.ones((2,)) + md.ones((2, 2))).dtype is md.float32
compare(before, settings(), "use")
"""
)


def python(code: str, *args: str) -> None:
    """Run in a fresh interpreter; its complaint is the failure. XLA compiles with little effort there: its programs are not what is looked at."""
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_PYTHON_CLIENT_PREALLOCATE", "MINIDL_BACKEND")}
    env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def there(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")


@pytest.mark.parametrize(("backend", "order"), [(b, o) for b in BACKENDS for o in ("first", "after") if (b, o) != ("numpy", "after")])
def test_no_global_setting_changes(backend: str, order: str):
    """order: whether the library is imported before minidl or by it (NumPy always is before)."""
    there(backend)
    python(DEFAULTS, backend, order)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_users_own_settings_survive(backend: str):
    there(backend)
    python(OWN, backend)


#: What stands above the core: workers that load data, a Trainer with its bar, files, what engines may be asked for.
ABOVE = (
    PREAMBLE
    + """
md_folder = sys.argv[2]
gc.collect()
before = settings()
import minidl as md
model = md.nn.Sequential(md.nn.Linear(2, 3), md.nn.BatchNorm1d(3), md.nn.Linear(3, 2))
data = md.data.TensorDataset(md.ones((8, 2)), md.zeros((8,), dtype="int64"))
for batch in md.data.DataLoader(data, batch_size=4, shuffle=True, num_workers=1):
    pass
compare(before, settings(), "workers")
trainer = md.train.Trainer(model, md.nn.CrossEntropyLoss(), md.optim.Adam(model.parameters()))
trainer.fit(md.data.DataLoader(data, batch_size=4), epochs=1)
compare(before, settings(), "training")
md.saving.save(os.path.join(md_folder, "model.safetensors"), model.state_dict())
md.summary(model, (4, 2)), md.profile(lambda: model(md.ones((4, 2)))), md.freeze(model.eval())
with md.autocast(dtype="bfloat16"):
    model(md.ones((4, 2))).sum().backward()
compare(before, settings(), "the rest")
multiprocessing.set_start_method("spawn")  # is still for the user to say
"""
)


def test_the_rooms_above_the_core_change_nothing(tmp_path):
    python(ABOVE, "numpy", str(tmp_path))


def test_a_backend_s_library_does_not_move_numpy_s_stream():
    """Importing jax draws from NumPy's global generator; minidl puts it back."""
    there("jax")
    python("""
import numpy as np
np.random.seed(3)
want = np.random.RandomState(3).rand()
import minidl as md
md.set_backend("jax")
md.ones((2,)) + 1.0
assert np.random.rand() == want
""")


@pytest.mark.parametrize("on, frozen", [(True, False), (False, False), (True, True)])
def test_the_collector_is_as_it_was_when_importing_fails_and_when_it_does_not(on, frozen):
    python(f"""
import gc, sys
if not {on}:
    gc.disable()
if {frozen}:
    gc.freeze()
sys.modules["minidl.ops"] = None
try:
    import minidl
except ImportError:
    pass
else:
    raise AssertionError("the import did not fail")
assert gc.isenabled() is {on}
for name in [n for n in sys.modules if n.startswith("minidl")]:
    del sys.modules[name]
import minidl
assert gc.isenabled() is {on} and (gc.get_freeze_count() > 0) is {frozen}
""")
