"""The page in a browser: its table sorted and filtered, its curves drawn, the difference of two rows shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.run_folder.experiments import read_runs
from tests.browser import Browser, browser
from tests.tools.compare.folders import BROKEN, write_root
from tools.compare.chance import statements
from tools.compare.page import page

NAMES = "[...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[1].textContent)"
CLICK = "[...document.querySelectorAll('#runs thead button')].find(b => b.textContent.startsWith('{}')).click()"
SET = "(() => {{ const f = document.getElementById('{}'); f.value = '{}'; f.dispatchEvent(new Event('input')) }})()"
TEXTS = "[...document.querySelectorAll('{} tr')].map(row => [...row.cells].map(cell => cell.textContent))"


def test_it_sorts_filters_draws_and_compares(tmp_path: Path) -> None:
    root = tmp_path / "experiments"
    folders = write_root(root, 12 + len(BROKEN))
    folders[0].results.mkdir()
    Image.new("RGB", (300, 200), "green").save(folders[0].results / "train_samples.png")
    file = tmp_path / "page.html"
    runs = read_runs([root])
    file.write_text(page(runs, statements(runs)))
    with browser(tmp_path / "profile") as chromium:
        chromium.open(file.as_uri())
        look_at(chromium, len(runs))
        assert not chromium.complaints


def look_at(chromium: Browser, count: int) -> None:
    assert len(chromium.run(NAMES)) == count
    chromium.run(CLICK.format("best top1"))
    place = chromium.run("[...document.querySelectorAll('#runs thead th')].findIndex(h => h.title === 'best.top1')")

    def values() -> list[float]:
        return [float(row[place]) for row in chromium.run(TEXTS.format("#runs tbody")) if row[place]]

    column = values()
    assert len(column) > 20 and column == sorted(column, reverse=True), "the best first"
    assert float(chromium.run("document.querySelector('#runs tbody td.best').textContent")) == column[0]
    chromium.run(CLICK.format("best top1"))
    assert values() == sorted(column)

    chromium.run(SET.format("filter", "optimizer.lr=1e-3 state=finished"))
    assert sorted(chromium.run(NAMES))[:3] == ["experiment_0001", "experiment_0002", "experiment_0003"]
    assert chromium.run("document.getElementById('count').textContent").endswith(f" of {count}")
    chromium.run(SET.format("filter", "top1>0.835"))
    assert values() and min(values()) > 0.835
    chromium.run(SET.format("filter", "foreign"))
    assert {"notes"} <= set(chromium.run(NAMES))
    chromium.run(SET.format("filter", "experiment_0001"))
    assert chromium.run(NAMES) == ["experiment_0001"]
    assert chromium.run("document.querySelector('#pictures img').naturalWidth") == 300

    chromium.run(SET.format("filter", ""))
    assert chromium.run("document.querySelectorAll('.chart[data-metric=\"val.top1\"] path').length") > 20
    for number in (0, 3):
        chromium.run(f"document.querySelector('#runs tr[data-row=\"{number}\"] input').click()")
    assert chromium.run(TEXTS.format("#settings tbody")) == [["optimizer.lr", "0.001", "0.002"]]
    assert chromium.run("document.querySelectorAll('.chart[data-metric=\"val.top1\"] path').length") == 2
    chromium.run(SET.format("over", "hours"))
    assert chromium.run("document.querySelectorAll('.chart path').length") >= 6
    assert "beside" in chromium.run("document.getElementById('chance').textContent")


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "\u2028 'x' \"y\" &amp;"])
def test_names_are_text(tmp_path: Path, name: str) -> None:
    write_root(tmp_path / "experiments", 3, broken=False)[0].config.write_text(f"experiment: {{name: {name!r}}}\n")
    file = tmp_path / "page.html"
    file.write_text(page(read_runs([tmp_path / "experiments"]), [name]))
    with browser(tmp_path / "profile") as chromium:
        chromium.open(file.as_uri())
        assert chromium.run("document.querySelectorAll('img').length") == 0
        assert chromium.run("document.querySelector('#chance li').textContent") == name
        assert not chromium.complaints
