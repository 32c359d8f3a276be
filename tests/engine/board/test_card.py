"""What TensorBoard is told of a run besides numbers: once, by the last start, whatever became of those before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from engine.board.card import card_of, write_card, write_end
from engine.board.events import Board
from engine.board.place import CARD, END

START = {"started": 1e9, "command": "python -m x.train", "hosts": ["n0"], "devices": [{"device_name": "Card"}]}


def tell(folder: Path, restarts: int = 0, **settings: Any) -> None:
    again = {**START, "step": 4, "command": "python -m x.train --resume", "changed_settings": ["a: 1 -> 2"]}
    write_card(folder, card_of({**START, "restarts": [again] * restarts}, "a: 1\n", {"a": 1, **settings}, "top1"))


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def shown(folder: Path) -> tuple[dict[str, Any], int | None]:
    """Hyperparameters and status, as TensorBoard's table has them."""
    content = read(folder).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    end = content.get(metadata.SESSION_END_INFO_TAG)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, end and metadata.parse_session_end_info_plugin_data(end).status


def text(folder: Path, name: str) -> str:
    (event,) = read(folder).Tensors(f"run/{name}")
    return event.tensor_proto.string_val[0].decode()


def test_settings_texts_and_layout_are_told(tmp_path: Path) -> None:
    tell(tmp_path / "run", on=True, name="x")
    assert shown(tmp_path / "run") == ({"a": 1.0, "on": True, "name": "x"}, None)
    assert text(tmp_path / "run", "configuration") == "```yaml\na: 1\n```"
    assert text(tmp_path / "run", "command") == "    # step 0, n0: Card\n    python -m x.train"
    (event,) = read(tmp_path / "run").Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (first, *_) = layout.category
    assert [list(chart.multiline.tag) for chart in first.chart] == [
        ["^(train|val)/loss$"],
        ["^((train|val)/|result/best_)top1$"],
    ]


def test_names_that_are_no_utf8_are_escaped(tmp_path: Path) -> None:
    start = {**START, "command": "python -m x.train --config \udcff.yaml"}
    write_card(tmp_path, card_of({**start, "restarts": []}, "a: 1\n", {"a": "\udcff"}, "top1"))
    assert shown(tmp_path)[0] == {"a": "\\udcff"} and "\\udcff.yaml" in text(tmp_path, "command")


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "STATUS_SUCCESS"), ("failed", "STATUS_FAILURE"), ("interrupted", None), ("running", None)],
)
def test_the_state_is_told_when_a_run_is_over_and_taken_back_by_another_start(
    tmp_path: Path, state: str, status: str | None
) -> None:
    tell(tmp_path)
    write_end(tmp_path, state, 2e9)
    assert shown(tmp_path)[1] == (status and getattr(api_pb2, status))
    tell(tmp_path, restarts=1, a=2)
    assert shown(tmp_path) == ({"a": 2.0}, None)
    assert "Started 2 times." in text(tmp_path, "command") and "# changed: a: 1 -> 2" in text(tmp_path, "command")
    assert [path.name for path in tmp_path.iterdir()] == [CARD], "no file that is written aside is left"


def test_an_end_without_a_card_is_not_told(tmp_path: Path) -> None:
    write_end(tmp_path, "finished", 2e9)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("starts", [(0,), (0, 0), (0, 4), (0, 4, 4), (0, 4, 2), (0, 0, 3, 3)])
def test_whatever_the_starts_all_is_there_once_and_steps_increase(tmp_path: Path, starts: tuple[int, ...]) -> None:
    for number, first in enumerate(starts):
        tell(tmp_path, restarts=number)
        board = Board(tmp_path)
        board.purge(first + 1 if first else 0)
        if not first:
            board.add(lambda writer: writer.add_text("samples", "x", 0))
        for step in range(first + 1, 7):
            board.scalars("train", {"loss": float(number)}, step)
        board.close()  # what was not flushed before a save is not there after a kill either
        wait_for_the_next_second()
    write_end(tmp_path, "finished", 2e9)
    events = read(tmp_path)
    assert [event.step for event in events.Tensors("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Tensors("samples/text_summary")] == [0]
    for tag in ("run/command", "run/configuration", "custom_scalars__config__"):
        assert [event.step for event in events.Tensors(tag)] == [0], tag
    assert shown(tmp_path)[1] == api_pb2.STATUS_SUCCESS
    assert (tmp_path / END).exists()


def wait_for_the_next_second() -> None:
    """TensorBoard reads event files in the order of their names, which hold the second in which they were made."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)
