"""What a jitted function finds by itself may change in any way that Python has: the next call computes what the function would, eagerly."""

from __future__ import annotations

import array
import bisect
import collections
import contextvars
import dataclasses
import enum
import functools
import heapq
import operator
import sys
import threading
import types
import weakref
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md

settings = types.ModuleType("settings_of_this_test")
settings.rate, settings.weights = 2.0, [md.asarray(3.0)]
exec("FACTOR = 5.0\ndef scaled(x): return x * FACTOR", settings.__dict__)


class Config:
    rate = 2.0
    table: ClassVar[dict] = {"a": 3.0}

    class inner:
        depth = 1.0


class Plain:
    scale = 1.0

    def __init__(self, **values):
        self.__dict__.update(values)

    def grown(self, x):
        return x * self.scale

    def __getitem__(self, i):
        return self.items[i]

    def __len__(self):
        return len(self.items)


class Child(Plain):
    def grown(self, x):
        return super().grown(x) + self.more


class Slots:
    __slots__ = ("a", "t")

    def __init__(self):
        self.a, self.t = 2.0, md.asarray(3.0)


@dataclasses.dataclass(slots=True)
class Data:
    a: float = 2.0


class Reads:
    def __get__(self, x, kind=None):
        return x.hidden


class Described:
    value = Reads()

    def __init__(self):
        self.hidden = 2.0


class Elsewhere:
    def __init__(self, inner):
        self.__dict__["inner"] = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Kind(enum.Enum):
    A, B = 1, 2


def ordered():
    d = {"a": md.asarray(1.0), "b": md.asarray(2.0)}
    return (lambda x: functools.reduce(lambda y, v: y * 2 + v, d.values(), x)), lambda: d.update(a=d.pop("a"))


def ordered_modules():
    both = md.nn.ModuleDict({"a": md.nn.Tanh(), "b": md.nn.ReLU()})

    def turn():
        first = both["a"]
        del both["a"]
        both["a"] = first

    return (lambda x: functools.reduce(lambda y, m: m(y) - 0.5, both.values(), x)), turn


def case(make, read, change):
    def build():
        held = make()
        return (lambda x: read(x, held)), (lambda: change(held))

    return build


class Compared:
    def __init__(self, v=1):
        self.v = v

    def __eq__(self, other):
        return self.v == other.v

    def __lt__(self, other):
        return self.v < other.v

    def __hash__(self):
        return 1

    def __str__(self):
        return "v" * self.v


@dataclasses.dataclass(order=True)
class Ordered:
    v: int = 1


class Computes:
    label, ratio = "rate", 2.0

    def __init__(self):
        self.rate, self.hidden, self.inner = 2.0, 3.0, Plain(rate=5.0)

    def read(self, x, name):
        return x * getattr(self, name)

    def read_inner(self, x, name):
        return x * getattr(self.inner, name + "e")

    def read_text(self, x, kind):
        return x * sum(getattr(self, f"{k}te", 1.0) for k in (kind, kind))

    def asked(self, x, name):
        return x * 2 if hasattr(self, name) else x

    def call(self, x, name):
        return getattr(self, name)(x)

    def grown(self, x):
        return x * self.hidden

    @property
    def tripled(self):
        return self.hidden * 3


N = types.SimpleNamespace
BOX, VARIABLE, UNSET = Computes(), contextvars.ContextVar("variable", default=2.0), contextvars.ContextVar("unset")


def more(name):
    return lambda held: setattr(held, name, getattr(held, name) + 1)


def replaced(held):
    held.of = md.asarray(7.0)
    return held


def weak(held):
    held.ref = weakref.ref(held.of)
    return held



def class_of(*bases):
    """A class of its own, which nobody else changes."""
    return type("C", bases, {"__module__": __name__})


CASES = {
    "order of a dict": ordered,
    "order of modules": ordered_modules,
    "set": case(lambda: {1}, lambda x, s: x * len(s), lambda s: s.add(2)),
    "set, as long": case(lambda: {1}, lambda x, s: x + (1 in s), lambda s: (s.add(2), s.discard(1))),
    "deque": case(lambda: collections.deque([1.0]), lambda x, s: x * sum(s), lambda s: s.append(2.0)),
    "deque of tensors": case(lambda: collections.deque([md.asarray(2.0), md.asarray(3.0)]), lambda x, s: x * s[0], lambda s: s.rotate()),
    "array": case(lambda: array.array("d", [1.0]), lambda x, s: x * s[0], lambda s: s.append(s.pop() + 1)),
    "bytes": case(lambda: bytearray(b"\1"), lambda x, s: x * s[0], lambda s: s.reverse() or s.insert(0, 3)),
    "NumPy": case(lambda: np.ones(2), lambda x, s: x * float(s[0]), lambda s: s.fill(2.0)),
    "NumPy, an attribute": case(lambda: N(a=np.ones(2)), lambda x, s: (x * md.asarray(s.a)).sum(), lambda s: s.a.fill(2.0)),
    "slot": case(Slots, lambda x, s: x * s.a, lambda s: setattr(s, "a", 3.0)),
    "slot with a tensor": case(Slots, lambda x, s: x * s.t, lambda s: setattr(s, "t", md.asarray(5.0))),
    "slots of a dataclass": case(Data, lambda x, s: x * s.a, lambda s: setattr(s, "a", 3.0)),
    "class": case(lambda: None, lambda x, s: x * Config.rate, lambda s: setattr(Config, "rate", Config.rate + 1)),
    "container of a class": case(lambda: None, lambda x, s: x * Config.table["a"], lambda s: Config.table.update(a=Config.table["a"] + 1)),
    "class in a class": case(lambda: None, lambda x, s: x * Config.inner.depth, lambda s: setattr(Config.inner, "depth", Config.inner.depth + 1)),
    "class in a closure": case(lambda: type("C", (), {"a": 1.0, "__module__": __name__}), lambda x, s: x * s.a, lambda s: setattr(s, "a", 2.0)),
    "member of an enum": case(lambda: N(kind=Kind.A), lambda x, s: x * 2 if s.kind is Kind.A else x, lambda s: setattr(s, "kind", Kind.B)),
    "module": case(lambda: None, lambda x, s: x * settings.rate, lambda s: setattr(settings, "rate", settings.rate + 1)),
    "container of a module": case(lambda: None, lambda x, s: x * settings.weights[0], lambda s: settings.weights.insert(0, md.asarray(7.0))),
    "function of a module": case(lambda: None, lambda x, s: settings.scaled(x), lambda s: setattr(settings, "FACTOR", settings.FACTOR + 1)),
    "attribute in front of the class's": case(Plain, lambda x, s: x * s.scale, lambda s: setattr(s, "scale", 3.0)),
    "attribute in front of a method": case(Plain, lambda x, s: s.grown(x), lambda s: setattr(s, "grown", lambda x: x - 1)),
    "attribute of super's method": case(lambda: Child(more=1.0, scale=2.0), lambda x, s: s.grown(x), lambda s: setattr(s, "scale", 3.0)),
    "absent, getattr": case(Plain, lambda x, s: x * getattr(s, "later", 1.0), lambda s: setattr(s, "later", 3.0)),
    "absent, hasattr": case(Plain, lambda x, s: x * 2 if hasattr(s, "later") else x, lambda s: setattr(s, "later", 3.0)),
    "absent of a class": case(lambda: class_of()(), lambda x, s: x * getattr(s, "later", 1.0), lambda s: setattr(type(s), "later", 3.0)),
    "absent of its base": case(lambda: class_of(Plain)(), lambda x, s: x * 2 if hasattr(s, "late") else x, lambda s: setattr(type(s), "late", 3.0)),
    "items": case(lambda: Plain(items=[1.0]), lambda x, s: x * s[0] + len(s), lambda s: s.items.insert(0, 4.0)),
    "descriptor": case(Described, lambda x, s: x * s.value, lambda s: setattr(s, "hidden", 3.0)),
    "of another object": case(lambda: Elsewhere(N(k=1.0)), lambda x, s: x * s.k, lambda s: setattr(s.inner, "k", 2.0)),
    "UserDict": case(lambda: collections.UserDict(a=1.0), lambda x, s: x * s["a"], lambda s: s.update(a=2.0)),
    "comparison": case(lambda: (Compared(), Compared()), lambda x, s: x * 2 if s[0] == s[1] else x, lambda s: more("v")(s[0])),
    "order": case(lambda: (Compared(), Compared(2)), lambda x, s: x * 2 if s[0] < s[1] else x, lambda s: more("v")(s[0])),
    "sorted": case(lambda: [Compared(), Compared(2)], lambda x, s: x * 2 if sorted(s)[0] is s[0] else x, lambda s: setattr(s[0], "v", 3)),
    "among": case(lambda: (Compared(), [Compared()]), lambda x, s: x * 2 if s[0] in s[1] else x, lambda s: more("v")(s[0])),
    "text": case(Compared, lambda x, s: x * len(str(s)), more("v")),
    "text in a text": case(Compared, lambda x, s: x * len(f"{s}"), more("v")),
    "dataclass, comparison": case(lambda: (Ordered(), Ordered()), lambda x, s: x * 2 if s[0] == s[1] else x, lambda s: more("v")(s[0])),
    "dataclass, order": case(lambda: (Ordered(), Ordered(2)), lambda x, s: x * 2 if s[0] < s[1] else x, lambda s: more("v")(s[0])),
    "computed name": case(Computes, lambda x, s: s.read(x, "rate"), more("rate")),
    "computed name of a class's": case(Computes, lambda x, s: s.read(x, "ratio"), lambda s: setattr(s, "ratio", 4.0)),
    "computed name, a property": case(Computes, lambda x, s: s.read(x, "tripled"), more("hidden")),
    "computed name, further in": case(Computes, lambda x, s: s.read_inner(x, "rat"), lambda s: more("rate")(s.inner)),
    "computed name, a text": case(Computes, lambda x, s: s.read_text(x, "ra"), more("rate")),
    "computed name, absent": case(Computes, lambda x, s: s.asked(x, "later"), lambda s: setattr(s, "later", 1)),
    "computed name, a method": case(Computes, lambda x, s: s.call(x, "grown"), more("hidden")),
    "computed name of a global": case(lambda: ["rate"], lambda x, s: x * getattr(BOX, s[0]), lambda s: more("rate")(BOX)),
    "computed name in a closure": case(Computes, lambda x, s: x * getattr(s, "".join(["ra", "te"])), more("rate")),
    "vars": case(Computes, lambda x, s: x * vars(s)["".join(["ra", "te"])], more("rate")),
    "__dict__": case(Computes, lambda x, s: x * s.__dict__["".join(["ra", "te"])], more("rate")),
    "attrgetter": case(lambda: (N(a=N(b=2.0)), operator.attrgetter("a.b")), lambda x, s: x * s[1](s[0]), lambda s: more("b")(s[0].a)),
    "methodcaller": case(lambda: (Plain(scale=2.0), operator.methodcaller("grown", 1.0)), lambda x, s: x * s[1](s[0]), lambda s: more("scale")(s[0])),
    "large NumPy": case(lambda: np.ones(3000), lambda x, s: x * float(s[0]), lambda s: s.put(0, 2.0)),
    "large NumPy, nan": case(lambda: np.full(3000, np.nan), lambda x, s: x if s[0] != s[0] else x + 1, lambda s: s.put(0, 2.0)),
    "large NumPy, columns": case(lambda: np.ones((50, 60))[:, ::2], lambda x, s: x * float(s[1, 1]), lambda s: s.fill(2.0)),
    "large NumPy, turned": case(lambda: np.ones((50, 60)).T, lambda x, s: x * float(s[1, 1]), lambda s: s.fill(2.0)),
    "memoryview": case(lambda: bytearray(b"ab"), lambda x, s: x * memoryview(s)[0], lambda s: s.reverse()),
    "memoryview, held": case(lambda: memoryview(bytearray(b"ab")), lambda x, s: x * s[0], lambda s: s.__setitem__(0, 99)),
    "weakref": case(lambda: weak(N(of=Plain(scale=2.0))), lambda x, s: x * s.ref().scale, lambda s: more("scale")(s.of)),
    "weakref, gone": case(lambda: weak(N(of=Plain())), lambda x, s: x * 2 if s.ref() is None else x, lambda s: delattr(s, "of")),
    "weakref to a tensor": case(lambda: weak(N(of=md.asarray(2.0))), lambda x, s: x * s.ref(), lambda s: weak(replaced(s))),
    "context": case(lambda: None, lambda x, s: x * VARIABLE.get(), lambda s: VARIABLE.set(VARIABLE.get() + 1)),
    "context, unset": case(lambda: None, lambda x, s: x * UNSET.get(1.5), lambda s: UNSET.set(UNSET.get(1.5) + 1)),
    "mapping proxy": case(lambda: (d := {"a": 1.0}, types.MappingProxyType(d)), lambda x, s: x * s[1]["a"], lambda s: s[0].update(a=2.0)),
    "thread's own": case(lambda: weak(N(of=threading.local(), x=1)), lambda x, s: x * getattr(s.of, "v", 2.0), lambda s: setattr(s.of, "v", 3.0)),
    "ChainMap": case(lambda: collections.ChainMap({}, {"a": 1.0}), lambda x, s: x * s["a"], lambda s: s.maps[1].update(a=2.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_changed_is_read_again(name):
    f, change = CASES[name]()
    compiled, x = md.jit(f), md.asarray(3.0)
    before = f(x).tolist()
    assert compiled(x).tolist() == compiled(x).tolist() == before
    assert compiled.compiles == 1
    change()
    after = f(x).tolist()
    assert after != before and compiled(x).tolist() == compiled(x).tolist() == after
    assert compiled.compiles == 2


@given(st.lists(st.sampled_from(sorted(CASES)), min_size=2, max_size=4, unique=True), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_any_changes_in_any_order(names, order):
    reads, changes = zip(*(CASES[name]() for name in names), strict=True)

    def f(x):
        return functools.reduce(lambda y, read: md.tanh(read(y)) * 0.5 + y, reads, x)

    compiled, x = md.jit(f), md.asarray(0.3)
    for k in (None, *order):
        if k is not None and k < len(changes):
            changes[k]()
        np.testing.assert_allclose(compiled(x).item(), f(x).item(), rtol=1e-6)


def test_a_method_of_a_class_may_be_replaced(monkeypatch):
    held = Plain()
    compiled, x = md.jit(lambda x: held.grown(x)), md.asarray(3.0)
    assert compiled(x).item() == 3.0
    monkeypatch.setattr(Plain, "grown", lambda self, x: x - 1)
    assert compiled(x).item() == 2.0


def test_absent_and_caught():
    held = N()

    def f(x):
        try:
            return x * held.later
        except AttributeError:
            return x

    compiled, x = md.jit(f), md.asarray(3.0)
    assert compiled(x).item() == 3.0
    held.later = 2.0
    assert compiled(x).item() == 6.0


def test_what_the_traced_code_changes_itself_happens_once_and_does_not_stop_it():
    seen, queue, held, count = set(), collections.deque(), Plain(), np.zeros(1)

    def f(x):
        seen.add("f"), queue.append(1)
        held.called = getattr(held, "called", 0) + 1
        Config.calls = getattr(Config, "calls", 0) + 1
        count[0] += 1
        return x * 2.0

    compiled, x = md.jit(f), md.asarray(3.0)
    assert [compiled(x).item() for _ in range(3)] == [6.0] * 3
    assert compiled.compiles == 1 and seen == {"f"} and len(queue) == held.called == Config.calls == count[0] == 1


def test_what_the_code_does_not_name_is_no_reason_to_trace_again():
    held = Plain(scale=2.0)
    compiled, x = md.jit(lambda x: held.grown(x)), md.asarray(3.0)
    for i in range(3):
        compiled(x)
        held.other, Config.other, settings.other = i, i, i
    assert compiled.compiles == 1


def test_a_queue_in_a_module_keeps_what_the_traced_code_puts_there():
    class Remembers(md.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = collections.deque([md.zeros(()), md.zeros(())], maxlen=2)

        def forward(self, x):
            self.last.append(x + self.last[0])
            return x * 2.0

    compiled, plain = Remembers(), Remembers()
    call = md.jit(compiled)
    for i in range(4):
        call(md.asarray(float(i))), plain(md.asarray(float(i)))
        assert [t.item() for t in compiled.last] == [t.item() for t in plain.last]


def test_python_itself_and_installed_packages_are_not_watched():
    from minidl.guards import _users

    assert _users(Config) and _users(settings) and not any(map(_users, (np, np.ndarray, sys, collections.deque, md, md.nn.Linear, 1.0)))


class Number:
    def __init__(self):
        self.value = 2.0

    def __float__(self):
        return self.value

    def __neg__(self):
        return -self.value

    def __rtruediv__(self, other):
        return other / self.value

    def __sub__(self, other):
        return self.value - other

    def __next__(self):
        return self.value

    def __isub__(self, other):
        return self.value - other


def less(number):
    number -= 1.0
    return number


@pytest.mark.parametrize(
    "read", [float, lambda n: -n, lambda n: 1.0 / n, lambda n: n - 1.0, next, less], ids="float neg rtruediv sub next isub".split()
)
def test_methods_that_syntax_calls_are_looked_into(read):
    number = Number()
    f = md.jit(lambda x: x * read(number))
    assert f(md.ones(())).item() == read(number)
    number.value = 4.0
    assert f(md.ones(())).item() == read(number)


def test_a_counter_beside_what_is_read_is_no_reason_to_trace_again():
    @dataclasses.dataclass(order=True)
    class State:
        rate: float = 2.0
        steps: int = 0

    state = State()
    f = md.jit(lambda x: x * state.rate)
    for _ in range(4):
        assert f(md.ones(())).item() == 2.0
        state.steps += 1
    assert f.compiles == 1


def test_each_thread_and_context_has_its_own():
    local, held = threading.local(), contextvars.ContextVar("held")
    f = md.jit(lambda x: x * getattr(local, "v", 1.0) + held.get(0.0))

    def elsewhere():
        local.v = 5.0
        held.set(2.0)
        seen.append(f(md.ones(())).item())

    seen = []
    for v in (2.0, 3.0):
        local.v = v
        assert f(md.ones(())).item() == v
        thread = threading.Thread(target=contextvars.Context().run, args=(elsewhere,))
        thread.start()
        thread.join()
        assert f(md.ones(())).item() == v
    assert seen == [7.0, 7.0] and f.compiles == 3


def one_program(trainer):
    """Whatever its counter says, which `step` does not read."""
    f = md.jit(trainer.step)
    for _ in range(3):
        f(md.ones(()))
        trainer.steps += 1
    assert f.compiles == 1


def test_computed_names_of_modules_leave_objects_alone():
    class Trainer:
        loss, steps = "tanh", 0

        def step(self, x):
            return getattr(md.nn.functional, self.loss)(x) + getattr(self, "bias", 0.0)

    one_program(Trainer())


@pytest.mark.parametrize("within", [False, True])
def test_a_profiler_of_the_users_goes_on_and_hides_no_comparison(within):
    a, b = Ordered(), Ordered()

    def hear(frame, event, arg):
        return None

    def program(x):
        if within:
            sys.setprofile(hear)
        out = x * 2 if a == b else x
        if within:
            sys.setprofile(None)
        return out

    f = md.jit(program)
    sys.setprofile(None if within else hear)
    try:
        assert f(md.ones(())).item() == 2.0
        assert within or sys.getprofile() is hear
    finally:
        sys.setprofile(None)
    a.v = 2
    assert f(md.ones(())).item() == 1.0


@pytest.mark.parametrize("make", [lambda x: {x}, lambda x: frozenset([x]), lambda x: {x: 1}, weakref.WeakSet, lambda x: {(1, x): 1}])
def test_elements_of_sets_and_keys_are_looked_into(make):
    x = Computes()
    held = make([x]) if make is weakref.WeakSet else make(x)
    f = md.jit(lambda y: y * sum((k[1] if isinstance(k, tuple) else k).rate for k in held))
    assert f(md.ones(())).item() == 2.0
    x.rate = 3.0
    assert f(md.ones(())).item() == 3.0


def test_computed_names_of_slots_and_of_what_hides_an_attribute_of_the_class():
    class Slots:
        __slots__ = ("rate",)

    class Plainly:
        rate = 2.0

    slots, plainly = Slots(), Plainly()
    slots.rate = 2.0
    f = md.jit(lambda x, name: x * getattr(slots, name) * getattr(plainly, name))
    assert f(md.ones(()), "rate").item() == 4.0
    slots.rate = 3.0
    assert f(md.ones(()), "rate").item() == 6.0
    plainly.rate = 5.0
    assert f(md.ones(()), "rate").item() == 15.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda a, b: heapq.nsmallest(1, [a, b])[0] is a,
        lambda a, b: bisect.bisect_left([a], b) == 1,
        operator.lt,
        lambda a, b: "".join(map(str, [a])) == "1",
    ],
)
def test_comparisons_and_texts_are_heard_whoever_asks(ask):
    class Weighed:
        def __init__(self, w):
            self.w = w

        def __lt__(self, other):
            return self.w < other.w

        def __str__(self):
            return str(self.w)

    a, b = Weighed(1), Weighed(2)
    f = md.jit(lambda x: x * 2 if ask(a, b) else x)
    assert f(md.ones(())).item() == 2.0
    a.w, b.w = 2, 1
    assert f(md.ones(())).item() == 1.0


@pytest.mark.parametrize("base", [object, md.nn.Module])
def test_what_a_class_inherits_may_be_replaced_in_it(base):
    class Base(base):
        rate, counted = 2.0, 0

        def twice(self):
            type(self).counted += 1  # which the traced function itself puts there
            return 2.0

    class Derived(Base):
        pass

    x = Derived()
    f = md.jit(lambda y: y * x.twice() * x.rate)
    assert f(md.ones(())).item() == f(md.ones(())).item() == 4.0
    Derived.rate = 3.0
    assert f(md.ones(())).item() == 6.0
    Derived.twice = lambda self: 5.0
    assert f(md.ones(())).item() == 15.0


def test_comparisons_that_a_dict_makes_are_heard():
    class Key:
        def __init__(self, z):
            self.z = z

        def __hash__(self):
            return 1

        def __eq__(self, other):
            return self.z == other.z  # so that nobody else may ask

    key, held = Key(1), {Key(1): 3.0}
    f = md.jit(lambda x: x * held.get(key, 1.0))
    assert f(md.ones(())).item() == 3.0
    key.z = 2
    assert f(md.ones(())).item() == 1.0


def test_while_another_thread_listens_all_methods_are_looked_into():
    from minidl import guards

    a, b = Ordered(), Ordered()
    f = md.jit(lambda x: x * 2 if a == b else x)
    with guards._ears:
        assert f(md.ones(())).item() == 2.0
    a.v = 2
    assert f(md.ones(())).item() == 1.0


def test_computed_names_of_an_argument():
    f = md.jit(lambda held, x, name: x * getattr(held, name))
    held = Plain(rate=2.0)
    assert f(held, md.ones(()), "rate").item() == 2.0
    held.rate = 3.0
    assert f(held, md.ones(()), "rate").item() == 3.0


def test_computed_names_of_what_a_loop_finds_leave_other_objects_alone():
    class Net(md.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = md.nn.ModuleList([md.nn.Linear(1, 1)])

        def forward(self, x, name="weig"):
            for block in self.blocks:
                x = x * getattr(block, name + "ht").sum() + getattr(self, f"{name}x", 0.0)
            return x

    class Trainer:
        def __init__(self):
            self.net, self.steps = Net(), 0

        def step(self, x):
            return self.net(x)

    one_program(Trainer())


def test_a_trace_that_fails_leaves_no_profiler():
    a, b = Ordered(), Ordered()

    def f(x):
        if a == b:
            raise ValueError("no")
        return x

    with pytest.raises(ValueError, match="no"):
        md.jit(f)(md.ones(()))
    assert sys.getprofile() is None


def test_an_array_too_large_to_look_at_is_named():
    from minidl.guards import BYTES, JitWarning

    large = np.ones(BYTES // 8 + 1)
    with pytest.warns(JitWarning, match=rf"float64\[{BYTES // 8 + 1}\] that program can read goes unseen.*flags.writeable = False"):
        md.jit(lambda x: x * float(large[0]))(md.ones(()))
    large.flags.writeable = False
    assert md.jit(lambda x: x * float(large[0]))(md.ones(())).item() == 1.0


def test_what_a_comparison_stores_does_not_escape_into_guards():
    class Counts:
        def __init__(self):
            self.seen, self.kept = 0, None

        def __eq__(self, other):
            self.seen += 1
            self.kept = X[0] * 2.0
            return True

    X, a = [None], Counts()

    def f(x):
        X[0] = x
        return x * 2 if a == a else x

    compiled = md.jit(f)
    assert [compiled(md.ones(())).item() for _ in range(3)] == [2.0] * 3


def test_a_dict_that_reads_in_its_own_way():
    """Its entries are guarded as they lie in it: what its class makes of one is a new object each time, and no reason to trace again."""

    class Doubling(dict):
        def __getitem__(self, key):
            return [2.0 * dict.__getitem__(self, key)]

    settings = Doubling(scale=1.5)
    f = md.jit(lambda x: x * settings["scale"][0])
    x = md.ones(2)
    assert [f(x).tolist() for _ in range(3)] == [[3.0, 3.0]] * 3
    assert f.compiles == 1
    dict.__setitem__(settings, "scale", 2.0)
    assert f(x).tolist() == [4.0, 4.0]
    assert f.compiles == 2
