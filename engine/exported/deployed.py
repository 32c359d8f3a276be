"""Exported .onnx files as trained models: they need onnxruntime, and neither the experiment nor its configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from engine.errors import UserError
from engine.exported.exportable import preprocessing_of
from engine.images.transforms import EvalTransform
from engine.model.described import KEY

BATCH_SIZE = 32
"""Images that are asked about together."""


class DeployedModel:
    """An exported model in onnxruntime, on the CPU.

    Raises:
        UserError: onnxruntime is not installed, or the file is broken, of another task, or none of ours.
    """

    def __init__(self, path: str | os.PathLike[str], task: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: needs onnxruntime: pip install -e '.[export]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each of its faults
            raise UserError(f"{path} cannot be read as an ONNX model: {str(error).splitlines()[0]}") from None
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise UserError(f"{path} does not say how it is to be used: it is none that tools.export has written")
        try:
            self.description: dict[str, Any] = json.loads(text)
            if (own := self.description["task"]) != task:
                raise UserError(f"{path} is a model of {own}, not of {task}")
            self.preprocessing = preprocessing_of(self.description)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: what it says of itself is damaged ({error}); export it again") from None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.transform = EvalTransform(self.preprocessing)
        self.model = nn.Identity()
        """Has no weights: they are in the session."""

    def inputs(self, images: Tensor) -> Tensor:
        """Refuses: what is exported normalises images itself, and is no module of torch."""
        raise UserError("an exported model is no module of torch: load the experiment's folder to look inside")

    def __call__(self, images: Tensor) -> Mapping[str, np.ndarray[Any, Any]]:
        """Returns the outputs by name for uint8 images (B, 3, H, W)."""
        found = self._session.run(None, {"images": images.cpu().numpy()})
        return dict(zip(self._outputs, found, strict=True))
