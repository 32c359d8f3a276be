"""Names of timm's models: which are taken, and what is said about others."""

from __future__ import annotations

import pytest
import timm

from engine.config.model_names import check_published, check_timm, unknown_model

OWN = ("swin_tiny", "swin_small")


def test_known_names_and_tags_pass() -> None:
    check_timm("resnet50", OWN)
    check_timm("resnet50.a1_in1k", OWN)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5", "^no model 'timm/resnet5'; did you mean 'timm/resnet5"),
        ("resnet50.a1_in9k", "did you mean 'timm/resnet50.a1_in1k'"),
        ("test_byobnet2", "no model 'timm/test_byobnet2'"),
    ],
)
def test_others_are_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_timm(name, OWN)


def test_models_without_published_weights_cannot_start_from_them() -> None:
    without = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    check_timm(without, OWN)
    with pytest.raises(
        ValueError, match=rf"^finetune\.weights: timm publishes none for '{without}' \(model\.name\); give a file"
    ):
        check_published("model.name", f"timm/{without}", without, ask_timm=True)
    check_published("model.name", f"timm/{without}", without, ask_timm=False)
    check_published("model.name", "timm/resnet50", "resnet50", ask_timm=True)
    with pytest.raises(
        ValueError, match=r"^finetune\.weights: timm is for timm's models, not for our swin_tiny \(model\.name\); "
    ):
        check_published("model.name", "swin_tiny", None, ask_timm=False)


def test_the_nearest_of_ours_and_of_timms_are_offered() -> None:
    assert unknown_model("swin_tinny", OWN) == "no model 'swin_tinny'; did you mean 'swin_tiny'?"
    assert "'timm/resnet50'" in unknown_model("resnet50", OWN)
    assert unknown_model("timm/!", OWN) == "no model 'timm/!'; there are swin_tiny, swin_small and timm/NAME"
