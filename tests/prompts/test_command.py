"""The command lines `python -m experiments.prompts build` and `python -m experiments.prompts.synthetic`."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments.prompts import load_prompts
from experiments.prompts.__main__ import main
from experiments.prompts.filters import Filters
from experiments.prompts.synthetic import main as write_synthetic_files
from experiments.prompts.synthetic import synthetic_rows
from tests.prompts.reference import build, manifest_source, prompt_id, prompts_of, write_parquet

ROOT = Path(__file__).resolve().parents[2]


def test_command_passes_every_option(tmp_path, capsys):
    columns = {"width": [600, 600, 90], "height": [500, 500, 90], "punsafe": [0.1] * 3, "pwatermark": [0.1] * 3}
    source = write_parquet(
        tmp_path / "a.parquet", ["x"] * 3, title=list("abc"), aesthetic=[6.0] * 3, language=["en"] * 3, **columns
    )
    (tmp_path / "denied.txt").write_text(prompt_id("a"))
    options = "--count 1 --seed 4 --min-side 100 --max-aspect 3 --max-punsafe .5 --max-pwatermark .8 --min-aesthetic 5"
    paths = ["--out", str(tmp_path / "out/p.jsonl"), "--denylist", str(tmp_path / "denied.txt")]
    main(["build", str(source), *options.split(), "--language", "en", "de", "--caption-column", "title", *paths])
    assert capsys.readouterr().out == f"{tmp_path / 'out/p.jsonl'}: 1 prompts of 3 rows\n"
    provenance = json.loads((tmp_path / "out/p.json").read_text())
    assert provenance["filters"] == {
        "min_side": 100, "max_aspect": 3, "max_punsafe": 0.5, "max_pwatermark": 0.8, "min_aesthetic": 5,
        "languages": ["de", "en"],
    }  # fmt: skip
    assert (provenance["seed"], provenance["caption_column"]) == (4, "title")
    assert provenance["dropped"] == {"denied id": 1, "min_side": 1}
    assert load_prompts(manifest_source(tmp_path / "out/p.jsonl"))[0].text == "b"


def test_command_reports_errors_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.prompts", "build", str(tmp_path / "nowhere"), "--count", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing at ")
    assert len(done.stderr.splitlines()) == 1


def test_synthetic_files_have_documented_captions(tmp_path):
    write_synthetic_files([str(tmp_path / "synthetic"), "--rows", "1000"])
    rows, provenance = build(tmp_path, tmp_path / "synthetic", count=1000, filters=Filters(min_side=256))
    assert {len(prompt) for prompt in prompts_of(rows)} == {64}
    assert provenance["dropped"] == {}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_two_million_rows_need_little_memory(tmp_path):
    """Peak memory of a separate process; the captions alone take 128 MB, in one row group."""
    table = synthetic_rows(2_000_000, seed=0)
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, row_group_size=len(table))
    main_then_peak = "import sys; from experiments.prompts.__main__ import main; main(sys.argv[1:]);"
    main_then_peak += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    arguments = ["build", str(tmp_path / "a.parquet"), "--count", "30000", "--out", str(tmp_path / "p.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", main_then_peak, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 400_000  # kB
    assert len(load_prompts(manifest_source(tmp_path / "p.jsonl"))) == 30000
