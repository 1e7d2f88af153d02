"""COCO's captions and tables of prompts: read in full, ordered by hash, and refused by name if damaged."""

import hashlib
import json

import pytest

from experiments.prompts import load_prompts, prompts_identity
from experiments.setup.compose import compose_config
from experiments.setup.runs import resolve_limit

HEADER = "Prompt\tCategory\tChallenge\tNote\n"


def node(path, limit=None):
    """The ``prompts`` node of a command line."""
    config = compose_config(["prompts=file", f"prompts.path={path}", f"prompts.limit={limit or 'null'}"])
    return dict(config.prompts)


def write_coco(path, count):
    """``count`` images with two captions each, the later one first; ids as large as COCO's."""
    notes = []
    for image in range(count):
        for number in (2, 1):
            caption = f"image {image},\n caption {number} "
            notes.append({"image_id": 100_000 + image, "id": 10 * image + number, "caption": caption})
    path.write_text(json.dumps({"info": {}, "images": [], "annotations": notes}))
    return path


def by_hash(ids):
    return sorted(ids, key=lambda each: hashlib.sha256(each.encode()).hexdigest())


def test_coco_gives_one_caption_of_each_image(tmp_path):
    path = write_coco(tmp_path / "captions_val2014.json", 30)
    prompts = load_prompts(node(path))
    assert [prompt.id for prompt in prompts] == by_hash([f"{100_000 + image:012d}" for image in range(30)])
    assert {prompt.text for prompt in prompts} == {f"image {image}, caption 1" for image in range(30)}
    assert load_prompts(node(path, 7)) == prompts[:7]
    assert prompts_identity(node(path)) == {
        "source": "file",
        "kind": "coco",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_a_table_gives_every_different_prompt(tmp_path):
    rows = [f"prompt {i}\tAnimals\tBasic\t" for i in range(20)]
    rows += ["prompt 3\tArts\tBasic\ttwice", '"a sign that says ""Hello, world"""\tArts\tBasic\t']
    path = tmp_path / "PartiPrompts.tsv"
    path.write_text(HEADER + "\n".join(rows) + "\n")
    prompts = load_prompts(node(path))
    texts = {*(f"prompt {i}" for i in range(20)), 'a sign that says "Hello, world"'}
    assert {prompt.text for prompt in prompts} == texts
    ids = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    assert [prompt.id for prompt in prompts] == by_hash(ids)
    assert load_prompts(node(path, 5)) == prompts[:5]
    path.write_text(HEADER + "\n".join(reversed(rows)) + "\n")
    assert load_prompts(node(path)) == prompts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "a.json does not hold COCO's captions"),
        ("a.json", b"[]", "a.json does not hold COCO's captions"),
        ("a.json", b"{}", "KeyError: 'annotations'"),
        ("a.json", b'{"annotations": [{"image_id": 1, "id": 1}]}', "KeyError: 'caption'"),
        ("a.json", b'{"annotations": [{"image_id": "../1", "id": 1, "caption": "a"}]}', "ids are not whole numbers"),
        ("a.json", b'{"annotations": []}', "a.json contains 0 prompts"),
        ("a.json", b"\xff", "a.json does not hold COCO's captions"),
        ("a.tsv", b"Text of it\tCategory\na\tb\n", "a.tsv has no caption column"),
        ("a.tsv", HEADER.encode(), "a.tsv contains 0 prompts"),
        ("a.tsv", HEADER.encode() + b"a\tb\n", "1 rows of .*a.tsv have another number of columns"),
        ("a.tsv", HEADER.encode() + b"\xff\xfe\tb\tc\td\n", "a.tsv is not UTF-8"),
        ("a.tsv", b"", "a.tsv"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_prompts(node(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_too_few_prompts_and_missing_files_raise(tmp_path):
    path = write_coco(tmp_path / "captions.json", 3)
    with pytest.raises(ValueError, match=r"captions.json contains 3 prompts: lower prompts.limit"):
        load_prompts(node(path, 4))
    with pytest.raises(FileNotFoundError, match=r"no prompts file at .*gone.tsv"):
        load_prompts(node(tmp_path / "gone.tsv"))


def test_limits_have_names():
    assert [resolve_limit("1k", side, side) for side in (512, 4096)] == [1000, 1000]
    with pytest.raises(ValueError, match="a number, null, paper or 1k, not 'few'"):
        resolve_limit("few", 64, 64)
