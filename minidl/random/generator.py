"""The stateful stream, as in PyTorch: `manual_seed` and `default_generator`, which initialisation, dropout and shuffling draw from."""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import minidl as md
from minidl import Tensor, dtypes
from minidl.extend import at_once, from_numpy, get_backend, home, interpreting, lanes_around, per_lane, persistent, seen, streams
from minidl.random.keys import FEW, Shape, key, pair, size_of, split, two, words_of
from minidl.random.uniform import coins, most_of


class Generator:
    """A stream of keys with state: the key lies in a Tensor that each draw replaces in place, so that jit carries it from call to call.

    The state follows the backend that asks: the stream is one, whichever backends draw from it. `manual_seed` raises TypeError for a seed that is no
    integer, `restore` ValueError for a key of another shape than [2] and TypeError for one that is not uint32. Reading `key` raises AssertionError if
    another thread draws on another backend meanwhile; `next_key` waits for its turn.

    >>> g = md.random.Generator(0)
    >>> g.next_key().tolist() == md.random.Generator(0).next_key().tolist()
    True
    """

    def __init__(self, seed: int = 0):
        self._seed = seed
        self._start: Any = None  # the words that it starts from, where it is a copy
        self._keys: list[Tensor] = []  # one per backend that has drawn; `place` says which is up to date
        self.place = -1
        self._in_lanes: Any = weakref.WeakKeyDictionary()  # level of vmap -> the states of its lanes, from which loops inside it draw
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """The seed, and the state of now if anything was drawn: a copy, or what a pickle holds, is a stream of its own from here on."""
        with self._lock:
            return {"seed": self._seed, "words": self._start if self.place < 0 else self._keys[self.place].numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["seed"])  # type: ignore[misc]
        self._start = state["words"]

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream anew from an integer seed."""
        self.restore(key(seed))
        if not isinstance(seed, Tensor):
            self._seed = seed
        return self

    def get_state(self) -> Tensor:
        """The state of now, for set_state: PyTorch's name for `key.detach()`."""
        return self.key.detach()

    def set_state(self, new_state: Tensor) -> Generator:
        """Go back to what get_state returned: PyTorch's name for `restore`."""
        self.restore(new_state)
        return self

    def state_dict(self) -> dict[str, Any]:
        """The state of now and the seed, for a checkpoint."""
        return {"key": self.key.detach(), "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what state_dict gave."""
        self.restore(state["key"])
        self._seed = state["seed"]

    def initial_seed(self) -> int:
        """The seed that it was made with, or that manual_seed gave it last."""
        return self._seed

    @property
    def key(self) -> Tensor:
        """The Tensor that holds the state of now, on the backend of the current context; in a loop of a mapped function, that of the lanes."""
        level = lanes_around()
        if level is None:
            return self._key_on(home())
        if level not in self._in_lanes:  # one state for each lane, which the loop carries
            with interpreting(level):
                self._in_lanes[level] = self.next_key()
        return self._in_lanes[level]

    def restore(self, key: Tensor) -> None:
        """Go back to a state that `key.detach()` kept."""
        with self._lock:
            if lanes_around() is not None:
                self.key.assign(key)
                return
            if (level := lanes_around(own=True)) is not None:
                self._in_lanes.pop(level, None)  # its loops begin from the state that is restored
            self._key_on(home(key)).assign(key)

    def _key_on(self, backend: Any) -> Tensor:
        i = next((i for i, k in enumerate(self._keys) if k.xp is backend), len(self._keys))
        if i != self.place:  # not what a trace records: the state moves before the program runs
            with md.eagerly():
                start = words_of(self._seed) if self._start is None else self._start
                now = start if self.place < 0 else self._keys[self.place].numpy()
                moved = from_numpy(now, backend, dtypes.uint32)
                if i < len(self._keys):
                    self._keys[i].assign(moved)
                else:
                    self._keys.append(moved)
                    persistent.append(moved)
            self.place = i
        if md.host(self.__dict__, "place") != i:  # guards a compiled program against a state that is elsewhere on a later call
            raise AssertionError("the generator's state was moved while it was read")
        return self._keys[i]

    def next_key(self, like: Tensor | None = None) -> Tensor:
        """A fresh key on the backend of `like` (the default one without), one for each lane under vmap; the state advances."""
        drawn = per_lane(lambda lanes: split(self.next_key(), lanes))
        if drawn is None:
            with self._lock:
                own = self._key_on(home(like)) if lanes_around() is None else self.key
                following, drawn = two(own)
                own.assign(following)
        return drawn

    def coins(self, p: float, shape: Shape, like: Tensor | None = None) -> Tensor:
        """`md.random.coins` of the next key: what dropout draws. Few of them are tossed by NumPy at once where the key may be looked at.

        >>> md.random.Generator(0).coins(0.5, (3,)).tolist() == md.random.coins(md.random.Generator(0).next_key(), 0.5, (3,)).tolist()
        True
        """
        xp, most, shape = home(like), most_of(p), size_of(shape)
        if not at_once() or xp.device != "cpu" or most < 0 or math.prod(shape) > FEW:
            return coins(self.next_key(like), p, shape)
        with self._lock:
            own = self._key_on(xp)
            following, drawn = pair(seen(own)[0])  # type: ignore[index]
            own.assign(from_numpy(following, xp, dtypes.uint32))
        return from_numpy(get_backend("numpy").coins(drawn, shape=shape, most=most), xp, dtypes.bool_)


@contextlib.contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Draws inside the block leave the stream of `manual_seed` as it was (PyTorch's torch.random.fork_rng). devices is accepted and changes nothing;
    enabled=False makes the block do nothing.

    >>> import minidl as md
    >>> with md.random.fork_rng():
    ...     _ = md.random.manual_seed(1)
    >>> md.random.default_generator.initial_seed() == 1
    False
    """
    seed, state = default_generator._seed, default_generator.get_state() if enabled else None
    try:
        yield
    finally:
        if state is not None:
            default_generator.set_state(state)._seed = seed


default_generator = Generator()
streams.append(default_generator)


def manual_seed(seed: int) -> Generator:
    """Seed the generator that initialisation, dropout and shuffling draw from; returns it.

    >>> import minidl as md
    >>> md.random.manual_seed(0) is md.random.default_generator
    True
    """
    return default_generator.manual_seed(seed)
