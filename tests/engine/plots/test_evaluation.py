"""The figures of evaluations that tasks share."""

from __future__ import annotations

import numpy as np
import pytest

from engine.plots.evaluation import confusion_figure, confusions, precision_recall_figure


@pytest.mark.parametrize("title", ["Confusion (share of the true class)", "Confusion (score 0.3 or more, IoU 0.5)"])
@pytest.mark.parametrize("count", [2, 4, 12])
def test_the_title_of_a_small_confusion_matrix_is_whole(count, title):
    names = [f"c{k}" for k in range(count)]
    figure = confusion_figure(np.eye(count, dtype=np.int64), names, names, np.ones(count), title)
    figure.draw_without_rendering()
    (drawn,) = figure.texts
    assert figure.bbox.x0 <= drawn.get_window_extent().x0 and drawn.get_window_extent().x1 <= figure.bbox.x1


def test_the_most_frequent_confusions_come_first():
    assert confusions(np.array([[9, 1, 2], [0, 9, 0], [5, 2, 9]])) == [(2, 0), (0, 2), (2, 1), (0, 1)]


@pytest.mark.parametrize(("count", "named"), [(11, 10), (200, 6)])
def test_of_many_curves_the_best_and_the_worst_are_named(count, named):
    """The last class has no curve."""
    precision = np.append(np.linspace(0, 1, count - 1), np.nan)
    curve = (np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    figure = precision_recall_figure("Title", list(map(str, range(count))), precision, lambda c: curve, ("all", curve))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert (
        len(labels) == named + 1 and labels[0] == f"{count - 2} (AP 1.000)" and labels[-2:] == ["0 (AP 0.000)", "all"]
    )
