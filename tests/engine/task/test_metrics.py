"""Which metric decides, and in which direction."""

from __future__ import annotations

import pytest

from engine.config.training import EvaluationConfig
from engine.errors import UserError
from engine.task.metrics import Metrics

METRICS = Metrics({"loss": "min", "top1": "max", "fid": "min", "novelty": None}, "top1")


def config(**values: str) -> EvaluationConfig:
    return EvaluationConfig(**values)  # type: ignore[arg-type]


def test_the_direction_is_the_tasks() -> None:
    assert METRICS.deciding(config()) == ("top1", "max")
    assert METRICS.deciding(config(metric="fid")) == ("fid", "min")
    assert METRICS.deciding(config(metric="loss", mode="min")) == ("loss", "min")
    assert METRICS.deciding(config(metric="novelty", mode="max")) == ("novelty", "max")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "AP"}, "evaluation.metric: 'AP' is not measured; there are loss, top1, fid, novelty"),
        ({"mode": "min"}, "evaluation.mode: min is wrong for 'top1', of which more is better"),
        ({"metric": "fid", "mode": "max"}, "evaluation.mode: max is wrong for 'fid', of which less is better"),
        ({"metric": "novelty"}, r"evaluation.mode: say whether more \(max\) or less \(min\) of 'novelty' is better"),
    ],
)
def test_what_cannot_decide_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        METRICS.deciding(config(**given))
