"""Loading the prompts of a run, and their identity."""

import hashlib
from pathlib import Path

import pytest

from experiments.prompts import Prompt, load_prompts, prompt_seed, prompts_identity
from experiments.prompts.filters import Filters
from experiments.setup.compose import compose_config
from tests.prompts.reference import build, manifest_source, prompt_id, write_parquet

ROOT = Path(__file__).resolve().parents[2]
GOOD = '{"id": "1", "prompt": "a"}\n'


def test_manifest_loads_up_to_the_limit(tmp_path):
    rows, _ = build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abcdef")), count=6)
    path = tmp_path / "prompts.jsonl"
    prompts = load_prompts(manifest_source(path))
    assert prompts == [Prompt(row["id"], row["prompt"]) for row in rows]
    assert load_prompts(manifest_source(path, 2)) == prompts[:2]


def test_identity_covers_sampling_but_not_length_or_paths(tmp_path):
    source = write_parquet(tmp_path / "a.parquet", list("abcdef"), width=[1] * 6, height=[1] * 6)
    moved = write_parquet(tmp_path / "moved.parquet", list("abcdef"), width=[1] * 6, height=[1] * 6)
    other = write_parquet(tmp_path / "other.parquet", list("abcdeg"), width=[1] * 6, height=[1] * 6)
    denied = tmp_path / "denied.txt"
    denied.write_text(prompt_id("z"))

    def identity(*sources, count=3, **options):
        build(tmp_path, *sources, count=count, **options)
        return prompts_identity(manifest_source(tmp_path / "prompts.jsonl"))["sha256"]

    same = {identity(source), identity(source, count=5), identity(moved)}
    assert len(same) == 1
    assert identity(source, other) == identity(other, source)
    differ = [
        identity(other),
        identity(source, seed=1),
        identity(source, filters=Filters(min_side=1)),
        identity(source, denylist=denied),
        identity(source, caption_column="text"),
    ]
    assert len({*same, *differ}) == 6


def test_identity_without_provenance_is_the_file_hash(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD)
    assert prompts_identity(manifest_source(path)) == {
        "source": "manifest",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert load_prompts(manifest_source(path)) == [Prompt("1", "a")]


@pytest.mark.parametrize(
    ("text", "limit", "message"),
    [
        ("", None, "contains 0 prompts"),
        (GOOD, 2, "contains 1 prompts: lower prompts.limit"),
        (GOOD + '{"id": "2"', None, "line 2 of .* has no valid id"),
        ('{"id": "1"}\n', None, "line 1 of .* or no prompt"),
        ('{"id": "../1", "prompt": "a"}\n', None, "line 1 of .* has no valid id"),
        ('{"id": 1, "prompt": "a"}\n', None, "line 1 of .* has no valid id"),
        ('["id"]\n', None, "line 1 of .* has no valid id"),
        (GOOD * 2, None, "line 2 of .* repeats the id 1"),
    ],
)
def test_invalid_manifest_raises(tmp_path, text, limit, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_prompts(manifest_source(path, limit))


def test_missing_file_raises_naming_prompts_path(tmp_path):
    for name, message in (
        ("manifest", "build one with python -m experiments.prompts build"),
        ("file", "set prompts.path"),
    ):
        source = {"source": name, "path": str(tmp_path / "missing"), "limit": None}
        for function in (load_prompts, prompts_identity):
            with pytest.raises(FileNotFoundError, match=rf"missing.* {message}") as caught:
                function(source)
            assert "prompts.path" in str(caught.value)


def test_invalid_limit_raises_naming_prompts_limit():
    for limit, message in (
        (None, "prompts.limit must be a number for prompts=scenes"),
        (0, "prompts.limit must be at"),
    ):
        with pytest.raises(ValueError, match=message):
            load_prompts({"source": "scenes", "seed": 1, "limit": limit})


def test_text_file_has_one_prompt_per_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("  a cat\n\n\u00e9t\u00e9\r\nthird\n", encoding="utf-8", newline="")
    source = {"source": "file", "path": str(path), "limit": 2}
    assert load_prompts(source) == [Prompt("000000", "a cat"), Prompt("000001", "\u00e9t\u00e9")]
    assert prompts_identity(source)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="contains no prompts"):
        load_prompts(source)


def test_scene_prompts_are_nested():
    source = {"source": "scenes", "seed": 1, "limit": 8}
    prompts = load_prompts(source)
    assert [prompt.id for prompt in prompts] == [f"{i:06d}" for i in range(8)]
    assert all(prompt.text == prompt.scene.caption for prompt in prompts)
    assert load_prompts(source | {"limit": 3}) == prompts[:3]
    assert (
        prompts_identity(source) == prompts_identity(source | {"limit": 3}) != prompts_identity(source | {"seed": 2})
    )


def test_prompt_seed_has_golden_values():
    assert prompt_seed(0, "000000") == int(hashlib.sha256(b"0:000000").hexdigest()[:16], 16) // 2
    assert len({prompt_seed(run, name) for run in range(3) for name in ("a", "b")}) == 6


def test_provenance_of_another_manifest_raises(tmp_path):
    build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abc")), count=3)
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match=r"prompts.json does not describe .*prompts.jsonl"):
        prompts_identity(manifest_source(path))
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(ValueError, match=r"prompts.json is not the provenance"):
        prompts_identity(manifest_source(path))


def test_demo_prompts_load():
    node = compose_config(["prompts=demo", "metrics=none"]).prompts
    prompts = load_prompts({"source": node.source, "path": ROOT / node.path, "limit": node.limit})
    assert len({prompt.text for prompt in prompts}) == len(prompts) == 24


def test_laion_configuration_loads_a_manifest(tmp_path):
    build(tmp_path, write_parquet(tmp_path / "a.parquet", list("abc")), count=3)
    node = compose_config(["prompts=laion", f"prompts.path={tmp_path / 'prompts.jsonl'}", "prompts.limit=2"]).prompts
    assert len(load_prompts(dict(node))) == 2
