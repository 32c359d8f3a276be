"""``python -m tools.compare``: the table, CSV, Markdown, page and figure, and that their numbers agree."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import UserError
from engine.run_folder.experiments import read_runs
from engine.run_folder.metrics import Line, read_metrics
from engine.run_folder.paths import RunDir
from tests.tools.compare.folders import BROKEN, write_experiment, write_predictions, write_root
from tools.compare import pictures
from tools.compare.__main__ import main
from tools.compare.page import FEWEST_POINTS, content_of, page
from tools.compare.pictures import as_uri
from tools.compare.plot import band_of, write_plot
from tools.compare.table import cell, place_names, terminal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty experiments, twenty of them broken, and a folder that is none."""
    place = tmp_path_factory.mktemp("compare") / "experiments"
    write_root(place, 10 + len(BROKEN))
    return place


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def best_of(folder: Path) -> tuple[float, float]:
    """The best top1 and its epoch, straight from metrics.jsonl."""
    val = [record for record in read_metrics(folder / "metrics.jsonl", "val") if "source" not in record]
    best = max(val, key=lambda record: record["top1"])
    return best["top1"], best["epoch"]


def test_table_csv_markdown_and_page_agree_with_the_records(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / name for name in ("table.csv", "table.md", "page.html")}
    options = ("--csv", files["table.csv"], "--markdown", files["table.md"], "--html", files["page.html"])
    shown = compare(capsys, root, *options).splitlines()
    rows = {row["experiment"]: row for row in csv.DictReader(files["table.csv"].open(newline=""))}
    content = json.loads(re.search(r'id="content">(.*?)</script>', files["page.html"].read_text(), re.S)[1])  # type: ignore[index]
    headings = [column["key"] for column in content["columns"]]
    on_page = {row["name"]: dict(zip(headings, row["values"], strict=True)) for row in content["rows"]}
    lines = {line.split()[0]: line for line in shown[1:]}
    markdown = {line.split("|")[1].strip(): line for line in files["table.md"].read_text().splitlines() if "|" in line}
    assert len(rows) == len(on_page) == len(BROKEN) + 11 and {*rows} <= {*lines, "notes"} and {*rows} <= {*markdown}
    for number in range(1, 11):
        name = f"experiment_{number:04d}"
        value, epoch = best_of(root / name)
        assert (float(rows[name]["best.top1"]), float(rows[name]["best.epoch"])) == (value, epoch), "all digits"
        assert (on_page[name]["best.top1"], on_page[name]["best.epoch"]) == (value, epoch)
        assert f"  {value:.4f}  " in lines[name] and f"| {value:.4f} |" in markdown[name]
    for number, (_, state, problem) in enumerate(BROKEN.values(), start=11):
        name = f"experiment_{number:04d}"
        assert rows[name]["state"] == on_page[name]["state"] == state and f"  {state}" in lines[name]
        assert problem in rows[name]["problem"]


def test_the_page_opens_from_one_file_and_is_text_whatever_names_say(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1, name="</script><script>alert(1)</script>")
    folder.results.mkdir()
    Image.new("RGB", (1200, 40), "red").save(folder.results / "train_samples.png")
    text = page(read_runs([folder.path]), [])
    assert "<script>alert" not in text and text.count("<script") == 2
    assert not re.findall(r'(?:src|href)\s*=\s*"(?!data:)|url\(|@import|https?://(?!www\.w3\.org)', text)
    (images,) = content_of(read_runs([folder.path]), [])["pictures"].values()
    assert list(images) == ["training images"] and images["training images"].startswith("data:image/webp;base64,")


def test_a_page_of_hundreds_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in write_root(tmp_path, 40, broken=False, epochs=30, steps_per_epoch=20, every=1):
        folder.results.mkdir()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
            folder.results / "train_samples.png"
        )
    runs = read_runs([tmp_path]) * 10
    content = content_of(runs, [])
    points = [len(line["values"]) for row in content["rows"] for line in row["lines"].values()]
    assert min(points) >= FEWEST_POINTS and sum(points) < 200_000
    assert len(content["pictures"]) == pictures.MOST_RUNS
    assert len(page(runs, [])) < 10_000_000
    monkeypatch.setattr(pictures, "MOST_BYTES", 30_000)
    assert sum(len(uri) for own in pictures.pictures(runs).values() for uri in own.values()) <= 30_000


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_an_image_that_cannot_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert as_uri(tmp_path / "x.png") is None and as_uri(tmp_path) is None


def test_values_that_json_has_not_do_not_break_the_page(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    folder.config.write_text(folder.config.read_text().replace("lr: 1.0e-03", "lr: .inf"))
    folder.metrics.write_text(folder.metrics.read_text().replace('"grad_norm": 1.0', '"grad_norm": Infinity'))
    write_experiment(tmp_path, 2)
    runs = read_runs([tmp_path])
    assert page(runs, []).count("Infinity") == page([], []).count("Infinity") and terminal(runs, None)


def test_only_csv_goes_to_the_output_when_that_is_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.reader(io.StringIO(compare(capsys, root, "--csv", "-", "--sort", "top1"))))
    assert len(rows) == len(BROKEN) + 12 and len({len(row) for row in rows}) == 1


def test_pandas_reads_the_csv(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.read_csv(io.StringIO(compare(capsys, root, "--csv", "-")))
    best = dict(zip(frame["experiment"], frame["best.top1"], strict=True))
    assert frame["best.top1"].dtype == float
    assert all(best[folder.name] == best_of(folder)[0] for folder in root.glob("experiment_000?"))


def test_what_is_too_wide_for_the_terminal_gives_way_and_is_named(root: Path) -> None:
    runs = read_runs([root])[:10]
    assert "not wide enough" not in terminal(runs, None)
    narrow = terminal(runs, 70).splitlines()
    assert max(map(len, narrow[:-1])) <= 70
    assert narrow[0].startswith("experiment") and "state" in narrow[0] and "best top1" in narrow[0]
    assert narrow[-1].startswith("not wide enough for: ") and "params" in narrow[-1]
    assert terminal(runs, 5).splitlines()[0] == "experiment", "the least there can be"


def test_folders_of_several_roots_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "experiment_0001", tmp_path / "b" / "experiment_0001"]
    assert place_names(paths) == ["a/experiment_0001", "b/experiment_0001"]
    assert place_names(paths[:1]) == ["experiment_0001"]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("parameters", 28_288_354, "28.3M"),
        ("flops", 8.97e9, "8.97G"),
        ("parameters", 12, "12"),
        ("best.top1", 0.98765, "0.9877"),
        ("best.loss", 1e-5, "1e-05"),
        ("best.epoch", 12.0, "12"),
        ("hours", 0.0048225, "0.00482"),
        ("hours", 1234.5, "1234"),
        ("optimizer.lr", 0.0003, "0.0003"),
        ("training.ema", None, ""),
        ("training.compile", True, "True"),
        ("name", "a\n b", "a b"),
    ],
)
def test_cells_are_short(key: str, value: Any, text: str) -> None:
    assert cell(key, value) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "--where", "optimizer.lr=7"], "error: --where: no run has optimizer.lr=7"),
        (["{root}", "--sort", "nothing"], "error: --sort: no run has 'nothing'"),
        (["{root}/none"], "there is no such folder"),
        (["{root}", "--csv", "{root}/no/file.csv"], "--csv {root}/no/file.csv: cannot be written"),
        (["{root}", "--csv", "{root}/one", "--html", "{root}/one"], "--csv and --html: both name {root}/one"),
        (["{root}", "--plot", "{root}/README.md/x.png"], "--plot {root}/README.md/x.png: cannot be written"),
        (["{root}", "--plot", "{root}/x.png", "--metrics", "val.top9"], "--metrics: no run has 'val.top9'; there are"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([argument.format(root=root) for argument in arguments]) == 2
    assert message.format(root=root) in capsys.readouterr().err


@pytest.mark.parametrize("last", ["0", "-1", "x"])
def test_last_is_a_number_from_one_on(root: Path, capsys: pytest.CaptureFixture[str], last: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(root), "--last", last])
    assert "is no number from 1 on" in capsys.readouterr().err


# -- figures -------------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_with_their_spread(tmp_path: Path) -> None:
    for seed, top1 in enumerate((0.8, 0.9, 1.0)):
        write_experiment(tmp_path, seed + 1, seed=seed, top1=top1)
    runs = read_runs([tmp_path])
    band = band_of(runs, "val.top1", "epochs")
    assert band is not None and band.x.tolist() == [1, 2, 3, 4]
    assert band.mean == pytest.approx([0.3, 0.6, 0.9, 0.89])
    assert band.spread == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])
    alone = band_of(runs[:1], "val.loss", "steps")
    assert alone is not None and alone.x.tolist() == [20, 30, 40], "a value that is null is left out"
    assert band_of(runs, "val.nothing", "steps") is None


def test_curves_of_other_steps_meet_where_all_have_values(tmp_path: Path) -> None:
    runs = read_runs([write_experiment(tmp_path, number).path for number in (1, 2)])
    for run, steps in zip(runs, ([0.0, 10.0], [5.0, 15.0]), strict=True):
        run.lines["val.x"] = Line(steps, steps, steps, steps)
    band = band_of(runs, "val.x", "steps")
    assert band is not None and (band.x[0], band.x[-1]) == (5.0, 10.0) and band.mean == pytest.approx(band.x)
    runs[1].lines["val.x"] = Line([11.0], [11.0], [11.0], [1.0])
    assert band_of(runs, "val.x", "steps") is None, "they have no step in common"


@pytest.mark.parametrize("over", ["epochs", "steps", "hours"])
def test_a_figure_is_drawn_over_anything(root: Path, tmp_path: Path, over: str) -> None:
    write_plot(read_runs([root]), tmp_path / "x.png", ["val.top1"], over)
    assert min(Image.open(tmp_path / "x.png").size) > 200


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    (tmp_path / "experiment_0001").mkdir()
    with pytest.raises(UserError, match="--plot: nothing was measured"):
        write_plot(read_runs([tmp_path]), tmp_path / "x.png", [], "epochs")


def test_it_runs_as_a_command(tmp_path: Path) -> None:
    for number in (1, 2):
        write_predictions(write_experiment(tmp_path, number, lr=f"{number}.0e-03"), np.ones(5, bool))
    command = [sys.executable, "-m", "tools.compare", str(tmp_path), "--last", "2", "--html", str(tmp_path / "x.html")]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=True)
    assert "2 folders: 2 finished" in done.stdout and "of the same 5 images of val" in done.stdout
    assert done.stderr.startswith("html: ") and (tmp_path / "x.html").stat().st_size > 10_000
    assert RunDir(tmp_path / "experiment_0001").config.is_file()
