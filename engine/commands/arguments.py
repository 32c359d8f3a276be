"""Command lines: what users type, as values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from engine.config.run import RunConfig

FORMS = ("yaml", "json")
"""In which a configuration is printed."""


@dataclass(frozen=True)
class TrainArguments:
    """What the user typed."""

    config: Path | None
    resume: str | None
    """A folder, ``auto``, or None."""
    dry_run: bool
    overrides: Sequence[str]
    print_config: Literal["yaml", "json"] | None = None
    """The form in which to print the resolved configuration, and do nothing else."""
    reindex: bool = False
    """Whether to list the data anew, whatever their index says."""

    @property
    def request(self) -> tuple[str, ...]:
        """Returns what is to be trained; the same for each start of a job that Slurm restarts."""
        return str(self.config), *self.overrides


def parse_train_arguments(task: str, argv: Sequence[str], load_schema: Callable[[], type[RunConfig]]) -> TrainArguments:
    """Parses the command line of ``python -m TASK.train``; a mistake prints the usage and exits with 2.

    Args:
        load_schema: Imports the type of the configuration, of whose keys ``--help`` tells.
    """
    command = f"python -m {task}.train"
    parser = command_parser(
        command,
        f"Trains a {task} model as a YAML file says. Settings after the options override the file's.",
        [
            f"{command} --config run.yaml",
            f"{command} --config run.yaml --dry-run optimizer.lr=3e-4",
            f"{command} --resume experiments/experiment_0001",
            f"torchrun --nproc-per-node=4 -m {task}.train --config run.yaml",
        ],
        partial(_settings_help, load_schema, "settings, in the YAML file or as key.path=value", False),
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the run's configuration")
    parser.add_argument("--resume", metavar="DIR|auto", help="go on in this experiment folder, or find the right one")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration, make one step, write nothing"
    )
    parser.add_argument(
        "--print-config", nargs="?", const="yaml", choices=FORMS,
        help="print the resolved configuration (default: as YAML), build nothing, and exit",
    )  # fmt: skip
    _add_reindex(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    arguments = parser.parse_intermixed_args(_with_form(argv))
    if arguments.config is None and arguments.resume in (None, "auto"):
        parser.error(
            "--config FILE is needed to find the run that is to go on"
            if arguments.resume
            else "--config FILE is needed (or --resume DIR, whose own configuration is used)"
        )
    if arguments.resume == "":
        parser.error("--resume needs a folder, or auto")
    return TrainArguments(**vars(arguments))


def _add_reindex(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reindex", action="store_true", help="list the data anew, whatever their index says")


EXAMPLES = "examples:\n"


class _Parser(argparse.ArgumentParser):
    """Tells how a setting is written to whoever writes it as an option."""

    def error(self, message: str) -> NoReturn:
        found = re.match(r"unrecognized arguments: --([a-z]\w*(?:\.\w+)+)(?:=(\S*)|\b)", message)
        if found:
            message += f" (settings have no dashes and an equals sign: {found[1]}={found[2] or '...'})"
        super().error(message)


class _Format(argparse.HelpFormatter):
    """Wraps descriptions and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLES) else super()._fill_text(text, width, indent)


def command_parser(
    command: str, description: str, examples: Sequence[str], tell: Callable[[str | None], str] | None = None
) -> argparse.ArgumentParser:
    """Builds the parser of a command, such as ``python -m tools.check``, with examples below its options.

    Args:
        tell: Returns what ``--help SECTION`` says of a section or key; of None, which there are.
    """
    parser = _Parser(
        prog=command,
        description=description,
        epilog=EXAMPLES + "\n".join(f"  {example}" for example in examples),
        formatter_class=_Format,
        allow_abbrev=False,
        add_help=tell is None,
    )
    parser.register("type", Path, _path)
    if tell is not None:
        parser.add_argument(
            "-h", "--help", nargs="?", action=_Help, const=tell, default=argparse.SUPPRESS, metavar="SECTION",
            help="show this, or the keys of a section such as data or data.root, and exit",
        )  # fmt: skip
    return parser


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("'' names nothing; this folder is .")
    return Path(text)


class _Help(argparse.Action):
    """Prints the options and the sections of the configuration, or the keys of the section that is named."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        from engine.errors import UserError

        try:
            print(f"{parser.format_help()}\n{self.const(None)}" if values is self.const else self.const(values), end="")
        except UserError as error:
            parser.error(str(error))
        parser.exit()


def _settings_help(load_schema: Callable[[], type[RunConfig]], title: str, trained: bool, section: str | None) -> str:
    """Describes a section, or lists all under a title; if ``trained``, only what matters for a trained model."""
    from engine.config.reference import describe, every_key, overview
    from engine.run_folder.used_config import matters

    schema = load_schema()
    told = partial(matters, schema) if trained else every_key
    if section is not None:
        return describe(schema, section, told)
    return f"{title} (--help SECTION says what they are):\n{overview(schema, told)}"


def _with_form(argv: Sequence[str]) -> list[str]:
    """Returns the arguments so that a setting behind ``--print-config`` is not taken for a form."""
    pairs = zip(argv, [*argv[1:], ""], strict=False)
    return [f"{text}=yaml" if text == "--print-config" and after not in FORMS else text for text, after in pairs]


def trained_model_parser(
    command: str,
    description: str,
    examples: Sequence[str],
    load_schema: Callable[[], type[RunConfig]],
    exported: bool = False,
) -> argparse.ArgumentParser:
    """Builds the parser of a command that uses a trained model, with ``--experiment``, ``--checkpoint`` and overrides.

    Args:
        examples: What may follow the folder.
        exported: It takes an exported model, too.
    """
    title = "settings that matter for a trained model, as key.path=value; by default the run's own"
    parser = command_parser(
        command,
        description,
        [f"{command} --experiment experiments/experiment_0001{example}" for example in examples],
        partial(_settings_help, load_schema, title, True),
    )
    metavar, help_ = ("DIR|FILE.onnx", ", or an exported model") if exported else ("DIR", "")
    parser.add_argument(
        "--experiment", type=Path, required=True, metavar=metavar, help=f"the experiment's folder{help_}"
    )
    parser.add_argument("--checkpoint", default="best", metavar="best|last|FILE", help="which weights (default: best)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="settings that win over the run's own, see below"
    )
    return parser


@dataclass(frozen=True)
class EvaluateArguments:
    """What the user typed to evaluate a trained model."""

    experiment: Path
    checkpoint: str
    """``best``, ``last`` or a file."""
    split: str
    overrides: Sequence[str]
    reindex: bool = False
    """Whether to list the data anew, whatever their index says."""


def parse_evaluate_arguments(
    task: str, argv: Sequence[str], load_schema: Callable[[], type[RunConfig]]
) -> EvaluateArguments:
    """Parses the command line of ``python -m TASK.evaluate``; a mistake prints the usage and exits with 2."""
    parser = trained_model_parser(
        f"python -m {task}.evaluate",
        "Evaluates a trained model, and writes a report of it into results/SPLIT/ in the experiment's folder.",
        ["", " --split test --checkpoint last", " data.root=/elsewhere"],
        load_schema,
    )
    _add_reindex(parser)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="which images (default: val)")
    return EvaluateArguments(**vars(parser.parse_intermixed_args(argv)))


def parse_predict_arguments(
    task: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    argv: Sequence[str],
    load_schema: Callable[[], type[RunConfig]],
) -> argparse.Namespace:
    """Parses the command line of ``python -m TASK.predict``; a mistake prints the usage and exits with 2.

    Args:
        add_arguments: Adds ``--output`` and what else the task's command takes.
    """
    examples = [
        " --images new/ holiday.jpg --output found",
        " --images list.csv --path-column file --root images --output found",
    ]
    parser = trained_model_parser(f"python -m {task}.predict", description, examples, load_schema, exported=True)
    parser.add_argument(
        "--images", required=True, nargs="+", action="extend", metavar="PATH",
        help="images, folders of them (searched to the bottom), and .csv files with a column of paths",
    )  # fmt: skip
    parser.add_argument(
        "--path-column", default="path", metavar="NAME", help="the column of .csv files (default: path)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR",
        help="what relative paths in .csv files start from (default: here)",
    )  # fmt: skip
    parser.add_argument(
        "--delimiter", type=_character, default=",", metavar="CHARACTER",
        help="what separates the columns of .csv files (default: ,); \\t is a tab",
    )  # fmt: skip
    add_arguments(parser)
    return parser.parse_intermixed_args(_settings_first(argv))


def _character(text: str) -> str:
    character = "\t" if text == r"\t" else text
    if len(character) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}; one character, such as ';'")
    return character


_SETTING = re.compile(r"[a-z_]+(\.[a-z_0-9]+)+=")


def _settings_first(argv: Sequence[str]) -> list[str]:
    """``key.path=value`` behind ``--images A B`` is a setting, unless there is a file of that name."""
    settings = [text for text in argv if _SETTING.match(text) and not Path(text).exists()]
    return [*settings, *(text for text in argv if text not in settings)]
