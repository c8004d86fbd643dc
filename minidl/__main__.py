"""`python -m minidl demo` and `python -m minidl check`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from minidl import backends, demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minidl", description="minidl on the command line")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("demo", help="train a small network on real handwritten digits and compare backends", description=demo.__doc__)
    train.add_argument(
        "--backend", default=None, metavar="B", choices=[*backends(), "all"], help=f"{', '.join(backends())}, or all that are installed"
    )
    train.add_argument("--mode", default="both", choices=["eager", "jit", "both"], help="tape, compiled step, or both (default)")
    train.add_argument("--epochs", default=demo.EPOCHS, type=int, help="passes over the training set (default: %(default)s)")
    train.add_argument("--dtype", default="float32", choices=["float32", "float64"], help="default: %(default)s")
    train.add_argument("--steps", default=None, type=int, help="stop each pass after so many steps (for a quick look)")
    what = "Try values and derivatives of every primitive, and the gradient at every kink, on the engines that are installed."
    check = commands.add_parser("check", help="try values and gradients on the installed backends", description=what)
    check.add_argument("names", nargs="*", metavar="NAME", help="beginnings of the names of primitives and kinks (default: all of them)")
    check.add_argument("--backend", default="all", metavar="B", help=f"{', '.join(backends())}, or all that are installed (default)")
    check.add_argument("--quick", action="store_true", help="one row of each primitive, two ways of differentiating")
    options = parser.parse_args(arguments)
    if options.command == "check":
        from minidl.testing import command  # which loads all that has primitives

        return command.check(options.backend, options.names, options.quick)
    return demo.run(options.backend, options.mode, options.epochs, options.dtype, options.steps)


if __name__ == "__main__":
    sys.exit(main())
