"""The formats: what each needs, which models it takes, and what writes and reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.exported.exportable import Exportable, Run, Runtime
from engine.task.spec import Later
from engine.text import markdown_table


@dataclass(frozen=True)
class Format:
    """A kind of file, or of folder."""

    about: str
    """Where it runs, and what it holds."""
    write: Callable[[Exportable, str, Path], None]
    """Writes a model with its description, JSON, to a path."""
    load: Callable[[Path, Exportable], Run]
    """Loads what was written into its own runtime."""
    ending: str = ""
    """Of the file; empty: it is a folder."""
    extra: str = ""
    """Of setup.py, that has what it needs; empty: nothing but the suite."""
    packages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("classes", "boxes", "image")
    graph: bool = True
    """Whether it holds all that is computed, mean and deviation too; else only weights."""
    runtime: Runtime = "torch"
    batches: tuple[int, ...] = field(default=(1, 2, 5))
    """Sizes of batches that it is checked with."""

    @property
    def missing(self) -> list[str]:
        """Returns the packages that are not installed."""
        return [name for name in self.packages if not _version(name)]

    def require(self, name: str) -> None:
        """Raises a UserError with pip's line if a package is missing."""
        if missing := self.missing:
            raise UserError(
                f"--format {name}: needs {', '.join(missing)}: pip install -e '.[{self.extra}]'"
                + " in an environment of its own" * (self.extra == "tflite")
            )


def _parts(module: str) -> dict[str, Any]:
    return {"write": Later(f"tools.export.{module}:write"), "load": Later(f"tools.export.{module}:load")}


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "ONNX Runtime in Python, C++, C#, Java, browsers and node; the suite's own predict",
        **_parts("onnx_file"),
        ending=".onnx",
        extra="export",
        packages=("onnx", "onnxruntime", "onnxscript"),
        runtime="onnx",
    ),
    "pt2": Format("torch.export.load, AOTInductor, ExecuTorch's tools", **_parts("pt2_file"), ending=".pt2"),
    "torchscript": Format(
        "libtorch, older torch; traced, and deprecated by torch", **_parts("torchscript_file"), ending=".pt"
    ),
    "safetensors": Format(
        "the bare weights under the suite's names, without a graph",
        **_parts("safetensors_file"),
        graph=False,
        ending=".safetensors",
    ),
    "timm": Format(
        "a folder for timm's create_model('local-dir:…'), which transformers loads too",
        **_parts("timm_folder"),
        graph=False,
        kinds=("classes",),
    ),
    "transformers": Format(
        "a folder for SwinForImageClassification.from_pretrained",
        **_parts("transformers_folder"),
        graph=False,
        extra="export",
        packages=("transformers",),
        kinds=("classes",),
    ),
    "tflite": Format(
        "LiteRT (TensorFlow Lite) on phones and boards, LiteRT.js; one picture at a time",
        **_parts("tflite_file"),
        ending=".tflite",
        extra="tflite",
        packages=("litert-torch", "ai-edge-litert"),
        kinds=("classes", "boxes"),
        runtime="plain",
        batches=(1,),
    ),
    "keras": Format(
        "keras.models.load_model, and from there SavedModel, TF.js and TFLite; models of name keras/…",
        **_parts("keras_file"),
        ending=".keras",
        extra="keras",
        packages=("keras", "h5py"),
        kinds=("classes",),
    ),
}

ALSO_NAMED = {"torch_export": "pt2"}
NOT_OFFERED = {
    "--format saved_model": "the converters that were tried do not get through a Swin; use onnx or tflite; "
    "a model named keras/… gets there by --format keras (docs/keras.md)",
    "--format tfjs": "the converters that were tried do not get through a Swin; onnx runs in browsers; a model named "
    "keras/… gets there by --format keras (docs/keras.md)",
    "--format aot_inductor": "its library is for one machine and one torch; compile the file of --format pt2 where it "
    "is to run, with torch._inductor.aoti_compile_and_package",
    "--half": "16 bits are further from what was trained than the 1e-4 that an export may be; --format onnx --int8 "
    "makes a smaller file, and measures what that costs",
}
"""What may be asked for, and is not made: why, and what serves instead."""


def named(name: str, half: bool) -> str:
    """Returns the name in :data:`FORMATS` of what a command line asks for. Raises a UserError if it has none."""
    for asked in (f"--format {name}", *["--half"] * half):
        if asked in NOT_OFFERED:
            raise UserError(f"{asked}: is not offered: {NOT_OFFERED[asked]}")
    name = ALSO_NAMED.get(name, name)
    if name not in FORMATS:
        raise UserError(f"--format {name}: there is no such format; {', '.join(FORMATS)} are there, and list")
    return name


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of those packages that are installed."""
    return {name: version for name in packages if (version := _version(name))}


def listed() -> str:
    """Returns the table of formats: where they run, what they take, what they need, and whether it is there.

    Below it stands what is not offered.
    """
    rows = []
    for name, form in FORMATS.items():
        needs = f"{' '.join(form.packages)} ([{form.extra}])" if form.packages else "-"
        there = f"no: {' '.join(form.missing)}" if form.missing else "yes"
        rows.append([name, ", ".join(form.kinds), needs, there, form.about])
    table = markdown_table(["format", "models that say", "needs", "installed", "runs in"], rows)
    return "\n".join([table, "", "Not offered:", *(f"- {asked}: {why}" for asked, why in NOT_OFFERED.items())])
