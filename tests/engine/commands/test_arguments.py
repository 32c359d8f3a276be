"""Command lines as values."""

from __future__ import annotations

from pathlib import Path

from detection.predict import add_arguments
from engine.commands.arguments import parse_predict_arguments


def test_settings_may_stand_behind_the_images() -> None:
    setting = "detection.postprocess.score_threshold=0.5"
    given = ["--experiment", "e", "--output", "o", "--images", "a.jpg", "--images", "b.jpg", setting]
    arguments = parse_predict_arguments("detection", "", add_arguments, given)
    assert arguments.images == ["a.jpg", "b.jpg"] and arguments.overrides == [setting]
    assert arguments.output == Path("o")
