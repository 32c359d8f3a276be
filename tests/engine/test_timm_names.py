"""Names of timm's models: which are taken, and what is said about others."""

from __future__ import annotations

import pytest
import timm

from engine.timm_names import check_timm, unknown_model

OWN = ("swin_tiny", "swin_small")


def test_known_names_and_tags_pass() -> None:
    check_timm("resnet50", True, OWN)
    check_timm("resnet50.a1_in1k", False, OWN)


@pytest.mark.parametrize(
    ("name", "pretrained", "text"),
    [
        ("resnet5", False, "^backbone: no model 'timm/resnet5'; did you mean 'timm/resnet5"),
        ("resnet50.a1_in9k", False, "did you mean 'timm/resnet50.a1_in1k'"),
        ("test_byobnet2", True, "no model 'timm/test_byobnet2'"),
    ],
)
def test_others_are_refused(name: str, pretrained: bool, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_timm(name, pretrained, OWN, "backbone")


def test_models_without_published_weights_cannot_start_from_them() -> None:
    without = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    check_timm(without, False, OWN)
    with pytest.raises(ValueError, match=f"^pretrained: timm publishes no weights for '{without}'"):
        check_timm(without, True, OWN)


def test_the_nearest_of_ours_and_of_timms_are_offered() -> None:
    assert unknown_model("swin_tinny", OWN) == "no model 'swin_tinny'; did you mean 'swin_tiny'?"
    assert "'timm/resnet50'" in unknown_model("resnet50", OWN)
    assert unknown_model("timm/!", OWN) == "no model 'timm/!'; there are swin_tiny, swin_small and timm/NAME"
