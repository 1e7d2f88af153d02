"""Files of prompts, whatever they hold: prompts that can be sampled and shown, or one line that names the file."""

import csv
import json
from random import Random

import pytest

from experiments.prompts import load_prompts, prompts_identity
from experiments.prompts.checks import ID
from tests.hostile.inputs import BOTH, LONG, damaged, error_of, text, writes_only

DEEP = "[" * 100_000
KNOWN = {  # name of the file -> contents
    "txt": ["\ufffe", "\x00", LONG, f"{LONG}\n" * 3, "\r\r\r", "\u2028", " \n\t", b"\xff\xfe\x00a", b"\xc3("],
    "jsonl": [
        DEEP,
        '{"id": "a", "prompt": "\\ud800"}',
        '{"id": "a", "prompt": "\\udc00 b"}',
        '{"id": "../../a", "prompt": "b"}',
        '{"id": "a\\u0000", "prompt": "b"}',
        '{"id": "a\\n", "prompt": "b"}',
        '{"id": "' + "a" * 5000 + '", "prompt": "b"}',
        '{"id": "a", "prompt": 1' + "0" * 5000 + "}",
        '{"id": "\\u0661", "prompt": "b"}',
        '{"id": "", "prompt": "b"}',
        '{"id": "a", "prompt": ["b"]}',
        '{"id": {"a": 1}, "prompt": "b"}',
        "NaN",
        b'{"id": "a", "prompt": "\xff"}',
    ],
    "json": [
        DEEP,
        '{"annotations": 3}',
        '{"annotations": {"a": 1}}',
        '{"annotations": [{"image_id": 1, "id": 1, "caption": "\\ud800"}]}',
        '{"annotations": [{"image_id": 1' + "0" * 300 + ', "id": 1, "caption": "a"}]}',
        '{"annotations": [{"image_id": -1, "id": 1, "caption": "a"}]}',
        '{"annotations": [{"image_id": true, "id": 1, "caption": "a"}]}',
        '{"annotations": [{"image_id": 1, "id": 1, "caption": 3}]}',
        '{"annotations": [{"image_id": 1, "id": 1e999, "caption": "a"}]}',
        b"\xff",
    ],
    "tsv": [
        "",
        "Prompt\n",
        "Prompt\tPrompt\na\tb\n",
        "x\ty\na\tb\n",
        "Prompt\n" + "a\t" * 9000,
        b"Prompt\n\xff\n",
        "\x00",
    ],
}
CASES = [(kind, content) for kind, contents in KNOWN.items() for content in contents]


def write(path, prompts: list[str], random: Random) -> None:
    """A file of its kind with these prompts."""
    kind = path.suffix
    if kind == ".txt":
        path.write_text("\n".join(prompts), encoding="utf-8", newline="")
    elif kind == ".jsonl":
        ids = [random.choice((f"{i}", text(random, long=False))) for i in range(len(prompts))]
        lines = [json.dumps({"id": id_, "prompt": prompt}) for id_, prompt in zip(ids, prompts, strict=True)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == ".json":
        rows = [{"image_id": i, "id": i, "caption": prompt} for i, prompt in enumerate(prompts)]
        path.write_text(json.dumps({"annotations": rows}))
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="\t").writerows([["Prompt", "Category"], *([p, "x"] for p in prompts)])


def load(path) -> None:
    """Prompts that every later step can use, or one line."""
    source = {"source": "manifest" if path.suffix == ".jsonl" else "file", "path": str(path), "limit": None}
    prompts = []
    with writes_only():
        error = error_of(lambda: (prompts.extend(load_prompts(source)), prompts_identity(source)))
    assert error is None or str(path) in str(error)
    for prompt in prompts:
        assert ID.fullmatch(prompt.id)
        assert len(prompt.id) < 200  # it becomes a file name
        prompt.text.encode("utf-8")


@pytest.mark.parametrize(("kind", "content"), CASES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(CASES)])
def test_known_attacks(tmp_path, kind, content):
    path = tmp_path / f"prompts.{kind}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    load(path)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("count", BOTH)
def test_random_files(tmp_path, kind, count):
    """Hostile prompts in a whole file, and damaged files."""
    random, path = Random(kind), tmp_path / f"prompts.{kind}"
    for _ in range(count):
        write(path, [text(random) for _ in range(random.randint(1, 4))], random)
        load(path)
        path.write_bytes(damaged(random, path.read_bytes()))
        load(path)
