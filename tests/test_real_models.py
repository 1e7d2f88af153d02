"""The main job on folders, metadata and images of the shape that real ones have: metadata to prompts, tar shards as
the reference, Inception's file format, the table.
"""

import io
import json
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from experiments import reproduce
from experiments.prompts.build import ManifestSpec, build_manifest
from experiments.results.reading import run_rows
from experiments.setup.compose import compose_config
from experiments.setup.grid import read_grid
from experiments.setup.runs import build_run
from tests.eval.helpers import smooth_images

CAPTIONS = ["a cat", "a red dog", "two birds", "the sea", "an old tree", "a b c"]


@pytest.fixture(scope="module")
def laion(tmp_path_factory):
    """Metadata under LAION's column names with a null caption, and a tar shard of three images, one too small."""
    folder = tmp_path_factory.mktemp("laion")
    columns = {
        "SAMPLE_ID": pa.array(range(7)),
        "URL": [f"https://example.org/{i}.jpg" for i in range(7)],
        "TEXT": [*CAPTIONS, None],
        "HEIGHT": pa.array([600.0] * 7),
        "WIDTH": pa.array([800.0] * 7),
    }
    pq.write_table(pa.table(columns), folder / "part-00000.parquet")
    with tarfile.open(folder / "00000.tar", "w") as archive:
        images = [*smooth_images(2, 64, 80), *smooth_images(1, 30, 30)]
        for i, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            info = tarfile.TarInfo(f"{i:09d}.png")
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
    build_manifest(ManifestSpec((folder / "part-00000.parquet",), 6), folder / "laion.jsonl")
    return folder


@pytest.fixture
def job(laion, inception_file, tmp_path):
    """Overrides of the paper's experiment at its smallest."""
    return [
        "experiment=paper",
        "sampler.steps=2",
        "model.steps=2",
        "prompts.limit=3",
        f"prompts.path={laion / 'laion.jsonl'}",
        f"metrics.reference={laion}",
        "metrics.reference_minimum=2",
        f"metrics.weights={inception_file}",
        "metrics.minimum_side=64",
        f"paths.runs={tmp_path / 'runs'}",
        f"paths.results={tmp_path / 'results'}",
    ]


@pytest.mark.parametrize(
    ("family", "crops"),
    [
        ("sd15", "64:1"),
        # They differ from sd15 by their settings and pipelines, which have tests of their own.
        *(pytest.param(family, "null", marks=pytest.mark.slow) for family in ("sd21", "sdxl")),
    ],
)
def test_the_whole_job(save_pipeline, job, tmp_path, monkeypatch, family, crops):
    model = [f"model={family}", f"model.path={save_pipeline(family)}", "model.side=32", f"metrics.crops={crops}"]
    line = [*job, *model, "resolution=x4", "method=scalecrafter"]
    monkeypatch.setattr(sys, "argv", ["test"])
    reproduce.main(line)
    for row in run_rows(read_grid(line)):
        run = row.run
        assert (run.height, run.width) == (64, 64)
        assert run.sampler.eta == 1.0
        assert run.sampler.guidance_scale == (5.0 if family == "sdxl" else 7.5)
        assert {prompt.text for prompt in run.prompts} <= set(CAPTIONS)
        metrics = json.loads((run.folder / "metrics.json").read_text())
        assert metrics["n"] == 3
        assert all(np.isfinite(metrics[key]) for key in ("fid_r", "kid_r", "fid_b", "kid_b"))
        assert ("pfid_r" in metrics) is (crops != "null")
        assert metrics["protocol"]["extractor"] == "inception"
        assert metrics["protocol"]["resizing"] == "clean, to 299x299"
        assert metrics["protocol"]["reference"]["n"] == 2
        assert metrics["protocol"]["reference"]["left_out"] == 1
    table = (tmp_path / "results" / f"paper_{family}.md").read_text()
    assert "| x4 64x64" in table
    assert "Published" not in table  # nobody published this size


def test_the_papers_experiment(save_pipeline, laion):
    """Inception features, prompts of a manifest, and too few of those are an error."""
    grid = read_grid(["experiment=paper", f"prompts.path={laion / 'laion.jsonl'}"])
    config = compose_config(grid.rows[0].overrides)
    assert (config.prompts.source, config.prompts.limit) == ("manifest", "paper")
    assert config.metrics.extractor == "inception"
    small = [*grid.rows[0].overrides, "model=sd15", f"model.path={save_pipeline('sd15')}", "model.side=null"]
    with pytest.raises(ValueError, match=r"laion.jsonl contains 6 prompts"):
        build_run(compose_config(small))
