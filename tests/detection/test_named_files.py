"""Pictures from a command line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from detection.augmentation.transforms import EvalTransform
from detection.named_files import FileReader, find_pictures
from detection.predict import parse_arguments
from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.errors import UserError


def test_folders_are_searched_and_files_are_taken_at_their_word(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/2.jpg", "a/1.PNG", "a/deep/3.webp", "a/readme.txt", "any"):
        (tmp_path / name).touch()
    found = find_pictures([tmp_path / "any", tmp_path / "a", tmp_path / "a" / "2.jpg"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["any", "a/1.PNG", "a/2.jpg", "a/deep/3.webp"]


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "notes.txt", "photo", ".a.jpg", "._a.jpg", ".thumbs/a.jpg", "found/pictures/00001_a.png",
                 "found/detections.json", "pictures/b.jpg", "elsewhere/c.jpg"):  # fmt: skip
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "elsewhere").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "link" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    with caplog.at_level(logging.INFO):
        found = find_pictures([tmp_path / "in"])
    names = [str(path.relative_to(tmp_path / "in")) for path in found]
    assert names == ["a.jpg", "gone.jpg", "link/c.jpg", "pictures/b.jpg"]
    first, second = caplog.messages
    assert first == f"--images: 3 files of other kinds left out; the first: {tmp_path}/in/found/detections.json"
    assert second.startswith("--images: 1 folders pictures beside a detections.json, which predict has drawn,")
    (named,) = find_pictures([tmp_path / "in" / "found" / "pictures"])
    assert named.name == "00001_a.png"


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images: no pictures \(.jpg, .*\) in "):
        find_pictures([tmp_path])
    with pytest.raises(UserError, match="--images: there is no file or folder gone"):
        find_pictures([Path("gone")])


def test_a_broken_picture_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    reader = FileReader(Names([f"{tmp_path}/good.png", f"{tmp_path}/bad.png"]), EvalTransform((16, 24), "bilinear"))
    good, bad = (reader[Draw(index, 0, index)] for index in range(len(reader)))
    assert good["fault"] == "" and good["size"].tolist() == [40, 30] and good["image"].shape == (3, 16, 24)
    assert good["image"][0].eq(255).all()
    assert "bad.png: cannot be read as a picture (it is empty)" in bad["fault"]
    assert bad["image"].shape == (3, 16, 24)


def test_settings_may_stand_behind_the_pictures() -> None:
    setting = "detection.postprocess.score_threshold=0.5"
    given = ["--experiment", "e", "--output", "o", "--images", "a.jpg", "--images", "b.jpg", setting]
    arguments = parse_arguments(given)
    assert arguments.images == [Path("a.jpg"), Path("b.jpg")] and arguments.overrides == [setting]
