"""What TensorBoard shows of a run besides numbers and images: hyperparameters, texts, and how charts are arranged."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.board.place import CARD, END
from engine.files import remove_leftovers, write_atomic

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

ENDS = {"finished": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}
"""States in which a run is over, and what TensorBoard calls them. Of others it says that it does not know."""


@dataclass(frozen=True)
class Card:
    """What is told of a run once, in a file that TensorBoard reads before all others."""

    started: float
    """Seconds since 1970."""
    settings: Mapping[str, bool | float | str]
    """Shown in the table of hyperparameters."""
    texts: Mapping[str, str]
    """Markdown, by name."""
    charts: Mapping[str, Mapping[str, Sequence[str]]]
    """By category and title: patterns of the tags that a chart shows together."""


def write_card(folder: Path, card: Card) -> None:
    """Writes the card of a run whose event files lie in ``folder``, in place of an earlier one, and takes its end away.

    TensorBoard holds to what it has read of a run's settings first, and a mark that voids steps voids texts as well: so
    this file, and not each start's own, says what the last start has to say. Files are put into place by a name that
    TensorBoard does not look for.

    Raises:
        OSError: the disk cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb
    from torch.utils.tensorboard.summary import custom_scalars

    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    layout = {
        category: {title: ["Multiline", [*tags]] for title, tags in charts.items()}
        for category, charts in card.charts.items()
    }
    # Runs of one group are one row: without a name each is its own.
    settings = {key: _utf8(value) if isinstance(value, str) else value for key, value in card.settings.items()}
    summaries = [hparams_pb(settings, trial_id="", start_time_secs=card.started), custom_scalars(layout)]
    summaries += [text_pb(f"run/{name}", _utf8(content)) for name, content in card.texts.items()]
    # A reader takes the first beginning of a session for the run's own, and only later ones for marks that void steps.
    _write(folder / CARD, card.started, summaries, Event(session_log=SessionLog(status=SessionLog.START)))
    (folder / END).unlink(missing_ok=True)


def write_end(folder: Path, state: str, ended: float) -> None:
    """Tells TensorBoard that a run has finished or failed; of any other state there is nothing to tell.

    A file of its own, behind all others, so that a server that is running sees it.

    Raises:
        OSError: the disk cannot be written.
    """
    if state not in ENDS or not (folder / CARD).exists():
        return
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=getattr(api_pb2, ENDS[state]), end_time_secs=ended)
    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=told, tensor=metadata.NULL_TENSOR)
    _write(folder / END, ended, [Summary(value=[value])])


def _utf8(text: str) -> str:
    """Returns a text with escapes for bytes of files' names that are none."""
    return text.encode(errors="backslashreplace").decode()


def _write(path: Path, time: float, summaries: Sequence[Any], *others: Event) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    records = RecordWriter(content)
    for event in (Event(file_version="brain.Event:2"), *others, *(Event(summary=summary) for summary in summaries)):
        event.wall_time = time
        records.write(event.SerializeToString())
    aside = path.with_name(".card")
    write_atomic(aside, content.getvalue())
    os.replace(aside, path)


def card_of(
    environment: Mapping[str, Any], config: str, settings: Mapping[str, bool | float | str], metric: str
) -> Card:
    """Puts together the card of a run.

    Args:
        environment: what its starts ran on, see :mod:`engine.run_folder.environment`.
        config: the resolved configuration, as YAML.
        metric: what decides which checkpoint is the best.
    """
    starts = [environment, *environment.get("restarts", [])]
    told = [f"Started {len(starts)} times." if len(starts) > 1 else ""]
    for start in starts:
        devices = ", ".join(dict.fromkeys(device.get("device_name", "") for device in start.get("devices", [])))
        changes = "".join(f"\n    # changed: {change}" for change in start.get("changed_settings", ()))
        told.append(f"    # step {start.get('step', 0)}, {', '.join(start.get('hosts', []))}: {devices}")
        told[-1] += f"\n    {start.get('command', '')}{changes}"
    name = re.escape(metric)
    charts = {
        "Loss and metric": {
            "loss": [r"^(train|val)/loss$"],
            metric: [rf"^((train|val)/|result/best_){name}$"],
        },
        "Training": {"learning rate": [r"^train/lr$"], "gradient norm": [r"^train/grad_norm$"]},
        "Speed": {
            "images per second": [r"^train/images_per_second$"],
            "share of time that waits for data": [r"^train/data_wait_fraction$"],
            "memory (GB)": [r"^train/memory_gb$"],
        },
    }
    texts = {"command": "\n\n".join(filter(None, told)), "configuration": f"```yaml\n{config}```"}
    return Card(float(environment.get("started", 0.0)), settings, texts, charts)
