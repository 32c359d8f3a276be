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
FILTER = (
    "(() => {{ const f = document.getElementById('filter'); f.value = '{}'; f.dispatchEvent(new Event('input')) }})()"
)


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
    first = "Number(document.querySelector('#runs tbody tr').querySelector('td.best').textContent)"
    values = (
        "[...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[COLUMN].textContent).filter(Boolean)"
    )
    place = chromium.run("[...document.querySelectorAll('#runs thead th')].findIndex(h => h.title === 'best.top1')")
    column = [float(value) for value in chromium.run(values.replace("COLUMN", str(place)))]
    assert len(column) > 20 and column == sorted(column, reverse=True), "the best first"
    assert chromium.run(first) == column[0]
    chromium.run(CLICK.format("best top1"))
    assert [float(value) for value in chromium.run(values.replace("COLUMN", str(place)))] == sorted(column)

    chromium.run(FILTER.format("optimizer.lr=1e-3 state=finished"))
    assert sorted(chromium.run(NAMES))[:3] == ["experiment_0001", "experiment_0002", "experiment_0003"]
    assert chromium.run("document.getElementById('count').textContent").endswith(f" of {count}")
    chromium.run(FILTER.format("top1>0.83"))
    assert chromium.run(NAMES) and all(float(v) > 0.83 for v in chromium.run(values.replace("COLUMN", str(place))))
    chromium.run(FILTER.format("foreign"))
    assert {"notes"} <= set(chromium.run(NAMES))
    chromium.run(FILTER.format("experiment_0001"))
    assert chromium.run(NAMES) == ["experiment_0001"]
    assert chromium.run("document.querySelector('#pictures img').naturalWidth") == 300

    chromium.run(FILTER.format(""))
    assert chromium.run("document.querySelectorAll('.chart[data-metric=\"val.top1\"] path').length") > 20
    for number in (0, 3):
        chromium.run(f"document.querySelector('#runs tr[data-row=\"{number}\"] input').click()")
    shown = (
        "[...document.querySelectorAll('#settings tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert chromium.run(shown) == [["optimizer.lr", "0.001", "0.002"]]
    assert chromium.run("document.querySelectorAll('.chart[data-metric=\"val.top1\"] path').length") == 2
    chromium.run(
        "document.getElementById('over').value = 'hours'; document.getElementById('over').dispatchEvent(new Event('input'))"
    )
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
