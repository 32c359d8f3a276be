from __future__ import annotations

import pytest

from engine.csv_table import read_table
from engine.errors import UserError

WANTED = {"data.path_column": ["file"], "data.label_columns": ["species"]}


@pytest.fixture
def table(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "fish.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_wanted_columns_wherever_they_stand(table):
    found = read_table(
        table('x, species ,file\n1,"cod, Atlantic",a b.jpg\n\n2, hake,"c\nd.jpg" \n'.replace('" \n', '"\n')), WANTED
    )
    assert found.columns == {"file": ["a b.jpg", "c\nd.jpg"], "species": ["cod, Atlantic", "hake"]}
    assert found.lines == [2, 5]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("text", "swallowed"),
    [
        ('file,species,x\na,cod,"5\nb,hake,6\nc,crab,7"\nd,cod,8\n', [4]),
        ('file,species,x\n"a,cod,5\nb",hake,6\n', [3]),
        ('file,species,x\na,"cod,1\r\nb,hake,5\r\nc,crab",8\r\n', [4]),
        ('file,species,x\na,cod,"two\nlines, one comma"\n', []),
        ('file,species,x\na,cod,"a, b, c, d"\n', []),
    ],
)
def test_a_row_that_has_swallowed_others_is_noted(table, text, swallowed):
    assert read_table(table(text), WANTED).swallowed == swallowed


def test_what_excel_writes(table):
    text = "file;species\r\nÄ.jpg;größe\r\n"
    assert read_table(table(b"\xef\xbb\xbf" + text.encode()), WANTED, ";").columns["species"] == ["größe"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fish.csv is empty; its first line is to name the columns"),
        ("file,species\n", "fish.csv has a header and no rows"),
        (
            "file,Specie\na,b\n",
            "data.label_columns: .*no column 'species' .it has: file, Specie.; did you mean",
        ),
        ("file,species,species\na,b,c\n", "has 2 columns called 'species'; rename all but one"),
        ("file;species\na;b\n", "no column 'file' .*; if ';' separates the columns, set data.delimiter"),
        ("file,species\na,b\nc\n", "fish.csv:3: 1 values, but the header names 2 columns"),
        ('file,species\na,"b"c\n', "fish.csv:2: not CSV"),
        ('file,species\na,"b\nc,d\ne,f\n', "fish.csv:2: not CSV .unexpected end of data.; a quote that begins here"),
        ('file,"species\na,b\n', "fish.csv:1: not CSV .unexpected end of data"),
        ("file,species\na,größe\n".encode("latin-1"), "fish.csv is not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_a_user_error(table, text, message):
    with pytest.raises(UserError, match=message):
        read_table(table(text), WANTED)


def test_a_missing_file_names_the_nearest(table, tmp_path):
    table("file,species\na,b\n")
    with pytest.raises(UserError, match=r"data\.csv: .*fisch\.csv does not exist; did you mean .*/fish\.csv\?"):
        read_table(tmp_path / "fisch.csv", WANTED)
    with pytest.raises(UserError, match="does not exist; nor does its folder"):
        read_table(tmp_path / "no" / "fish.csv", WANTED)
    with pytest.raises(UserError, match="is a folder; name a CSV file"):
        read_table(tmp_path, WANTED)
