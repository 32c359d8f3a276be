"""What the check says of diffusion runs, through the task's spec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.spec import SPEC
from diffusion.task import DiffusionTask
from engine.errors import UserError
from tests.diffusion.small import config_of, write_config
from tests.diffusion.test_generator import ALONE
from tools.check.__main__ import main


def test_good_data_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task", "diffusion", "--config", str(write_config(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "train: 1437 images of 10 classes" in out and "val: 360 images of 10 classes" in out


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images without classes, at any depth."""
    folder = tmp_path / "images"
    for number in range(30):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 10), 8 * number, np.uint8)).save(file)
    return folder


def test_what_training_refuses_the_check_lists(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"source": "images", "root": str(images), "image_size": 8, "channels": 1, "val_fraction": 0.2}
    changes = {"data": data, "training": {"global_batch_size": 25}, "evaluation": {"metric": "fid"}}
    assert main(["--task", "diffusion", "--config", str(write_config(tmp_path, **changes))]) == 2
    captured = capsys.readouterr()
    out = captured.out + captured.err
    assert "train: 24 images" in out and "classes" not in out
    assert "training.global_batch_size" in out and "evaluation.metric: 'fid' is not measured" in out
    (images / "a" / "0.png").write_bytes(b"none")
    changes = {"data": {**data, "val_fraction": 0.9}, "training": {"global_batch_size": 2}}
    main(["--task", "diffusion", "--config", str(write_config(tmp_path, **changes))])
    captured = capsys.readouterr()
    assert "0.png" in captured.out + captured.err


def test_data_that_are_not_there(tmp_path: Path) -> None:
    config = config_of(data={"source": "images", "root": str(tmp_path / "none"), "image_size": 8})
    with pytest.raises(UserError, match=r"data\.root: .*none does not exist") as refused:
        SPEC.inputs(config)
    with pytest.raises(UserError) as same:
        DiffusionTask(config, ALONE)
    assert str(same.value) == str(refused.value)
