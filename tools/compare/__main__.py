"""``python -m tools.compare EXPERIMENT_DIR... | ROOT``: experiments beside each other; see ``--help``."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.files import shown, write_atomic
from engine.run_folder.experiments import Run, read_runs
from engine.text import markdown_table
from tools.compare.chance import statements
from tools.compare.rows import chosen
from tools.compare.table import as_csv, cells, shown_columns, terminal

AXES = ("epochs", "steps", "hours")
FILES = ("csv", "markdown", "plot", "html")
"""Options that name a file to be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows what the command line asks for. Returns 0, or 2 for input that is wrong."""
    parser = command_parser(
        "python -m tools.compare",
        "Compares experiments: what differs in their settings, their best and last metrics, what they cost, and what "
        "chance would do. Folders that are broken, still running or none of ours are listed and marked.",
        [
            "python -m tools.compare experiments --sort top1",
            "python -m tools.compare experiments --last 20 --where optimizer.lr=1e-3 --html compare.html",
            "python -m tools.compare experiments --csv -",
            "python -m tools.compare experiments --plot curves.png --metrics val.top1 train.loss --over hours",
        ],
    )
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="EXPERIMENT_DIR|ROOT", help="experiments, or their root"
    )
    parser.add_argument("--sort", metavar="METRIC", help="the best of a metric first, or any other column's order")
    parser.add_argument(
        "--where", action="append", default=[], metavar="key=value", help="only runs with this setting; may be repeated"
    )
    parser.add_argument("--last", type=_count, metavar="N", help="only the newest N of them")
    parser.add_argument("--csv", metavar="FILE|-", help="everything that is known, for programs (-: to the output)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="curves, seeds of one configuration averaged")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="SPLIT.METRIC", help="what --plot draws")
    parser.add_argument("--over", choices=AXES, default=AXES[0], help="what --plot draws it over (default: epochs)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page, without a server: table, curves, images")
    options = parser.parse_args(arguments)
    return exit_code(lambda: compare(options))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def compare(options: argparse.Namespace) -> int:
    """Reads the experiments, and writes what is asked for.

    Raises:
        UserError: a place, an option or a file to be written is not as it should be.
    """
    asked = [(f"--{option}", file) for option in FILES if (file := getattr(options, option)) not in (None, "-")]
    for (one, file), (other, same) in itertools.combinations(asked, 2):
        if Path(file).absolute() == Path(same).absolute():
            raise UserError(f"{one} and {other}: both name {file}, and only the last would be left; name two files")
    found = read_runs(options.places)
    headings = {column.heading: column.key for column in shown_columns(found)}
    runs = chosen(found, options.where, options.last, options.sort, headings)
    if not runs:
        raise UserError(f"--where: no run has {' and '.join(options.where)}")
    if options.csv == "-":
        sys.stdout.write(as_csv(runs).decode(errors="backslashreplace"))
    else:
        _print(runs)
    if options.csv not in (None, "-"):
        _write("--csv", Path(options.csv), as_csv(runs))
    if options.markdown is not None:
        columns = shown_columns(runs)
        table = markdown_table([column.heading for column in columns], cells(runs, columns))
        _write("--markdown", options.markdown, "\n\n".join([table, *statements(runs)]) + "\n")
    if options.plot is not None:
        from tools.compare.plot import write_plot

        write_plot(runs, options.plot, options.metrics, options.over)
    if options.html is not None:
        from tools.compare.page import page

        _write("--html", options.html, page(runs, statements(runs)))
    for option in ("markdown", "plot", "html"):
        if (file := getattr(options, option)) is not None:
            print(f"{option}: {shown(file)}", file=sys.stderr)
    return 0


def _print(runs: Sequence[Run]) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(terminal(runs, width))
    for line in statements(runs):
        print(line)


def _write(option: str, file: Path, content: str | bytes) -> None:
    try:
        write_atomic(file, content)
    except OSError as error:
        raise UserError(f"{option} {file}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
