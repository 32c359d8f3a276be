"""The hint where training waits for its images: once, and of the cause."""

from __future__ import annotations

import logging

import pytest

from engine.data.read_meter import RECORDS, ReadMeter, WaitHint


def hints(meter: ReadMeter | None, workers: int, fractions: list[float], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    hint = WaitHint(meter, workers)
    with caplog.at_level(logging.WARNING):
        for fraction in fractions:
            hint.record(fraction)
    return [record.getMessage() for record in caplog.records]


def test_one_hint_names_cause_and_cure(caplog: pytest.LogCaptureFixture) -> None:
    busy, slow = ReadMeter(2), ReadMeter(2)
    busy.add(10.0, 1.0)
    slow.add(6.0, 2.0)
    slow.add(4.0, 9.0)
    assert (busy.file_fraction, slow.file_fraction) == (0.1, 0.9)
    (text,) = hints(busy, 2, [0.5] * (3 * RECORDS), caplog)
    assert "waits for its images 50% of the time" in text and "compute (2 data.workers" in text
    assert "decode" not in text.partition("(docs")[0], "it is fast already"
    whole = ReadMeter(2, exact=True)
    assert "ask for more cores a device, data.decode=fast, smaller" in hints(whole, 2, [0.5] * (RECORDS + 1), caplog)[0]
    (text,) = hints(slow, 2, [0.5] * (RECORDS + 1), caplog)
    assert "wait for files 90% of theirs: the storage is slow; raise data.read_threads" in text
    (text,) = hints(None, 0, [0.5] * (RECORDS + 1), caplog)
    assert "set data.workers=auto" in text


def test_a_hint_does_not_come_again(caplog: pytest.LogCaptureFixture) -> None:
    assert len(hints(ReadMeter(2), 2, ([0.5] * (2 * RECORDS) + [0.0]) * 3, caplog)) == 1


def test_a_short_wait_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert not hints(None, 2, [0.9] * RECORDS, caplog), "workers had just begun"
    assert not hints(None, 2, ([0.9] * RECORDS + [0.05]) * 3, caplog)
