"""Entry point: `phojax phonons …` and the other commands."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import jax
from threadpoolctl import threadpool_limits

from phojax.checks import InputError
from phojax.cli import (
    design,
    diffusion,
    displace,
    effective,
    elastic,
    evaluate,
    expand,
    fit,
    learn,
    md,
    phonons,
    potentials,
    predict,
    report,
    screen,
    sensitivity,
    snapshots,
)
from phojax.compiled import keep_compiled

INTERRUPTED = 130


def program() -> None:
    """Run the command line as a program of its own."""
    status = main()
    if status == INTERRUPTED:
        # Threads in compiled code cannot be stopped, and Python would wait for them. What they
        # finished is on disk, and files appear whole or not at all.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: all inputs done; 1: some failed, the others are done; 2: the command makes no sense;
    130: interrupted, to be resumed by the same command.
    """
    # Force constants and what follows need float64; a library must not decide this, a program may.
    jax.config.update("jax_enable_x64", True)
    keep_compiled()
    # Threads of BLAS fight over many small eigenproblems: up to ten times slower than one.
    threadpool_limits(1, user_api="blas")
    parser = argparse.ArgumentParser(
        prog="phojax", description="Differentiable lattice dynamics of ionic conductors."
    )
    parser.add_argument("--version", action="version", version=f"phojax {version('phojax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    phonons.add_parser(commands)
    md.add_parser(commands)
    diffusion.add_parser(commands)
    design.add_parser(commands)
    displace.add_parser(commands)
    fit.add_parser(commands)
    effective.add_parser(commands)
    elastic.add_parser(commands)
    evaluate.add_parser(commands)
    expand.add_parser(commands)
    potentials.add_parser(commands)
    learn.add_parser(commands)
    predict.add_parser(commands)
    report.add_parser(commands)
    screen.add_parser(commands)
    sensitivity.add_parser(commands)
    snapshots.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"phojax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        then = "goes on from here" if getattr(options, "resumes", True) else "starts anew"
        print(f"\nphojax: interrupted; the same command {then}", file=sys.stderr)
        return INTERRUPTED
