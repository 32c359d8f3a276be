"""Which metric decides, and in which direction."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.task.metrics import SECOND, Metrics

METRICS = Metrics(
    {"loss": "min", "top1": "max", "fid": "min", "novelty": None}, "top1", {"recall": "evaluation.samples"}
)


def config(second_decay: float | None = None, **values: str) -> RunConfig:
    ema = {"second_decay": second_decay} if second_decay else None
    return RunConfig.model_validate({"training": {"ema": ema}, "evaluation": values})


def test_the_direction_is_the_tasks() -> None:
    assert METRICS.deciding(config()) == ("top1", "max")
    assert METRICS.deciding(config(metric="fid")) == ("fid", "min")
    assert METRICS.deciding(config(metric="loss", mode="min")) == ("loss", "min")
    assert METRICS.deciding(config(metric="novelty", mode="max")) == ("novelty", "max")


def test_what_is_measured_of_a_second_average_may_decide() -> None:
    second = config(0.5, metric="loss_second_ema")
    assert METRICS.deciding(second) == ("loss_second_ema", "min")
    assert set(METRICS.recorded(second)) == {f"{name}{end}" for name in METRICS.directions for end in ("", SECOND)}
    assert METRICS.recorded(config()) == METRICS.directions


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "AP"}, "evaluation.metric: 'AP' is not measured; there are loss, top1, fid, novelty"),
        ({"metric": "recall"}, "'recall' is not measured without evaluation.samples; there are loss,"),
        ({"metric": "AP_second_ema"}, "'AP_second_ema' is not measured; there are loss,"),
        ({"metric": "loss_second_ema"}, "'loss_second_ema' is not measured without training.ema.second_decay; there"),
        (
            {"metric": "recall_second_ema"},
            "is not measured without evaluation.samples and training.ema.second_decay; there",
        ),
        (
            {"metric": "recall_second_ema", "second_decay": 0.5},
            "is not measured without evaluation.samples; there are loss, .*, loss_second_ema, top1_second_ema",
        ),
        ({"mode": "min"}, "evaluation.mode: min is wrong for 'top1', of which more is better"),
        ({"metric": "fid", "mode": "max"}, "evaluation.mode: max is wrong for 'fid', of which less is better"),
        ({"metric": "novelty"}, r"evaluation.mode: say whether more \(max\) or less \(min\) of 'novelty' is better"),
    ],
)
def test_what_cannot_decide_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        METRICS.deciding(config(**given))
