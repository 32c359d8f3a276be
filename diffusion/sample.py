"""``python -m diffusion.sample --experiment DIR [--num-images N] [--class-ids 0,1,2] [--guidance G] [key=value …]``

Samples images from a trained model on any number of ranks, into results/samples/ in the experiment's folder. A request
that was killed goes on where it stopped when it is made again.
"""

from __future__ import annotations

import itertools
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import replace

from diffusion.spec import SPEC
from engine.commands.arguments import trained_model_parser
from engine.commands.entry import use_trained_model
from engine.task.spec import Later

SAMPLED = replace(SPEC, schema=Later("diffusion.config:SampledConfig").load)
"""The task, of whose settings fewer matter here."""
SETTINGS = ("sampler", "steps", "guidance")
"""Options that stand for keys of `diffusion.sampling`."""


def parse(argv: Sequence[str]) -> Namespace:
    """Parses the command line; a mistake prints the usage and exits with 2."""
    parser = trained_model_parser(
        "python -m diffusion.sample",
        "Samples images from a trained model into results/samples/ in the experiment's folder. A request that was "
        "stopped goes on where it was when it is made again.",
        ["", " --num-images 500 --class-ids 3,8 --guidance 2 --grid", " --sampler dpmpp --steps 20"],
        SAMPLED.schema,
    )
    parser.add_argument("--num-images", type=_count, default=100, metavar="N", help="in total (default: 100)")
    parser.add_argument("--class-ids", type=_numbers, metavar="0,1,...", help="their classes, in turn (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of their noise (default: 0)")
    parser.add_argument("--sampler", metavar="NAME", help="stands for diffusion.sampling.sampler")
    parser.add_argument("--steps", metavar="N", help="stands for diffusion.sampling.steps")
    parser.add_argument("--guidance", metavar="G", help="stands for diffusion.sampling.guidance")
    parser.add_argument("--grid", action="store_true", help="draw them side by side as well, as grid_seed_N.png")
    arguments = parser.parse_intermixed_args(argv)
    given = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    for name, setting in itertools.product(given, arguments.overrides):
        if setting.startswith(f"diffusion.sampling.{name}="):
            parser.error(f"--{name} {given[name]} and {setting} say one thing; leave one away")
    settings = [f"diffusion.sampling.{name}={value}" for name, value in given.items()]
    arguments.overrides = [*settings, *arguments.overrides]
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}; a whole number, at least 1")
    return int(text)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r}; numbers of classes with commas between them, such as 0,1,2") from None


if __name__ == "__main__":
    use_trained_model(SAMPLED, parse(sys.argv[1:]), Later("diffusion.sample_files:run_sampling"))
