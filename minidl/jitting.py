"""jit: trace once, check guards, run the compiled program, and put state back.

A call of a jitted function tries the programs that exist for it: one generated function per program checks every guard, reads the inputs,
runs, stores what the traced code stored, and returns the result or MISS. Only on MISS is the function traced again.

Promises: everything that the traced code read is an input or a guard; state is stored only after the program has run, so a failing call leaves
it as it was (but for large gradients that the function drops unread, as zero_grad does: they are gone, as after an eager step that fails); under an
outer trace, vmap or another jit the function is simply called.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from minidl.backends import automatic
from minidl.calls import Engine, link
from minidl.context import busy, satellite, state
from minidl.graph import Graph
from minidl.guards import JitWarning
from minidl.program import MISS, Program

#: How often a function may be traced before somebody is told (PyTorch's recompile_limit).
MANY = 8


class Jitted:
    """A compiled function; see jit.

    What a call runs is in a slot of the instance: the entry of the program that ran last, if that is for the usual settings, without a Python
    function between the caller and it.
    """

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    else:
        __slots__ = ("__call__", "__dict__", "__weakref__")

    def __init__(
        self,
        f: Callable[..., Any],
        backend: str | None,
        mode: str | None,
        static_argnames: Sequence[str],
        donate: Sequence[int],
        memory: float | int | str | None,
        check: bool,
    ):
        functools.update_wrapper(self, f, updated=())
        self.__minidl_jitted__ = f
        self.backend, self.mode, self.static, self.donate, self.always = backend, mode, frozenset(static_argnames), tuple(donate), check
        self.memory = memory
        self.programs: list[Program] = []
        self.compiles = 0  # how often the function was traced
        self._told = inspect.isfunction(f) and str(f.__module__).startswith("minidl.")  # that it is traced again and again
        self._once: str | None = None  # why the last program fits no other call
        self._lock = threading.RLock()
        self._names: dict[int, str] = {}
        owner = weakref.ref(self)  # for nothing would free a jitted function that holds itself

        def again(args: tuple, kwargs: dict[str, Any]) -> Any:
            jitted = owner()
            return f(*args, **kwargs) if jitted is None else jitted._call(args, kwargs)

        self._again = again
        self._forget()
        if self.static:
            self._names = dict(enumerate(inspect.signature(f).parameters))
            for n in self.static:
                if n not in self._names.values():
                    raise ValueError(f"jit: static_argnames names {n!r}, which is no parameter of {getattr(f, '__name__', f)}")

    def _go(self, entry: Callable[..., Any]) -> None:
        SLOT.__set__(self, entry)  # also where a subclass has a __call__ of its own

    def __reduce__(self) -> Any:
        """A copy has no programs yet; where the name of the function leads here it is itself, as for functions."""
        f, found = self.__minidl_jitted__, sys.modules.get(self.__module__)
        path: str = getattr(f, "__qualname__", "")
        for name in path.split("."):
            found = getattr(found, name, None)
        settings = self.backend, self.mode, tuple(self.static), self.donate, self.memory, self.always
        return path if found is self else (type(self), (f, *settings))

    def _forget(self) -> None:
        """The next call looks for its program."""
        again = self._again
        self._go(lambda *args, **kwargs: again(args, kwargs))

    def _call(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        if state.interpreter is not None:
            return self.__minidl_jitted__(*args, **kwargs)
        out = self._find(args, kwargs)
        return self._trace(args, kwargs) if out is MISS else out

    def _find(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The result of the program that fits, or MISS."""
        for program in () if self.always else self.programs:
            if program.holds():
                out = program.call(*args, **kwargs)
                if out is not MISS:
                    if program.usual and not busy[0]:
                        if program.entry is None:
                            program.entry = program.linked(busy, self._again, len(self.programs) == 1)
                        self._go(program.entry)
                    return out
        return MISS

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _trace(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        with self._lock:
            out = self._find(args, kwargs)
            if out is not MISS:  # another thread was here meanwhile
                return out
            self.compiles += 1
            if self.compiles > MANY and not (self._told or self.always):
                self._tell(args, kwargs)
            program = Program(self, args, kwargs, state.grad)
            self._link(program, args, kwargs)
            if self.always:
                if self.programs:
                    self._report(self.programs[0], program, args, kwargs)
                self.programs = [program]
            elif program.once is None:
                self._keep(program)
            self._once = program.once
        out = program.call(*args, **kwargs)
        if out is MISS:
            changed = "; ".join(program.why(args, kwargs))
            raise RuntimeError(f"jit: the function changes what it reads, so a program for it would never fit: {changed}")
        return out

    def _link(self, program: Program, args: tuple, kwargs: dict[str, Any]) -> None:
        """Choose who runs the program, and make its call."""
        backend = self.backend or ("auto" if self.mode is None and automatic() else None)
        program.report, run = None, None
        if backend == "auto" and (auto := satellite("auto")) is not None:
            program.source.env["Auto"] = auto.Auto
            program.terms.append(f"Auto.measure is {auto.Auto.measure}")
            engine, run, program.report = auto.choose(program, program.natives(args, kwargs))
        else:  # without that room nobody measures
            engine = Engine(program.xp, None if backend == "auto" else backend, self.mode)
        start = time.perf_counter()
        link(program, engine, run)
        program.seconds = time.perf_counter() - start

    def _keep(self, program: Program) -> None:
        """Add a program; it is dropped when a Module or an optimizer goes that it was made for."""
        if len(self.programs) == 1:  # whose entry takes it for the only one
            self.programs[0].entry = None
            self._forget()
        self.programs.insert(0, program)
        del self.programs[64:]
        owner, there = weakref.ref(self), weakref.ref(program)

        def gone(_: Any) -> None:
            jitted, program = owner(), there()
            if jitted is not None and program in jitted.programs:
                jitted.programs.remove(program)
                jitted._forget()

        program.watched = [weakref.ref(x, gone) for x in program.weak]
        program.weak = []

    def _tell(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Once, that the function is traced again and again, and why."""
        self._told = True
        why = [f"a program fits one call only: {self._once}"] if self._once else self.programs[0].why(args, kwargs) if self.programs else []
        warnings.warn(
            f"jit: {getattr(self, '__qualname__', 'the function')} is traced for the {self.compiles}th time, this time because "
            f"{'; '.join(why) or 'a setting of the thread is another one'}. Each costs a compilation: make what changes a tensor or a number among "
            "the arguments, pad to a few shapes, or call it without jit. md.jit(check=True) tells the reason each time",
            JitWarning,
            stacklevel=6,
        )

    def _report(self, old: Program, new: Program, args: tuple, kwargs: dict[str, Any]) -> None:
        """check=True: say which guard fails, or that the program changed though none does."""
        failing = old.why(args, kwargs)
        if failing:
            warnings.warn(f"jit: traced again because {'; '.join(failing)}", JitWarning, stacklevel=4)
        elif found := [now for before, now in zip(old.frozen, new.frozen, strict=False) if before != now]:
            raise RuntimeError(
                f"jit: the function reads host data, as {found[0][0]}, that has changed, but a program keeps what it held when it was traced; "
                "make it an argument or a Tensor"
            )
        elif str(old.graph) != str(new.graph):
            import difflib

            before, after = str(old.graph).splitlines(), str(new.graph).splitlines()
            diff = "\n".join(difflib.unified_diff(before, after, "before", "now", lineterm="", n=1))
            raise RuntimeError(
                f"jit: the function depends on something that jit does not see; make it an argument, a global, or an attribute of a Module:\n{diff}"
            )

    def explain(self, *args: Any, **kwargs: Any) -> Any:
        """How a call with these arguments would run; see md.explain. The program is there then, if it was not."""
        program = next((p for p in self.programs if p.holds() and not p.why(args, kwargs)), None)
        if program is None:
            program = Program(self, args, kwargs, state.grad)
            self._link(program, args, kwargs)
            if program.once is None and not self.always:
                with self._lock:
                    self._keep(program)
        return importlib.import_module("minidl.explanation").Explanation(program)  # by name: it stands above

    def lower(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph that a call with these arguments would run."""
        return Program(self, args, kwargs, state.grad).graph


SLOT: Any = Jitted.__call__  # where an instance keeps its entry


def jit(
    f: Callable[..., Any] | None = None,
    *,
    backend: str | None = None,
    mode: str | None = None,
    static_argnames: Sequence[str] | str = (),
    static_argnums: Sequence[int] | int = (),
    donate: Sequence[int] = (),
    memory: float | int | str | None = None,
    check: bool = False,
    donate_argnums: Sequence[int] | int = (),
) -> Any:
    """Compile a function: the first call traces it, later calls run the compiled program. Use as `md.jit(f)` or `@md.jit`.

    Arguments and results are pytrees of tensors, numbers (inputs, not constants), flags and strings (guards); Modules and optimizers may be read
    and changed inside. static_argnames, static_argnums: arguments whose value is part of the program, by name or by position. backend: where to run
    it, if not where its inputs are ("auto": where it is fastest, see minidl.auto); results belong to the backend of the inputs all the same. mode:
    another way to compile that the backend has. donate: positions of arguments whose memory the program may reuse, where no other tensor shows it;
    the caller must not read them again (donate_argnums, JAX's word, adds to them).
    memory: a budget for the peak of memory above the inputs: a fraction of what it would be (0.5), bytes, or a text such as "500MB". Values are then
    computed again instead of kept, for more time; MemoryBudgetWarning says what was reached where that is not enough (see minidl.rematerialize).
    A function that is traced for the ninth time says so in a JitWarning, once, with the guard that failed.
    Guards see what the function reads in closures, globals, containers, objects and NumPy arrays up to a megabyte (a larger one that can be
    written to is named in a JitWarning). They do not see dicts of more than 4096 entries, globals()[name], computed names of what a loop or a call
    finds, special methods (__len__) that a class gets later, a types.SimpleNamespace that is compared or printed as a whole, extension types, files,
    the environment, clocks, other libraries' random numbers: pass such as arguments.
    check: trace on every call, warn (JitWarning) with the guard that made the program change, raise if it changed without one, or if host data
    that the function reads did.
    A call is one step of the tape: backward() from one of its results releases what all of them need, as in torch.compile, unless retain_graph=True.
    Raises ValueError for a backend or mode that there is not, and for a budget of another form. Other Python side effects happen once, while tracing.

    >>> double = md.jit(lambda x: x * 2.0)
    >>> double(md.ones((2,))).tolist()
    [2.0, 2.0]
    """
    if mode is not None and backend == "auto":
        raise ValueError(f"jit: backend='auto' tries every mode by itself; name the backend that has the mode {mode!r}")
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    if memory is not None:
        importlib.import_module("minidl.rematerialize").budget(memory, 0)
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    given_up = (*donate, *((donate_argnums,) if isinstance(donate_argnums, int) else donate_argnums))

    def jitted(g: Callable[..., Any]) -> Jitted:
        if not callable(g):
            raise TypeError(f"jit: expected a function, got {type(g).__name__}")
        there = list(inspect.signature(g).parameters) if numbers else []
        if any(not -len(there) <= i < len(there) for i in numbers):
            raise ValueError(f"jit: static_argnums {numbers}, but {getattr(g, '__name__', g)} has the parameters {', '.join(there) or 'none'}")
        return Jitted(g, backend, mode, (*names, *(there[i] for i in numbers)), given_up, memory, check)

    return jitted if f is None else jitted(f)
