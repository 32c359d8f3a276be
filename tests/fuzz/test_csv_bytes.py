"""Tables of any bytes: what is opened is all that a plain reader reads, or the user is told which row or file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from classification.config import ClassificationConfig
from classification.preflight import look
from engine.datasets.csv_labels import open_csv
from engine.datasets.csv_listing import SPLITS
from engine.datasets.sections import CsvData
from tests.classification.small import TINY, write_images
from tests.fuzz.examples import Hunt, hunted, refused

TABLE = """file,kind,split,note
cat/000.jpg,cat,train,
cat/001.jpg,cat,val,"a, b"
dog/000.jpg,dog,train,"say ""hi\"""
dog/001.jpg,dog,val,x
owl/000.jpg,owl,train,y
owl/001.jpg,owl,val,z
"""
ODD = (
    b"", b",", b";", b"\t", b'"', b'""', b'"""', b"\n", b"\r", b"\r\n", b"\n\n", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xe9", b" ", b"\xc2\xa0", b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\\", b"..", b"/", b"cat",
    b"Cat ", b"train", b"test", b"nan", b"NaN", b"1", b"1.0", b"#", b"=1+1", b"'", b"file", b"kind", b"split",
    b"a" * 200000, b"file,kind,split,note\n",
)  # fmt: skip
tables = st.sampled_from([TABLE.encode(), TABLE.replace("\n", "\r\n").encode(), TABLE.replace(",", ";").encode()])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The table with up to four places cut out, doubled or written over, in some encoding."""
    table = draw(tables)
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(table)))
        end = draw(st.integers(begin, min(len(table), begin + 30)))
        lines = table.splitlines(keepends=True) or [b""]
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                table = table[:begin] + table[end:]
            case 1 | 2:
                table = (
                    table[:begin]
                    + draw(st.sampled_from(ODD) | st.binary(max_size=4))
                    + table[draw(st.sampled_from([begin, end])) :]
                )
            case 3:
                table = b"".join([*lines[: line + 1], *lines[line:]])
            case 4:
                table = b"".join([*lines[:line], *lines[line + 1 :]])
            case _:
                cells = lines[line].split(b",")
                cell = draw(st.integers(0, len(cells) - 1))
                cells[cell : cell + 1] = draw(st.lists(st.sampled_from([*cells, *ODD]), max_size=2))
                table = b"".join([*lines[:line], b",".join(cells), *lines[line + 1 :]])
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp037"]))
    return table if encoding == "utf-8" else table.decode("latin-1").encode(encoding, errors="replace")


def plain_rows(content: bytes, delimiter: str) -> list[dict[str, str]]:
    """What stands in the table, without blank lines."""
    header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    names = [name.strip() for name in header]
    return [{name: cell.strip() for name, cell in zip(names, row, strict=True)} for row in rows if row]


@hunted(200, 10000)
def test_what_is_opened_is_what_stands_there(hunt: Hunt, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "table.csv"

    @hunt(damaged() | st.binary(max_size=40), st.sampled_from(",;"), st.sampled_from(["split", None]))
    def check(content: bytes, delimiter: str, split_column: str | None) -> None:
        file.write_bytes(content)
        caplog.clear()
        keys = {"path_column": "file", "label_columns": ["kind"], "delimiter": delimiter, "split_column": split_column}
        config = CsvData(source="csv", root=tmp_path, csv=file, **keys)
        opened = {split: refused(lambda split=split: open_csv(config, split)) for split in ("train", "val", "test")}
        for images, message in opened.values():
            assert images is not None or str(file) in message or message.startswith("data"), message
        if opened["train"][0] is None:
            return
        rows = plain_rows(content, delimiter)
        there = {
            (os.path.normpath(row["file"]), row["kind"], SPLITS[row[split_column].lower()] if split_column else "train")
            for row in rows
        }
        found = [
            (images.name(index), images.classes[images.labels[index]], split)
            for split, (images, _) in opened.items()
            if images is not None
            for index in range(len(images))
        ]
        assert sorted(found) == sorted(there)
        assert (
            len(rows) == len(there)
            or f"rows that repeat others and count once: {len(rows) - len(there)}" in caplog.text
        )
        for row in rows:
            cells = [cell for cell in row.values() if "\n" in cell.strip() or "\r" in cell.strip()]
            assert not any(cell.count(delimiter) >= len(row) - 1 for cell in cells) or "quote" in caplog.text, cells


@hunted(30, 3000)
def test_a_look_at_the_data_ends_well(hunt: Hunt, tmp_path: Path) -> None:
    write_images(tmp_path, {"cat": 2, "dog": 2, "owl": 2})
    file = tmp_path / "table.csv"
    data = {"source": "csv", "root": str(tmp_path), "csv": str(file), "path_column": "file", "image_size": 16}
    data |= {"label_columns": ["kind"], "split_column": "split"}
    config = ClassificationConfig.model_validate_json(_json({**TINY, "data": data}))

    @hunt(damaged())
    def check(content: bytes) -> None:
        file.write_bytes(content)
        found, message = refused(lambda: list(look(config)))
        assert found or message


def _json(tree: dict[str, Any]) -> str:
    import json

    return json.dumps(tree)
