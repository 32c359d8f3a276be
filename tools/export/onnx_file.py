"""ONNX: the graph with its weights and description in one file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.devices.memory_layout import uses_channels_last
from engine.errors import UserError
from engine.exported.exportable import Exportable, Run
from engine.model.described import KEY

OPSET = 20
MOST_BYTES = 2_000_000_000
"""Of a file: protobuf holds no more."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without the remarks of exporters on their own inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write(model: Exportable, description: str, path: Path) -> None:
    """Writes a file for batches of any size and pictures of one."""
    if sum(p.numel() * p.element_size() for p in model.network.parameters()) > MOST_BYTES:
        raise UserError("--format onnx: the model has more than 2 GB of weights, which one file cannot hold")
    batch = torch.export.Dim("batch", min=1)
    with quietly(), torch.no_grad():
        program = torch.onnx.export(
            model.module,
            model.samples(2),  # one would be taken for the only size
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            dynamic_shapes=tuple({0: batch} for _ in model.inputs),
            custom_translation_table=dict(model.translations()),
            external_data=False,
        )
    assert program is not None, "with dynamo there is one"
    program.model.metadata_props[KEY] = description
    program.model.producer_name = "swin-hpc"
    program.save(str(path), external_data=False)


def load(path: Path, model: Exportable) -> Run:
    """Loads a file into onnxruntime, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Any) -> dict[str, Any]:
        found = session.run(list(model.outputs), dict(zip(model.inputs, inputs, strict=True)))
        return dict(zip(model.outputs, found, strict=True))

    return run


def require_quantizable(model: Exportable) -> None:
    """Raises a UserError for models that weights of 8 bits are not for."""
    if model.accuracy is None:
        raise UserError(f"--int8: is for models that say classes, not {model.kind}")
    if uses_channels_last("auto", model.network):
        raise UserError("--int8: a convolutional model would be ten times slower; int8 is for transformers")


def quantize(path: Path, description: str) -> None:
    """Replaces the weights of matrix products in a file by whole numbers of 8 bits; activations follow at each call."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():  # it advises to prepare the graph, which changes nothing here
        quantize_dynamic(path, path, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    graph = onnx.load(path)
    del graph.metadata_props[:]
    graph.metadata_props.add(key=KEY, value=description)
    onnx.save(graph, path)
