"""``python -m tools.export --experiment DIR --format FORMAT``: a trained model for another runtime; see ``--help``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.exported.exportable import Differs
from engine.files import check_writable, read_json, shown, write_atomic
from engine.run_folder.paths import RunDir
from engine.task.spec import TaskSpec, find_spec
from tools.export.formats import FORMATS, Format, listed, named

if TYPE_CHECKING:
    from engine.exported.exportable import Exportable
    from engine.task.experiment import Experiment

FLOAT32 = ("training.precision=fp32", "training.channels_last=false")
"""Settings that every export has: float32, and images in the order of the file."""
EXIT_DIFFERS = 1
SPARE_BYTES = 2**22
"""Of an exported file, besides its weights."""
LARGEST_LOSS = 0.02
"""Change of accuracy by weights of 8 bits with which a model is kept."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exports what the command line asks for. Returns 0, 1 if the export differs, or 2 for input that is wrong."""
    parser = command_parser(
        "python -m tools.export",
        "Writes a trained model for another runtime, loads it there, compares its answers with ours, and keeps it only "
        "if they are the same. A description (JSON) is in the file and beside it, with a model card.",
        [
            "python -m tools.export --format list",
            "python -m tools.export --experiment experiments/experiment_0001 --format onnx",
            "python -m tools.export --experiment experiments/experiment_0001 --format onnx --int8 --output small.onnx",
        ],
    )
    names = "|".join([*FORMATS, "list"])
    parser.add_argument("--experiment", type=Path, metavar="DIR", help="the experiment's folder")
    parser.add_argument("--format", required=True, metavar=names, help="what to write; list: says what there is")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="what to write (default: exported/model.… in the experiment)"
    )
    parser.add_argument("--checkpoint", default="best", metavar="best|last|FILE", help="which weights (default: best)")
    parser.add_argument("--int8", action="store_true", help="onnx: weights of 8 bits, with accuracy before and after")
    parser.add_argument("--half", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--raw", action="store_true", help="detectors: without decoding and suppression of doubles")
    parser.add_argument("--image-size", metavar="N|H,W", help="pictures of another size than the run's")
    parser.add_argument("--licence", metavar="TEXT", help="what the description says of the weights' licence")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="settings that matter for a trained model"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.format == "list":
        print(listed())
        return 0
    return exit_code(lambda: _told(options))


def _told(options: argparse.Namespace) -> int:
    """Exports, says what came of it, and returns the exit code."""
    options.format = named(options.format, options.half)
    if options.experiment is None:
        raise UserError("--experiment DIR: is needed, the folder of what was trained")
    try:
        made = export(options)
    except Differs as error:
        sys.stderr.write(f"error: --format {options.format}: the exported model is not ours: {error}; not kept\n")
        return EXIT_DIFFERS
    print(f"{shown(made.output)}: {made.size / 1e6:.1f} MB; {made.same}")
    return 0


@dataclass(frozen=True)
class Exported:
    """What was written, and kept."""

    output: Path
    size: int
    """Bytes, of all files if it is a folder."""
    same: str
    """How near to ours its answers are, or what weights of 8 bits cost."""


def export(options: argparse.Namespace) -> Exported:
    """Writes, checks and keeps a model.

    Raises:
        UserError: experiment, options or the place of the output are not as they should be, packages are missing, or
            the format does not take the model.
        Differs: the exported model says something else; nothing is kept.
    """
    form = FORMATS[options.format]
    form.require(options.format)
    if options.int8 and options.format != "onnx":
        raise UserError("--int8: is for --format onnx")
    spec = _spec(options.experiment)
    name = f"model{form.ending}" if form.ending else options.format
    output = options.output or options.experiment / "exported" / name
    beside = [output, *_beside(output, form)]
    if there := [path for path in beside if os.path.lexists(path)]:
        raise UserError(f"--output: {shown(there[0])} is there already; remove it or name another one")
    check_writable(output.absolute().parent, "--output")
    settings = [*options.overrides, *FLOAT32]
    if options.image_size is not None:
        sides = options.image_size.split(",")
        settings.append(f"data.image_size={sides[0] if len(sides) == 1 else [*map(_side, sides)]}")
    experiment, model = opened(spec, options.experiment, options.checkpoint, form, settings, options.raw)
    if model.kind not in form.kinds:
        fitting = ", ".join(name for name, other in FORMATS.items() if model.kind in other.kinds)
        raise UserError(f"--format {options.format}: does not take models that say {model.kind}; {fitting} do")
    if options.int8:
        from tools.export.onnx_file import require_quantizable

        require_quantizable(model)
    return _export(options, form, experiment, model, output)


def _beside(output: Path, form: Format) -> list[Path]:
    """Returns where description and card of an export lie; those of a folder are in it."""
    return [output.with_name(f"{output.name}{ending}") for ending in (".json", ".md")] if form.ending else []


def _spec(folder: Path) -> TaskSpec:
    """Returns the task of an experiment. Raises a UserError if the folder is none, or its models cannot be exported."""
    if not folder.is_dir():
        raise UserError(f"--experiment: {folder} is {'no folder' if os.path.lexists(folder) else 'not there'}")
    task = (read_json(RunDir(folder).environment) or {}).get("task")
    if not isinstance(task, str):
        raise UserError(f"--experiment: {folder} is no experiment folder (its environment.json has no task)")
    spec = find_spec(task)
    if spec.exportable is None:
        raise UserError(f"--experiment: models of {task} cannot be exported")
    return spec


def opened(
    spec: TaskSpec, folder: Path, checkpoint: str, form: Format, settings: Sequence[str], raw: bool
) -> tuple[Experiment[Any], Exportable]:
    """Opens an experiment, and makes its model ready for a format. Raises a UserError if that cannot be."""
    import torch

    from engine.distributed.layout import Layout
    from engine.distributed.ranks import Ranks
    from engine.task.experiment import open_experiment

    assert spec.exportable is not None, "such as can be exported"
    experiment = open_experiment(folder, checkpoint, spec.schema(), settings)
    inference = spec.inference(experiment, Ranks(Layout(), torch.device("cpu")))
    inference.model.eval()
    return experiment, spec.exportable(inference, form.runtime, raw)


def _export(
    options: argparse.Namespace, form: Format, experiment: Experiment[Any], model: Exportable, output: Path
) -> Exported:
    from tools.export.check import check
    from tools.export.description import as_json, card, describe

    description = describe(model, experiment, options.format, options.int8, options.licence)
    text = as_json(description)
    output.parent.mkdir(parents=True, exist_ok=True)
    _require_room(model, output.parent)
    with tempfile.TemporaryDirectory(prefix=".export_", dir=output.parent) as folder:
        aside = Path(folder, f"model{form.ending}")
        _write(model, text, aside, options.format)
        difference = check(model, form.load(aside, model), form.batches)
        same = f"at most {difference:.1e} from ours in batches of {', '.join(map(str, form.batches))}"
        if options.int8:
            same = _quantized(model, text, aside)
        json_file, card_file = _beside(output, form) or (aside / "swin_hpc.json", aside / "README.md")
        write_atomic(json_file, text)
        write_atomic(card_file, card(description, output.name, same))
        for file in [aside, *aside.rglob("*")]:  # some libraries write what others may not read
            if file.is_file():
                file.chmod(json_file.stat().st_mode)
        os.replace(aside, output)
    files = [output] if form.ending else output.rglob("*")
    return Exported(output, sum(file.stat().st_size for file in files if file.is_file()), same)


def _require_room(model: Exportable, folder: Path) -> None:
    """Makes sure that a disk has room for the weights, and as much again; exporters do not always say that it is full.

    Raises:
        UserError: it has not.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.network.state_dict().values())
    free, needed = shutil.disk_usage(folder).free, 2 * size + SPARE_BYTES
    if free < needed:
        raise UserError(
            f"--output: {free / 1e6:.1f} MB are free in {shown(folder)}, and {needed / 1e6:.1f} MB are needed; make "
            "room, or name another place"
        )


def _write(model: Any, description: str, path: Path, name: str) -> None:
    """Writes a model. What an exporter cannot do, such as an operation of some model that it lacks, is a UserError."""
    try:
        FORMATS[name].write(model, description, path)
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters have a class for each of their faults
        reason = next(iter(str(error).strip().splitlines()), "")
        text = f"--format {name}: its exporter cannot write {model.model_name} ({type(error).__name__}: {reason})"
        raise UserError(f"{text}; try another format of --format list") from error


def _side(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--image-size: {text!r} is no number of pixels; give N, or H,W")
    return int(text)


def _quantized(model: Any, description: str, path: Path) -> str:
    """Makes the weights of a file whole numbers; returns what that costs."""
    from tools.export.onnx_file import load, quantize

    assert model.accuracy is not None, "required before"
    before, size = model.accuracy(load(path, model)), path.stat().st_size
    quantize(path, description)
    after = model.accuracy(load(path, model))
    told = [f"{name} on val {before[name]:.4f} before and {after[name]:.4f} after" for name in before]
    if any(abs(before[name] - after[name]) > LARGEST_LOSS for name in before):
        raise Differs(f"{', '.join(told)}: more than {LARGEST_LOSS}")
    return f"{', '.join(told)}; {size / 1e6:.1f} MB before"


if __name__ == "__main__":
    sys.exit(main())
