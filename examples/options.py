"""What every example of this folder takes on its command line: --backend, --jit or --no-jit, --small."""

import argparse
import os

import minidl as md


def options(document, **more):
    """The parsed arguments, the backend being chosen; `args.compile` is md.jit, or nothing with --no-jit. document: the example's docstring; more:
    further options and their defaults."""
    parser = argparse.ArgumentParser(description=document.split("\n")[0])
    default = os.environ.get("MINIDL_BACKEND", "numpy")
    parser.add_argument("--backend", default=default, help=f"numpy, numba, torch, jax or auto (default {default})")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="compile the training step (the default)")
    parser.add_argument("--small", action="store_true", help="a few steps only: shows that it runs, and learns little")
    for name, value in more.items():
        parser.add_argument(f"--{name}", type=str if value is None else type(value), default=value)
    args = parser.parse_args()
    md.set_backend(args.backend)
    args.compile = md.jit if args.jit else lambda f: f
    return args
