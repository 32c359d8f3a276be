"""What an exported model says of itself: as JSON in and beside the file, and as a card for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.checkpoints.store import digest
from engine.exported.exportable import Exportable
from engine.run_folder.as_found import read_records
from engine.task.experiment import Experiment
from engine.text import markdown_table
from tools.export.formats import FORMATS, versions

VERSION = 1
"""Of the description: it counts up where a reader has to know."""
OWN = ("training.precision", "training.channels_last")
"""Settings that every export has: float32, and images in the order of the file."""
UNKNOWN = "unspecified: the owner of data and weights decides"


def describe(
    model: Exportable, experiment: Experiment[Any], format_name: str, int8: bool, licence: str | None
) -> dict[str, Any]:
    """Describes an export as plain values, the same for every format."""
    saved = experiment.saved
    with experiment.checkpoint.open("rb") as file:
        sha256 = digest(file)
    step = saved["run"]["step"]
    form = FORMATS[format_name]
    packages = ("swin-hpc", "torch", "timm", *form.packages)
    return {
        "version": VERSION,
        "task": saved["task"],
        "model": model.model_name,
        "says": model.kind,
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        **(model.description if form.graph else _without_graph(model.description)),
        "format": format_name,
        "int8": int8,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "checkpoint": {
            "experiment": experiment.folder.name,
            "file": experiment.checkpoint.name,
            "sha256": sha256,
            "step": step,
            "epoch": saved["epoch"],
            "weights": experiment.weights,
        },
        "metrics": _metrics(experiment, step),
        "changes": [change for change in experiment.changes if not change.startswith(OWN)],
        "versions": versions(*packages),
        "licence": licence or UNKNOWN,
    }


def _without_graph(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a description for weights alone: whoever uses them normalises images, too."""
    if "normalization" not in description:
        return dict(description)
    taken = {**description["input"], "dtype": "float32", "colours": "RGB, (value / 255 - mean) / std"}
    return {**description, "input": taken, "normalization": {**description["normalization"], "inside": False}}


def as_json(description: Mapping[str, Any]) -> str:
    """Formats a description for files; what is not finite, which JSON lacks, is null."""
    return json.dumps(_finite(description), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _metrics(experiment: Experiment[Any], step: int) -> dict[str, float]:
    """Returns what training's evaluation of these weights on val has found."""
    records = [
        record
        for record in read_records(experiment.folder.metrics, lambda problem: None)
        if record.get("split") == "val" and record.get("step") == step and "source" not in record
    ]
    found = records[-1] if records else {}
    return {key: value for key, value in found.items() if isinstance(value, float) and key not in ("epoch", "time")}


def card(description: Mapping[str, Any], name: str, same: str) -> str:
    """Writes a model card in Markdown, with the header that model hubs read."""
    told = description
    classes = [str(each) for each in told["classes"]]
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    metrics = [[key, f"{value:.4g}"] for key, value in told["metrics"].items() if value is not None]
    where = told["checkpoint"]
    lines = [
        f"---\nlicense: other\nlicense_name: {json.dumps(told['licence'])}\nlibrary_name: swin-hpc\n"
        f"tags:\n- {told['task']}\n---",
        f"# {name}",
        f"{told['model']} for {told['task']}, {told['parameters']:,} parameters, exported as {told['format']}"
        f"{' with weights of 8 bits' if told['int8'] else ''} from {where['experiment']}, {where['file']} (step "
        f"{where['step']}, {where['weights']}).",
        f"- **Takes** {told['input']['name']}: {told['input']['dtype']} {told['input']['shape']}; "
        f"{told['input']['colours']}.",
        f"- **Says** {', '.join(told['outputs'])}.",
        f"- **Classes** {shown or 'none'}.",
        f"- **Licence** {told['licence']}.",
        f"- **Checked** in its own runtime: {same}.",
        "How to use it: docs/export.md of the suite. All of this, and more, as values: the JSON file beside this one.",
    ]
    if "preprocessing" in told:
        steps = ", ".join(f"{key} {value}" for key, value in told["preprocessing"].items())
        inside = "are subtracted and divided within" if told["normalization"]["inside"] else "are for the user to apply"
        lines.insert(4, f"- **Preprocessing** {steps}; mean and deviation {inside}.")
    if metrics:
        lines += ["## On val, when it was trained", markdown_table(["metric", "value"], metrics)]
    body = "\n\n".join(lines).replace("\n\n- ", "\n- ").replace(").\n- ", ").\n\n- ", 1)
    return body + "\n"
