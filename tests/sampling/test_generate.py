"""Generating runs on a tiny real pipeline: files, resume, crashes, and what is refused."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.images import ImageFile
from experiments.sampling import batches, generate
from experiments.sampling.generate import generate_run
from experiments.sampling.manifest import merge_manifests, read_records
from experiments.setup.architecture import Model
from experiments.setup.compose import compose_config
from experiments.setup.identity import environment
from experiments.setup.runs import build_run
from tests.commands import PATIENCE, start
from tests.tiny import tiny_overrides


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "metrics=none"]


def run_of(overrides):
    return build_run(compose_config(overrides))


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the images and the manifest of a run."""
    files = [*folder.glob("images/*"), folder / "manifest.jsonl", folder / "config.yaml"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_until(condition, process) -> None:
    """Poll until ``condition()``, or the process has ended; fails after `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while not condition() and process.is_alive():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.01)


def test_a_run_has_one_image_and_one_record_per_prompt(tiny):
    run = run_of(tiny)
    folder = generate_run(run)
    assert folder == run.folder
    assert folder.name == f"folder-scalecrafter-64x64-{run.digest[:8]}"
    records = read_records(folder)
    assert [r.id for r in records] == ["000000", "000001", "000002", "000003"]
    assert [r.prompt for r in records] == [p.text for p in run.prompts]
    assert Image.open(folder / records[0].file).size == (64, 64)


def test_images_do_not_depend_on_the_batch_size(tiny, tmp_path):
    """Up to rounding: batches of another size are summed in another order."""
    first = generate_run(run_of([*tiny, "batch_size=4"]))
    second = generate_run(run_of([*tiny, "batch_size=1", f"paths.runs={tmp_path / 'other'}"]))
    for a, b in zip(read_records(first), read_records(second), strict=True):
        pixels = [np.asarray(Image.open(f / r.file)).astype(int) for f, r in ((first, a), (second, b))]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_only_missing_or_damaged_images_are_generated_again(tiny, monkeypatch):
    run = run_of([*tiny, "batch_size=1"])
    folder = generate_run(run)
    before = contents(folder)
    (folder / "images/000001.png").unlink()
    (folder / "images/000002.png").write_bytes(b"damaged")
    with (folder / "manifest.jsonl").open("a") as stream:
        stream.write('{"id": "000003", "pro')  # torn by a crash
    generated = []
    original = batches.sample_batch
    monkeypatch.setattr(
        batches, "sample_batch", lambda r, p, size: generated.extend(x.id for x in p) or original(r, p, size)
    )
    generate_run(run)
    assert generated == ["000001", "000002"]
    assert contents(folder) == before
    generated.clear()
    generate_run(run)
    assert not generated


def test_a_finished_run_is_resumed_without_its_model_or_its_images(tiny, monkeypatch):
    run = run_of(tiny)
    before = contents(generate_run(run))
    for owner, name in ((Model, "load"), (ImageFile, "read")):
        monkeypatch.setattr(owner, name, lambda self, name=name: pytest.fail(f"{name} was called"))
    generate_run(run)
    assert contents(run.folder) == before


def test_verify_finds_what_an_unchanged_stamp_hides(tiny, monkeypatch):
    run = run_of(tiny)
    before = contents(generate_run(run))
    path = run.folder / "images/000002.png"
    stamp = ImageFile(path, "").stamp()
    original = ImageFile.stamp
    monkeypatch.setattr(ImageFile, "stamp", lambda image: stamp if image.path == path else original(image))
    path.write_bytes(b"decayed")
    generate_run(run)
    assert path.read_bytes() == b"decayed"
    generate_run(run_of([*tiny, "verify=true"]))
    assert contents(run.folder) == before


LONG = ["method=direct", "batch_size=1", "sampler.steps=24", "prompts.limit=4"]  # half a second for each image


def test_a_run_that_is_stopped_or_killed_ends_with_the_same_files(tiny, tmp_path):
    """Each time once an image more is there: by a signal, in one line, with the exit code of shells for that signal
    and no traceback; then by kill -9. Compared with an uninterrupted run. Ctrl-C: tests/setup/test_stopping.py.
    """
    run, err = run_of([*tiny, *LONG]), tmp_path / "err"
    for number in (signal.SIGTERM, signal.SIGKILL):
        images = len(list(run.folder.glob("images/*.png")))
        process = start(*tiny, *LONG, err=str(err))
        wait_until(lambda before=images: len(list(run.folder.glob("images/*.png"))) > before, process)
        os.kill(process.pid, number)
        process.join(PATIENCE)
        assert images < len(list(run.folder.glob("images/*.png"))) < 4
        if number == signal.SIGKILL:
            assert process.exitcode == -number
        else:
            assert process.exitcode == 128 + number
            last = f"stopped by {signal.Signals(number).name}: the same command goes on from here"
            assert err.read_text().splitlines()[-1] == last
            assert "Traceback" not in err.read_text()
            assert not list(run.folder.rglob("*.tmp"))
    uninterrupted = generate_run(run_of([*tiny, *LONG, f"paths.runs={tmp_path / 'whole'}"]))
    assert contents(generate_run(run)) == contents(uninterrupted)
    assert not list(run.folder.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
def test_a_job_that_starts_while_another_removes_temporary_files(tiny, monkeypatch, name):
    """The other one has the folder's lock and begins to merge manifests, just before a file gets its name."""
    run, flush, removed = run_of(tiny), os.fsync, []

    def flush_late(descriptor):
        flush(descriptor)
        if not removed and (found := list(run.folder.glob(f".{name}.*.tmp"))):
            removed.extend(found)
            merge_manifests(run.folder, [])

    monkeypatch.setattr(os, "fsync", flush_late)
    generate_run(run)
    assert removed
    assert (run.folder / name).is_file()
    assert len(list(run.folder.glob("images/*.png"))) == 4


def test_two_jobs_that_need_the_same_run_generate_it_once(tiny, tmp_path):
    """Started together; the second waits and finds it complete."""
    said = [tmp_path / "0", tmp_path / "1"]
    jobs = [start(*tiny, "sampler.steps=15", err=str(err)) for err in said]
    for job in jobs:
        job.join(PATIENCE)
    assert [job.exitcode for job in jobs] == [0, 0], [err.read_text() for err in said]
    run = run_of([*tiny, "sampler.steps=15"])
    assert len((run.folder / "manifest.jsonl").read_text().splitlines()) == 4
    costs = (run.folder / "costs.jsonl").read_text().splitlines()
    assert len(costs) == 1


def test_a_folder_of_another_run_is_left_alone(tiny):
    run = run_of(tiny)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text("something: else\n")
    with pytest.raises(ValueError, match="another configuration"):
        generate_run(run)
    assert [path.name for path in run.folder.iterdir()] == ["config.yaml"]


def test_a_full_disk_is_noticed_before_sampling(tiny, monkeypatch):
    monkeypatch.setattr(generate, "disk_needed", lambda height, width, count: 10**18)
    run = run_of(tiny)
    with pytest.raises(OSError, match="less than the 1000000000000 MB that this run may need"):
        generate_run(run)
    assert not run.folder.exists()


def test_images_that_exist_need_no_room(tiny, monkeypatch):
    run = run_of(tiny)
    folder = generate_run(run)
    monkeypatch.setattr(generate, "disk_needed", lambda height, width, count: count * 10**18)
    generate_run(run)
    (folder / "images/000002.png").unlink()
    (folder / "manifest.jsonl").write_text("".join((folder / "manifest.jsonl").read_text().splitlines(True)[:2]))
    with pytest.raises(OSError, match="less than the 2000000000000 MB"):
        generate_run(run)


def test_a_look_at_a_finished_run_does_not_change_where_it_was_made(tiny):
    """Each batch names its device, precision and versions; environment.json has those of who generated first, also
    where another machine makes again what is missing.
    """
    run = run_of([*tiny, "batch_size=2", "model.dtype=float32"])
    folder = generate_run(run)
    for line in (folder / "costs.jsonl").read_text().splitlines():
        cost = json.loads(line)
        assert {key: cost[key] for key in environment()} == environment()
        assert (cost["images"], cost["batch"], cost["dtype"]) == (2, 2, "float32")
    (folder / "environment.json").write_text('{"device": "another machine"}')
    generate_run(run)
    (folder / "images/000001.png").unlink()
    generate_run(run)
    assert json.loads((folder / "environment.json").read_text()) == {"device": "another machine"}
