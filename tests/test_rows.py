"""Manifests: what is written comes out cell by cell, and whatever could be read in two ways is refused with its row."""

from __future__ import annotations

import csv
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uwmlib.errors import UwmError
from uwmlib.rows import file_of_row, read_rows, rows_of_split

HEADER = "image,text\n"


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, suffix=".csv"):
        path = tmp_path / f"table{suffix}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return read_rows(path, columns=["image", "text"], optional=["split"], prose=["text"])

    return write_and_read


def line(**values):
    return json.dumps({"image": "a.png", "text": "x", **values})


VISIBLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(
    lambda s: f"({s}"
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(VISIBLE, min_size=1, max_size=5), suffix=st.sampled_from([".csv", ".JSONL"]))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory, texts, suffix):
    path = tmp_path_factory.mktemp("rows") / f"table{suffix}"
    with open(path, "w", newline="", encoding="utf-8") as file:
        if suffix == ".csv":
            csv.writer(file).writerows(
                [["id", "image", "text"], *([i, "a.png", t] for i, t in enumerate(texts))]
            )
        else:
            file.writelines(line(text=text, id=i) + "\n" for i, text in enumerate(texts))
    rows = read_rows(path, columns=["image", "text"], prose=["text"])
    assert rows == [{"image": "a.png", "text": text} for text in texts]


@pytest.mark.parametrize(
    "content",
    [
        HEADER + "a.png,x\n",
        "\ufeff" + HEADER + "a.png,x",
        HEADER.replace("\n", "\r\n") + "\r\na.png,x\r\n\r\n",
        HEADER.replace("\n", "\r") + "a.png,x\r",
        "text,id,image\nx,7,a.png\n",
        ",image,text\n0,a.png,x\n",  # as pandas writes it
        "image,text,split\na.png,x,\n",
    ],
)
def test_forms_of_one_csv_table(read, content):
    assert read(content) == [{"image": "a.png", "text": "x"}]


@pytest.mark.parametrize(
    "content",
    [
        line(),
        "\ufeff" + line() + "\r\n",
        line(split=None),
        line(split=" "),
        line(id=[1, {"a": 2}], score=float("nan")),
    ],
)
def test_forms_of_one_jsonl_table(read, content):
    assert read(content, ".jsonl") == [{"image": "a.png", "text": "x"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a.png,hello, world\n", "Row 1 .* has 3 cells but the header 2"),
        ("a.png,x\na.png\n", "Row 2 .* has 1 cells"),
        ("a.png,x\na.png;y\n", "Row 2 .* has 1 cells"),
        ('a.png, "x"\n', "Row 1 .* blank between a comma and a quote"),
        ('a.png,"x\n', "not a CSV file"),
        ('a.png,"x"y\n', "not a CSV file"),
        ("a.png,x\nimage,text\n", "Row 2 .* repeats the header"),
        ("a.png,x\n\ufeffimage,text\n", "Row 2 .* repeats the header"),
        ("a.png,   \n", "Row 1 .* lacks text"),
        (",x\n", "Row 1 .* lacks image"),
        ("a.png,x\0y\n", "text in row 1 .* NUL"),
        ("a.png,\u200b\n", "text in row 1 .* no visible character"),
        (" a.png,x\n", "image in row 1 .* blanks around it"),
        ("", "no rows"),
    ],
)
def test_csv_rows_that_do_not_fit_are_refused(read, content, words):
    with pytest.raises(UwmError, match=words):
        read(HEADER + content)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("image,text,text", "column 'text' twice"),
        ("image,id,text,id", "column 'id' twice"),
        ("image,text,", "column without a name"),
        (",image,text,", "column without a name"),
        ("image;text", "no commas"),
        ("image\ttext", "no commas"),
        ("image, text", "' text' for 'text'"),
        ("image,Text", "'Text' for 'text'"),
        ("image,caption", "lacks text"),
        ("image,text,Split", "'Split' for 'split'"),
        ("image,text,splits", "'splits' for 'split'"),
    ],
)
def test_columns_that_are_missing_misspelt_or_given_twice_are_refused(read, header, words):
    cells = ",".join(f"c{i}" for i in range(header.count(",") + 1))
    with pytest.raises(UwmError, match=words):
        read(f"{header}\n{cells}\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x", "Row 2 .* not JSON"),
        ("[" * 100_000, "Row 2 .* not JSON .nested too deeply"),
        (line()[:-1] + ', "id": ' + "9" * 10_000 + "}", "Row 2 .* not JSON"),
        (line() + line(), "Row 2 .* not JSON"),
        ("\ufeff" + line(), "Row 2 .* not JSON"),
        ("[" + line() + "]", "Row 2 .* no object"),
        ("null", "Row 2 .* no object"),
        ('{"image": "a", "text": "x", "text": "y"}', "Row 2 .* the key 'text' twice"),
        (line()[:-1] + ', "id": {"a": 1, "a": 2}}', "Row 2 .* the key 'a' twice"),
        (line(text=None), "Row 2 .* lacks text"),
        (line(text=["x"]), r"text in row 2 .* is \['x'\]"),
        (line(text=True), "text in row 2 .* is True"),
        (line(split=3), "split in row 2 .* is 3"),
        (line(text="\ud83d"), "text in row 2 .* surrogate"),
        (line(split="\ud83d"), "split in row 2 .* surrogate"),
        (line(split="test "), "split in row 2 .* blanks around it"),
        (line(SPLIT="test"), "'SPLIT' for 'split'"),
    ],
)
def test_json_rows_that_do_not_fit_are_refused(read, content, words):
    with pytest.raises(UwmError, match=words):
        read(f"{line()}\n\n{content}\n", ".jsonl")


def test_messages_stay_short(read):
    with pytest.raises(UwmError) as caught:
        read(line(text=["x" * 10_000]), ".jsonl")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused(read, encoding):
    with pytest.raises(UwmError, match="UTF-8|no visible|lacks"):
        read((HEADER + "a.png,é\n").encode(encoding))


def test_a_pipe_a_folder_and_another_kind_of_file_are_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, words in (
        ("pipe.csv", "no regular file"),
        ("folder.csv", "no regular file"),
        ("none.csv", "There is no manifest"),
        ("a\0b.csv", "There is no manifest"),
        ("table.tsv", "ending in .csv or .jsonl"),
    ):
        with pytest.raises(UwmError, match=words):
            read_rows(tmp_path / name, columns=["image"])


@pytest.mark.parametrize(
    "value", ["", ".", "none.png", "pipe.png", "/dev/zero", "x" * 5000, "http://host/a.png"]
)
def test_a_row_must_name_a_regular_file(tmp_path, value):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UwmError, match="image in row 2 of"):
        file_of_row([{"image": "a.png"}, {"image": value}], 1, "image", tmp_path / "table.csv")


def test_files_are_found_relative_to_the_manifest_or_absolutely(tmp_path):
    (tmp_path / "a.png").touch()
    rows = [{"image": "a.png"}, {"image": str(tmp_path / "a.png")}]
    assert {file_of_row(rows, i, "image", tmp_path / "table.csv") for i in (0, 1)} == {tmp_path / "a.png"}


def test_every_row_is_in_one_split_or_none_has_one():
    whole, parts = [{"text": "x"}] * 3, [{"split": name} for name in ("test", "train", "test")]
    assert rows_of_split(whole, "anything", "t.csv") == [0, 1, 2]
    assert rows_of_split(parts, "test", "t.csv") == [0, 2]
    for rows, words in (
        ([*parts, {"text": "x"}], "Row 4 of t.csv has no split"),
        ([*parts, {"split": "Test"}], "two ways"),
        (parts, "no split 'dev'"),
    ):
        with pytest.raises(UwmError, match=words):
            rows_of_split(rows, "dev", "t.csv")
