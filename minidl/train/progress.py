"""The bar on the terminal: batches that are done, samples a second, and the numbers of now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from minidl.data.bars import bar


class Bar:
    """A bar of tqdm that counts batches and shows samples a second; nothing is shown in the first two seconds."""

    def __init__(self, total: int | None, title: str, done: int, shown: bool):
        self.bar = bar(total=total, initial=done, desc=title, unit="batch", delay=2, disable=not shown, leave=False)
        self.begin, self.samples = time.perf_counter(), 0

    def title(self, text: str) -> None:
        """What stands in front."""
        self.bar.set_description(text, refresh=False)

    def update(self, samples: int, values: Callable[[], Mapping[str, float]]) -> None:
        """One batch more; the values are asked for when they will be shown."""
        self.samples += samples
        if self.bar.update():
            rate = self.samples / max(time.perf_counter() - self.begin, 1e-9)
            self.bar.set_postfix({**{k: f"{v:.4g}" for k, v in values().items()}, "samples/s": f"{rate:.0f}"}, refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
