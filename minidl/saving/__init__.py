"""Saving and loading: pytrees of tensors and whole training states in safetensors files, which never execute code when they are read.

>>> import tempfile
>>> import minidl as md
>>> path = tempfile.mkdtemp() + "/state.safetensors"
>>> md.saving.save(path, {"w": md.tensor([1.0, 2.0]), "step": 3})
>>> md.saving.load(path)["step"]
3

Promises: a file is whole or not there, whenever the process is killed; what is loaded has the types of a closed list, and a file that is damaged
or hostile is a ValueError with the file's name and the reason; a file holds no backend, so what one backend saved another loads.
"""

from __future__ import annotations

from minidl.saving.checkpoints import CheckpointManager, load_checkpoint, save_checkpoint
from minidl.saving.files import atomic
from minidl.saving.tensors import load_model, load_tensors, save_model, save_tensors
from minidl.saving.trees import load, save

__all__ = [
    "CheckpointManager", "atomic", "load", "load_checkpoint", "load_model", "load_tensors", "save", "save_checkpoint", "save_model", "save_tensors",
]  # fmt: skip
