"""What a run reads, looked for where there is a network and somebody who can still fetch it: on the login node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from engine.config.load import is_below
from engine.config.run import RunConfig
from engine.errors import UserError

if TYPE_CHECKING:
    from classification.config import ClassificationConfig
    from detection.config import DetectionConfig


def check_inputs(task: str, config: RunConfig) -> None:
    """Raises:
    UserError: data or weights are not there; the text says where they were looked for.
    """
    fetched = ("data",) if getattr(getattr(config, "data", None), "download", False) else ()
    for key, path in _paths(config):
        if not path.exists() and not is_below(key, ("experiment", *fetched)):
            raise UserError(f"{key}: {path} does not exist; fetch it first, as nodes may have no network")
    timm_name: str | None = None
    if task == "classification":
        from classification.config import ClassificationConfig

        assert isinstance(config, ClassificationConfig)
        _check_pictures(config)
        timm_name = config.model.timm_name
    elif task == "detection":
        from detection.config import DetectionConfig

        assert isinstance(config, DetectionConfig)
        _check_annotated(config)
        timm_name = config.detection.timm_name
    if config.finetune.weights == "timm" and timm_name is not None:
        _check_published(timm_name)


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The paths in a configuration under their dotted keys."""
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")
        elif isinstance(value, Path):
            yield f"{prefix}{name}", value


def _check_pictures(config: ClassificationConfig) -> None:
    """Looks for the parts of the data set, not into each picture; fetches it if the run is to."""
    from engine.datasets.sections import CsvData, FolderData, TorchvisionData

    match config.data:
        case FolderData():
            from engine.datasets.class_folders import split_folder

            for split in ("train", "val") if config.data.val_fraction is None else ("train",):
                split_folder(config.data.root, split)
        case CsvData():
            from engine.datasets.csv_labels import open_csv

            open_csv(config.data, "val")
        case TorchvisionData():
            from engine.datasets.torchvision_sets import download, open_torchvision

            if config.data.download:
                download(config.data)
            open_torchvision(config.data, "val")


def _check_published(name: str) -> None:
    """Looks for timm's weights in the caches, which nodes share through the home folder."""
    from timm.models import get_pretrained_cfg

    from engine.model.timm_weights import cached_file

    published = get_pretrained_cfg(name)
    if published is not None and published.hf_hub_id and cached_file(published) is None:
        raise UserError(
            f"finetune.weights: the weights of timm/{name} ({published.hf_hub_id}) are not in the cache; fetch them "
            f"here first: python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
        )


def _check_annotated(config: DetectionConfig) -> None:
    """Looks for folders of pictures and annotation files, not into them: that is `python -m tools.check`'s work."""
    from detection.data.sections import CocoData

    if isinstance(config.data, CocoData):
        from detection.data.coco import split_files

        for split in ("train", "val"):
            split_files(config.data, split)
