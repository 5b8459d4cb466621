"""The command line: `python -m ddpm_demo --help`.

Only commands that need torch import it, so that help is instant.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from ddpm_demo.cli import screen
from ddpm_demo.cli.distilling import distill_arguments
from ddpm_demo.cli.evaluation import evaluate_arguments
from ddpm_demo.cli.experiment import experiment_arguments
from ddpm_demo.cli.finetuning import finetune_arguments
from ddpm_demo.cli.noising import noise_arguments
from ddpm_demo.cli.sampling import sample_arguments
from ddpm_demo.cli.training import train_arguments
from ddpm_demo.cli.zoo import export_arguments, models_arguments, ship_arguments
from ddpm_demo.machine.files import require_temporary_folder

EXAMPLES = """examples:
  python -m ddpm_demo sample --model mnist --sampler ddim --steps 50 -n 64 --seed 0 --out grid.png
  python -m ddpm_demo sample --model mnist --steps 100 -n 16 --out film.mp4
  python -m ddpm_demo noise --image face.png --schedule cosine --t 100,200,999 --out strip.png
  python -m ddpm_demo train --dataset mnist --minutes 40 --out runs/mnist
  python -m ddpm_demo train --dataset folder:photos --norm group --images 1M --out runs/photos
  python -m ddpm_demo finetune --model cifar10 --class ship --steps 400 --out runs/ship
  python -m ddpm_demo distill --model cifar10 --steps 4,2,1 --out runs/cifar10-fast
  python -m ddpm_demo evaluate --model mnist --metrics fd-mnist,bpd -n 5000
  python -m ddpm_demo experiment race --seed 3 --out race.png

The options of a command: its name and --help.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or prints what went wrong: 2 for a wrong argument, else 1."""
    try:
        with screen.lasting():
            return _run(parser().parse_args(arguments))
    except screen.LostError as error:
        return _fail(error, 1) if str(error) else 1


def _run(options: argparse.Namespace) -> int:
    if options.models:
        os.environ["DDPM_DEMO_MODELS"] = options.models
    try:
        require_temporary_folder()
        with _ended_by_signals():
            options.run_command(options)
            return 0
    except ValueError as error:  # includes CheckpointError, DataError, ImageError
        return _fail(error, 2)
    except OSError as error:
        about = f"{error.filename}: {error.strerror}." if error.filename else error
        return _fail(about, 1)
    except FloatingPointError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end a command like Ctrl-C, so that it cleans up."""
    known = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows lacks one
    main = threading.current_thread() is threading.main_thread()
    mine = [n for n in known if main and n and signal.getsignal(n) == signal.SIG_DFL]
    for number in mine:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _fail(message: object, code: int) -> int:
    print(f"ddpm_demo: {message}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="python -m ddpm_demo",
        description="See how a diffusion model works: sample, noise, train and inspect DDPMs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--models", metavar="DIR", help="folder of models, or hub:OWNER")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add, name, text in (
        (sample_arguments, "sample", "draw pictures from a model: a grid, a film or an archive"),
        (noise_arguments, "noise", "dissolve a picture into noise: the forward process"),
        (train_arguments, "train", "train a model from scratch, or go on with one"),
        (finetune_arguments, "finetune", "move a copy of a model to one class"),
        (distill_arguments, "distill", "teach a copy of a model to sample in few steps"),
        (evaluate_arguments, "evaluate", "measure a model: FID, IS, Fréchet distances, bits/dim"),
        (experiment_arguments, "experiment", "answer a question by an experiment, as one picture"),
        (models_arguments, "models", "list the shipped models"),
        (ship_arguments, "ship", "make a training run a shipped model, with its card"),
        (export_arguments, "export", "write a model for diffusers.DDPMPipeline.from_pretrained"),
    ):
        add(
            commands.add_parser(
                name,
                help=text,
                description=text[0].upper() + text[1:] + ".",
                formatter_class=_Help,
            )
        )
    return top


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each line of help, if the option has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False or default in ("", argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """Prints an error in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")
