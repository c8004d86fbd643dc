"""Loading by worker processes: the same batches as without them, and no hang and no orphan, whatever happens."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import loading
import numpy as np
import pytest

import minidl as md
from minidl.data import DataLoader, TensorDataset, sharing

TESTS = Path(__file__).resolve().parent


def plain(batches):
    """Batches as nested lists, so that all of a run can be compared at once."""
    return [md.tree.map(lambda v: v.tolist() if isinstance(v, md.Tensor) else v, b) for b in batches]


def children():
    return [p for p in multiprocessing.active_children() if p.name.startswith("minidl data worker")]


@pytest.mark.parametrize("dataset", [loading.Noisy(), loading.Stream()], ids=["numbered", "stream"])
def test_any_number_of_workers_gives_the_same_batches_and_resumes(dataset):
    """Order, md keys, Python's and NumPy's generators; two passes; and from the middle of the second with yet another number of workers."""
    shuffle = isinstance(dataset, loading.Noisy)
    make = lambda workers, **more: DataLoader(dataset, 4, shuffle, num_workers=workers, generator=md.random.key(7), **more)
    here = make(0)
    want = [plain(here), plain(here)]
    assert len(want[0]) == 6 and want[0][0][1] != want[1][0][1]
    assert len({repr(row) for b in want[0] for row in b[1]}) == 23 == len({v for b in want[0] for v in b[3]})  # no two samples drew the same
    two = make(2, persistent_workers=True)
    assert plain(two) == want[0]
    batches = iter(two)
    assert plain(itertools.islice(batches, 2)) == want[1][:2]
    state = two.state_dict()
    assert plain(batches) == want[1][2:]
    for again in (make(0), make(3)):
        again.load_state_dict(state)
        assert plain(again) == want[1][2:]
        assert again.state_dict()["batch"] == 0 and again.state_dict()["pass"] == 2
    del two, batches
    assert not children()


def test_leaving_early_and_beginning_again():
    loader = DataLoader(loading.Noisy(), 2, True, num_workers=2, generator=md.random.key(0), persistent_workers=True, prefetch_factor=3)
    want = plain(DataLoader(loading.Noisy(), 2, True, generator=md.random.key(0)))
    batches = iter(loader)
    assert plain([next(batches)]) == want[:1]
    batches.close()
    loader.load_state_dict({**loader.state_dict(), "batch": 1})
    assert plain(loader) == want[1:]
    assert len(children()) == 2  # the same two all the time
    inner = [(a[0].tolist(), b[0].tolist()) for a in itertools.islice(loader, 2) for b in itertools.islice(loader, 1)]  # nested: workers of its own
    assert len(inner) == 2
    for worker in loader._pool.workers:
        worker.process.kill()
    with pytest.raises(RuntimeError, match="worker . .*was killed by SIGKILL"):
        list(loader)
    assert len(list(loader)) == 12  # new workers after a death
    del loader, batches
    assert not children()


def test_large_batches_arrive_whole_in_memory_of_their_own(backend):
    loader = DataLoader(loading.Large(), 3, num_workers=1)
    kept = list(loader)
    assert kept[1]["x"].backend == backend and kept[1]["bits"].dtype is md.bool
    for first, batch in zip((0, 3), kept, strict=True):
        assert batch["x"][:, 3, 2].tolist() == [first, first + 1.0, first + 2.0] and batch["text"] == ["ab" * (first + k) for k in (1, 2, 3)]
    x = kept[0]["x"]
    x += 1.0  # in place, as training might
    assert kept[0]["x"][0, 0, 0].item() == 1.0 and kept[1]["x"][0, 0, 0].item() == 3.0


def test_through_the_pipe_where_memory_has_no_names(monkeypatch):
    monkeypatch.setattr(sharing, "SHARED", False)
    kept = list(DataLoader(loading.Large(), 2, num_workers=2, prefetch_factor=4))
    assert [b["x"][:, 0, 0].tolist() for b in kept] == [[0, 1], [2, 3], [4, 5]]


def test_a_mapped_file_is_mapped_again_by_the_worker(tmp_path):
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(500, 64))
    rows[:] = np.arange(500)[:, None]
    rows.flush()
    assert sum(sharing.Packet(rows[100:400]).sizes) < 1000  # what is sent is the name of the file
    assert sum(sharing.Packet(rows[::2]).sizes) > 250 * 64 * 4  # not one piece of it: a copy
    (first, kind), *_ = DataLoader(loading.Mapped(rows[100:400]), 2, num_workers=1)
    assert first[:, 0].tolist() == [100, 101] and kind == ["memmap", "memmap"]
    (part,) = DataLoader(rows[200:], batch_size=300)  # an array is a data set of its rows, and a batch is one gather
    assert part.shape == (300, 64) and part[0, 0].item() == 200


@pytest.mark.parametrize("error", [KeyError("no such image"), loading.Odd("no such image", 2)], ids=["KeyError", "Odd"])
def test_an_error_comes_with_the_workers_traceback_after_the_batches_before_it(error):
    kind = KeyError if isinstance(error, KeyError) else RuntimeError
    loader = DataLoader(loading.Failing(error), 2, num_workers=2)
    got = []
    with pytest.raises(kind, match="(?s)DataLoader worker process .*Traceback.*__getitem__.*no such image"):
        got.extend(b.tolist() for b in loader)
    assert got == [[0, 1], [2, 3]]
    assert not children()


def test_a_worker_that_is_killed_or_stuck_is_an_error():
    with pytest.raises(RuntimeError, match="was killed by SIGKILL before its batch was ready"):
        list(DataLoader(loading.Dying(), 2, num_workers=1))
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="no batch within 0.2 seconds"):
        list(DataLoader(loading.Slow(30), 1, num_workers=1, timeout=0.2))
    assert time.monotonic() - begin < 20 and not children()


def test_what_cannot_be_sent_to_a_worker_is_named_before_one_starts():
    class Local(loading.Noisy):
        pass

    with pytest.raises(TypeError, match="cannot be sent to another process.*num_workers=0"):
        list(DataLoader(Local(), num_workers=1))
    with pytest.raises(TypeError, match="cannot be sent"):
        list(DataLoader(range(3), num_workers=1, collate_fn=lambda items: items))
    assert not children()
    with pytest.raises(TypeError, match="(?s)DataLoader worker process.*this batch cannot be sent"):  # and what a worker cannot send
        list(DataLoader(loading.Noisy(), num_workers=1, collate_fn=loading.unsendable))


def test_what_a_worker_knows_and_is_given():
    ids = list(DataLoader(loading.Where(), num_workers=2))
    assert {int(i) for i, _ in ids} <= {0, 1} and {int(n) for _, n in ids} == {2}
    assert {int(b) for b in DataLoader(loading.Noted(), None, num_workers=2, worker_init_fn=loading.note)} <= {0, 1}
    assert list(DataLoader(range(5), 2, num_workers=1, collate_fn=loading.total)) == [1, 5, 4]


def test_a_worker_uses_no_device_of_its_parents(monkeypatch):
    monkeypatch.setenv("MINIDL_BACKEND", "torch")  # as a worker that is started afresh sees it
    monkeypatch.setenv("MINIDL_DEVICE", "cuda:98")
    assert [b.tolist() for b in DataLoader(range(4), 2, num_workers=1)] == [[0, 1], [2, 3]]


def test_a_stream_that_divides_itself_and_one_of_torch():
    loader = DataLoader(loading.Divided(10), 2, num_workers=2)
    want = [[0, 2], [1, 3], [4, 6], [5, 7], [8], [9]]
    batches = iter(loader)
    got = [next(batches).tolist() for _ in range(3)]
    state = loader.state_dict()
    assert got + [b.tolist() for b in batches] == want
    again = DataLoader(loading.Divided(10), 2, num_workers=2)
    again.load_state_dict(state)
    assert [b.tolist() for b in again] == want[3:]
    assert [b.tolist() for b in DataLoader(loading.Divided(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    torch_data = pytest.importorskip("torch.utils.data")
    repeated = type("Repeated", (torch_data.IterableDataset,), {"__iter__": lambda self: iter(range(3))})  # local, so in this process
    assert [b.tolist() for b in DataLoader(repeated(), 2)] == [[0, 1], [2]]


SCRIPT = """
import sys, loading
from minidl.data import DataLoader
if __name__ == "__main__":
    for i, pid in enumerate(DataLoader(loading.Slow(0.05), 1, num_workers=2)):
        print(pid.item(), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_no_worker_outlives_its_parent(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "MINIDL_BACKEND": "numpy"}
    run = subprocess.Popen([sys.executable, script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    workers = {int(run.stdout.readline()) for _ in range(4)}
    assert len(workers) == 2
    if how == signal.SIGINT:
        os.killpg(run.pid, how)  # as a terminal does: every process of the group gets it
    else:
        run.send_signal(how)
    _, errors = run.communicate(timeout=20)
    assert run.returncode != 0
    if how == signal.SIGINT:
        assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors  # the parent's own and nobody else's
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    """Whether a process runs (one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


OTHER_STARTS = """
import os, signal, sys, time
from minidl.data import DataLoader
if __name__ == "__main__":
    class Local(list):
        pass
    local = Local(range(8))
    want = [b.tolist() for b in DataLoader(local, 3, collate_fn=None)]
    loader = DataLoader(local, 3, num_workers=2, multiprocessing_context="fork", persistent_workers=True, collate_fn=lambda items: items)
    assert [list(b) for b in loader] == want == [list(b) for b in loader]  # nothing is pickled on the way there
    assert [b.tolist() for b in DataLoader(range(8), 3, num_workers=2, multiprocessing_context="forkserver")] == want
    import multiprocessing.context
    stop, multiprocessing.context.ForkProcess.terminate = multiprocessing.context.ForkProcess.terminate, None
    left = iter(DataLoader(local, 1, num_workers=2, multiprocessing_context="fork"))
    next(left)
    left.close()  # with batches in work; nobody needs to be stopped by force
    multiprocessing.context.ForkProcess.terminate = stop
    batches = iter(loader)
    next(batches)
    print(*[w.process.pid for w in loader._pool.workers], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_other_ways_to_start_processes(tmp_path):
    """Forked workers end with their own connection, whoever else has its ends, and leave when the parent is gone."""
    script = tmp_path / "script.py"
    script.write_text(OTHER_STARTS)
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "MINIDL_BACKEND": "numpy"}
    out = tmp_path / "out"
    with out.open("w") as file:
        done = subprocess.run([sys.executable, "-W", "error", script], env=env, stdout=file, stderr=subprocess.PIPE, text=True, timeout=60)
    workers = [int(v) for v in out.read_text().split()]
    assert len(workers) == 2, done.stderr
    end = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from minidl.data import DataLoader\nprint(list(DataLoader(range(4), num_workers=1)))\n")
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent), "MINIDL_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "if __name__ == '__main__'" in done.stderr and "DataLoader: worker 0" in done.stderr


def test_a_tensor_data_set_goes_to_workers_once_and_arrives_on_the_backend_in_use(backend):
    x = md.asarray(np.arange(20_000, dtype=np.float32).reshape(200, 100))
    loader = DataLoader(TensorDataset(x, np.arange(200)), 50, num_workers=1)
    batches = list(loader)
    assert all(a.backend == backend and (a[:, 0] == b.to(md.float32) * 100.0).all().item() for a, b in batches)
