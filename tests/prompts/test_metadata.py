"""Every kind of source yields its rows under common names and types."""

import gzip
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.prompts.columns import SCHEMA
from experiments.prompts.metadata import find_sources, open_source
from tests.prompts.reference import image_set, noise_image, write_image_folder, write_image_tars, write_parquet

LAION = "SAMPLE_ID:int64 URL:string TEXT:string HEIGHT:int32 WIDTH:int32 LICENSE:string NSFW:string similarity:double"
JOINED = (
    "URL:string TEXT:string WIDTH:double HEIGHT:double similarity:double hash:int64 punsafe:float pwatermark:float"
)
RELEASES = {  # names and types of the columns
    "laion400m": LAION.replace("SAMPLE_ID:int64", "SAMPLE_ID:double"),
    "laion2B-en": LAION,
    "laion2B-multi": f"{LAION} LANGUAGE:string".replace("int32", "int64"),
    "joined": JOINED,
    "aesthetic-v1": f"{JOINED} aesthetic:float",
    "laion-art": f"{JOINED} aesthetic:float LANGUAGE:string",
    "aesthetics-v2": f"{JOINED} AESTHETIC_SCORE:double".replace("HEIGHT:double", "HEIGHT:int32"),
    "coco": f"{LAION} top_caption:string all_captions:list<string> all_similarities:list<string>",
    "lower case": "url:large_string caption:large_string width:string height:string language:dictionary",
    "binary": "url:binary caption:binary width:uint16 height:float16",
}
TYPES = {
    "double": pa.float64(), "float": pa.float32(), "float16": pa.float16(), "uint16": pa.uint16(),
    "list<string>": pa.list_(pa.string()), "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip
VALUES = {
    "text": ["a cat", None, "na\u00efve \u65e5\u672c &amp; co"],
    "caption": ["a cat", None, "na\u00efve \u65e5\u672c &amp; co"],
    "url": ["http://a/1", "http://a/2", None],
    "width": [640, 1024, None],
    "height": [480, 512, None],
    "punsafe": [0.25, None, 0.75],
    "pwatermark": [0.5, 0.125, None],
    "aesthetic": [6.5, 4.5, None],
    "aesthetic_score": [6.5, 4.5, None],
    "language": ["en", "de", None],
}


def release(path, columns):
    """Write a parquet file of three rows with the columns of a release."""
    arrays = {}
    for name, kind in (column.split(":") for column in columns.split()):
        values = VALUES.get(name.lower(), [None] * 3)
        if kind == "string" and name.lower() in ("width", "height"):
            values = [None if value is None else f" {value} " for value in values]
        if kind == "binary":
            values = [None if value is None else value.encode() for value in values]
        plain = pa.array(values, pa.string()) if kind == "dictionary" else None
        made = plain.dictionary_encode() if plain else pa.array(values, TYPES.get(kind) or pa.type_for_alias(kind))
        arrays[name] = made
    pq.write_table(pa.table(arrays), path)
    return path


def read(path, caption_column=None):
    """All rows of a source as dictionaries, and the number of broken rows by reason."""
    batches = list(open_source(path, caption_column).read())
    assert all(batch.rows.schema == SCHEMA for batch in batches)
    broken = sum((batch.broken for batch in batches[1:]), batches[0].broken)
    return [row for batch in batches for row in batch.rows.to_pylist()], dict(broken)


@pytest.mark.parametrize("name", RELEASES)
def test_releases_read_alike(tmp_path, name):
    path = release(tmp_path / "part.parquet", RELEASES[name])
    rows, broken = read(path)
    present = {column.split(":")[0].lower().replace("_score", "") for column in RELEASES[name].split()}
    for ours in ("prompt", "url", "width", "height", "punsafe", "pwatermark", "aesthetic", "language"):
        theirs = "text" if ours == "prompt" else ours
        expected = VALUES[theirs] if ours == "prompt" or ours in present else [None] * 3
        assert [row[ours] for row in rows] == expected
    assert broken == {}
    assert open_source(path, None).count == 3


def test_unknown_sizes_may_be_nan(tmp_path):
    write_parquet(tmp_path / "a.parquet", ["a"], WIDTH=[math.nan], HEIGHT=[3.0])
    assert math.isnan(read(tmp_path / "a.parquet")[0][0]["width"])


def test_caption_column_may_be_named(tmp_path):
    path = release(tmp_path / "coco.parquet", RELEASES["coco"])
    pq.write_table(pq.read_table(path).set_column(8, "top_caption", pa.array(["x", "y", "z"])), path)
    assert [row["prompt"] for row in read(path, "TOP_caption")[0]] == ["x", "y", "z"]


def test_large_row_groups_are_split_into_batches(tmp_path):
    captions = [str(i) for i in range(200_000)]
    path = write_parquet(tmp_path / "a.parquet", captions)
    batches = list(open_source(path, None).read())
    assert len(batches) == 4
    assert [row for batch in batches for row in batch.rows["prompt"].to_pylist()] == captions


def test_csv_and_tsv_skip_broken_rows(tmp_path):
    (tmp_path / "a.csv").write_text(
        'URL,Caption,Width\nhttp://a,"a, ""b""\nc",640\nhttp://b,too,many,cells\nhttp://c,NA,wide\nhttp://d,2020,1e3\n'
    )
    rows, broken = read(tmp_path / "a.csv")
    assert [row["prompt"] for row in rows] == ['a, "b"\nc', "NA", "2020"]
    assert [row["width"] for row in rows] == [640, None, 1000]
    assert broken == {"broken row": 1}
    (tmp_path / "a.tsv").write_text("caption\turl\na, b\thttp://a\nonly one\n")
    rows, broken = read(tmp_path / "a.tsv")
    assert [(row["prompt"], row["url"]) for row in rows] == [("a, b", "http://a")]
    assert broken == {"broken row": 1}


def test_each_line_of_text_is_a_prompt(tmp_path):
    lines = ['a "quoted, one', "tabs\tstay", "2020", "na\u00efve", 'and "another"']
    (tmp_path / "a.txt").write_text("\n".join([*lines[:2], "", *lines[2:]]) + "\n", encoding="utf-8")
    rows, broken = read(tmp_path / "a.txt")
    assert [row["prompt"] for row in rows] == lines
    assert broken == {}


@pytest.mark.parametrize("write", [write_image_folder, write_image_tars])
def test_captioned_images_are_read(tmp_path, write):
    root = write(tmp_path / "set")
    (path,) = find_sources([root])
    rows, broken = read(path)
    assert broken == {"image does not decode": 1, "broken row": 2}
    rows = sorted(rows, key=lambda row: row["width"], reverse=True)
    assert [row["prompt"] for row in rows] == ["a wide one", "schr\u00e4g &amp; hoch"]
    assert [(row["height"], row["width"]) for row in rows] == [(40, 60), (64, 48)]  # of the images, not the metadata
    assert [row["url"] for row in rows] == ["http://a/1"] * 2
    assert [row["punsafe"] for row in rows] == [0.1, 0.9]
    assert [row["language"] for row in rows] == ["en", "de"]
    if write is write_image_folder:
        assert [row["image"] for row in rows] == [str(root / f"00000/00000000{i}.jpg") for i in range(2)]
        assert [row["member"] for row in rows] == [None] * 2
    else:
        assert [row["image"] for row in rows] == [str(root / "00000.tar")] * 2
        assert [row["member"] for row in rows] == ["000000000.jpg", "000000001.jpg"]


def test_captions_may_come_from_image_metadata(tmp_path):
    (tmp_path / "a.png").write_bytes(noise_image(8, 8, "PNG"))
    (tmp_path / "a.json").write_text(json.dumps({"caption": "in json", "other": "the other"}))
    assert read(tmp_path)[0][0]["prompt"] == "in json"
    assert read(tmp_path, "other")[0][0]["prompt"] == "the other"
    (tmp_path / "a.json").write_text('{"caption": "half a pair: \\ud800"}')
    assert read(tmp_path) == ([], {"broken row": 1})


def test_folders_expand_to_their_tables(tmp_path):
    for name in ("b.parquet", "a.parquet"):
        write_parquet(tmp_path / name, ["a"])
    (tmp_path / "readme.md").write_text("no rows")
    assert find_sources([tmp_path, tmp_path / "a.parquet"]) == [tmp_path / "a.parquet", tmp_path / "b.parquet"]


def damaged_parquet(path):
    write_parquet(path, [f"caption {i}" for i in range(1000)])
    data = bytearray(path.read_bytes())
    data[50:2000] = np.random.default_rng(0).bytes(1950)
    path.write_bytes(data)


def truncated_tar(path):
    write_image_tars(path.parent / "set")
    path.write_bytes((path.parent / "set/00000.tar").read_bytes()[:20000])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.parquet", lambda path: None, "nothing at .*a.parquet"),
        ("a.parquet", lambda path: path.write_bytes(b"no parquet"), "a.parquet is damaged"),
        ("a.parquet", damaged_parquet, "a.parquet is damaged"),
        ("a.csv", lambda path: path.write_bytes(b""), "a.csv is damaged"),
        (
            "a.csv",
            lambda path: path.write_bytes(gzip.compress(b"text\na\n" * 99)),
            "a.csv (is damaged|has no caption)",
        ),
        ("a.tar", lambda path: path.write_bytes(b"no tar" * 1000), "cannot read .*a.tar"),
        ("a.tar", truncated_tar, "cannot read .*a.tar"),
        ("a.zip", lambda path: path.write_bytes(b"PK"), "a.zip has an unknown suffix"),
        ("a", lambda path: path.mkdir(), "contains no .parquet"),
        ("a.csv", lambda path: path.write_bytes(b"t\xe9xt\na\n"), "a.csv is damaged"),
        ("a.csv", lambda path: path.write_text("text,text\na,b\n"), "a.csv has 2 columns named text"),
        ("a.csv", lambda path: path.write_text('text\n"a quote never closed' + ",\n" * 9_000_000), "a.csv is damaged"),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"URL": ["x"], "HASH": [1]}), path),
            "a.parquet has no caption column: its columns are URL, HASH",
        ),
        ("a.parquet", lambda path: pq.write_table(pa.table({"TEXT": [1]}), path), "column TEXT holds int64, not text"),
        (
            "a.parquet",
            lambda path: pq.write_table(pa.table({"TEXT": ["a"], "width": [[1]]}), path),
            "column width holds list<.*>, not numbers",
        ),
    ],
)
def test_unreadable_source_raises_with_its_name(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(*find_sources([path]))


def test_missing_caption_column_raises(tmp_path):
    with pytest.raises(ValueError, match=r"a.parquet has no column title: its columns are TEXT"):
        read(write_parquet(tmp_path / "a.parquet", ["a"]), "title")


def test_images_without_any_readable_metadata_raise(tmp_path):
    broken = {name: data for name, data in image_set().items() if name.startswith(("000000003", "000000004"))}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="no image with readable metadata"):
        read(tmp_path)
