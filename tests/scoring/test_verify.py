"""`python -m experiments.verify`: every kind of damage to a run folder is named and repaired, and what a repair cannot
bring back is generated and scored again to the same files.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest

from experiments.sampling.manifest import QUARANTINE, append_line
from experiments.scoring.runs import complete_run
from experiments.setup.compose import compose_config
from experiments.setup.runs import base_run, build_run
from experiments.verify import __main__ as verify
from tests.tiny import tiny_overrides


@pytest.fixture(scope="module")
def made(pipe_folder, tmp_path_factory):
    """A scored run, its overrides, and its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    overrides = [*tiny_overrides(pipe_folder, folder), "method=direct", "model.dtype=float32", "batch_size=2"]
    run = build_run(compose_config(overrides))
    complete_run(run)
    return overrides, run, base_run(run)


@pytest.fixture
def run(made, tmp_path):
    """A copy of that run and of its base samples."""
    overrides, run, base = made
    shutil.copytree(run.runs, tmp_path / "runs")
    return build_run(compose_config([*overrides, f"paths.runs={tmp_path / 'runs'}"]))


@pytest.fixture
def folder(run):
    return run.folder


def problems(folder, *options) -> tuple[int, list[str]]:
    """Exit code and what is printed of a run, without the folder."""
    import contextlib
    import io

    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            verify.main([str(folder), *options])
        except SystemExit as end:
            code = end.code
    return code, [line.removeprefix(f"{folder}/") for line in out.getvalue().splitlines()]


def found_in(folder) -> list[str]:
    code, lines = problems(folder)
    assert code == 1
    return lines[:-1]


def kept(folder) -> dict[str, str]:
    """Hashes of images, the manifest and scores, without the seconds that sampling took."""
    files = {path.name: path.read_bytes() for path in [*folder.glob("images/*"), folder / "manifest.jsonl"]}
    for path in folder.glob("scores/*.json"):
        scores = json.loads(path.read_text())
        del scores["seconds_per_image"], scores["sha256"]
        files[path.name] = json.dumps(scores).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def flip(path, at=-30) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_whole_run_has_no_problems(folder):
    assert problems(folder) == (0, [f"{folder}: 4 images are whole, 0 problems"])
    before = kept(folder)
    assert problems(folder, "--repair")[0] == 0
    assert kept(folder) == before


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder: it has neither images nor config.yaml"):
        verify.main([str(tmp_path)])


def line_of(folder, index=0):
    return json.loads((folder / "manifest.jsonl").read_text().splitlines()[index])


def tear(folder):
    with (folder / "manifest.jsonl").open("a") as stream:
        stream.write('{"id": "000003", "pro')


def replace_image(folder):
    shutil.copy(folder / "images/000001.png", folder / "images/000000.png")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_scores(folder, **changes):
    (path,) = folder.glob("scores/*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# What is done to a run folder -> the first problem that is named. Some damage has consequences, which follow.
DAMAGE = {
    "missing image": (lambda f: (f / "images/000002.png").unlink(), "images/000002.png: is missing"),
    "truncated image": (lambda f: truncate(f / "images/000002.png"), "images/000002.png: is truncated or damaged"),
    "empty image": (
        lambda f: (f / "images/000002.png").write_bytes(b""),
        "images/000002.png: is truncated or damaged",
    ),
    "flipped bit": (lambda f: flip(f / "images/000002.png"), "images/000002.png: is truncated or damaged"),
    "other image": (replace_image, "images/000000.png: is another image than the recorded one"),
    "image without a record": (
        lambda f: shutil.copy(f / "images/000000.png", f / "images/000009.png"),
        "images/000009.png: has no record",
    ),
    "temporary file": (
        lambda f: (f / "images/.000001.png.1f.tmp").write_bytes(b"half"),
        "images/.000001.png.1f.tmp: was left behind by a crash",
    ),
    "torn line": (tear, "manifest.jsonl, line 5: is torn or damaged"),
    "repeated line": (
        lambda f: append_line(f / "manifest.jsonl", line_of(f)),
        "manifest.jsonl, line 5: repeats the line of 000000",
    ),
    "contradicting line": (
        lambda f: append_line(f / "manifest.jsonl", line_of(f) | {"sha256": "0" * 64}),
        "manifest.jsonl, line 5: contradicts the line of 000000",
    ),
    "foreign file": (
        lambda f: append_line(f / "manifest.jsonl", line_of(f) | {"id": "a", "file": "../../a.png"}),
        "manifest.jsonl, line 5: it names ../../a.png, which is not images/a.png",
    ),
    "no record": (
        lambda f: append_line(f / "manifest.jsonl", {"id": "000007", "seed": 1}),
        "manifest.jsonl, line 5: is no record of an image: it has no file, height, prompt, sha256, width",
    ),
    "wrong type": (
        lambda f: append_line(f / "manifest.jsonl", line_of(f) | {"id": "a", "seed": "1"}),
        "manifest.jsonl, line 5: is no record of an image: its seed cannot be",
    ),
    "line of another run": (
        lambda f: append_line(f / "manifest.jsonl", line_of(f) | {"id": "000007", "file": "images/000007.png"}),
        "manifest.jsonl, line 5: is of another run: its size or seed is not this one's",
    ),
    "no manifest": (lambda f: (f / "manifest.jsonl").unlink(), "manifest.jsonl: is missing"),
    "torn cost": (
        lambda f: (f / "costs.jsonl").write_text((f / "costs.jsonl").read_text() + '{"images": 2, "sec'),
        "costs.jsonl, line 3: is torn or damaged",
    ),
    "no environment": (lambda f: (f / "environment.json").unlink(), "environment.json: is missing or damaged"),
    "damaged features": (
        lambda f: [truncate(path) for path in f.glob("features/*.npz")],
        "is damaged, or of an older version, which did not record of which images it is",
    ),
    "damaged index": (lambda f: (f / "features/index.json").write_text("{"), "features/index.json: is damaged"),
    "damaged scores": (lambda f: [truncate(path) for path in f.glob("scores/*")], "is damaged"),
    "scores of other images": (
        lambda f: other_scores(f, images={"sha256": "0", "base_sha256": "0"}),
        "is of other images",
    ),
    "scores of more images": (lambda f: other_scores(f, n=5), "is of 5 images, and 4 are whole"),
    "scores of no images": (lambda f: other_scores(f, n=None), "is damaged"),
    "scores without hashes": (lambda f: other_scores(f, images="all"), "is damaged"),
    "changed score": (lambda f: other_scores(f, fid_r=0.0), "was changed after it was written"),
    "foreign metrics": (
        lambda f: (f / "metrics.json").write_text((f / "metrics.json").read_text() + " "),
        "metrics.json: is no copy of a file in scores/",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_repaired_and_made_good(run, folder, damage):
    """After a repair and the same command, images, manifest and scores are those of the run before the damage."""
    before = kept(folder)
    act, message = DAMAGE[damage]
    act(folder)
    assert any(line == message or line.endswith(f": {message}") for line in found_in(folder))
    code, lines = problems(folder, "--repair")
    assert code == 0, lines
    assert problems(folder)[0] == 0
    complete_run(run)
    assert kept(folder) == before
    assert problems(folder)[0] == 0


def test_features_of_other_images_are_found(folder, made):
    """Copied from another run, as an image whose record was replaced too."""
    path = sorted(folder.glob("features/*.npz"))[0]  # of whole images, or of crops
    stored = dict(np.load(path))
    content = json.loads(str(stored["content"]))
    content["images"][0] = "0" * 64
    text = json.dumps(content)
    with path.open("wb") as stream:
        np.savez(stream, **stored | {"content": text, "key": hashlib.sha256(text.encode()).hexdigest()})
    assert found_in(folder) == [f"features/{path.name}: is of 1 images that are not in this run"]
    with path.open("wb") as stream:
        np.savez(stream, **stored | {"features": stored["features"] * np.nan})
    assert found_in(folder) == [f"features/{path.name}: is damaged"]


def test_other_base_samples_are_found(run, folder):
    base = base_run(run).folder
    (base / "images/000001.png").unlink()
    assert all(line.endswith(f"is of other base samples than those in {base.name}") for line in found_in(folder))


def test_an_image_that_was_set_aside_comes_back_with_its_line(folder):
    """A damaged manifest that is restored from a backup after a repair has set its images aside."""
    before = (folder / "manifest.jsonl").read_bytes()
    (folder / "manifest.jsonl").write_bytes(before.splitlines(True)[0])
    problems(folder, "--repair")
    assert len(list(folder.glob(f"{QUARANTINE}/*.png"))) == 3
    (folder / "manifest.jsonl").write_bytes(before)
    problems(folder, "--repair")
    assert (folder / "manifest.jsonl").read_bytes() == before
    assert len(list(folder.glob("images/*.png"))) == 4


def test_a_changed_configuration_is_set_aside(run, folder):
    """The next run with the right options writes it anew, and keeps the images."""
    before = kept(folder)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("steps: 2", "steps: 3"))
    assert found_in(folder) == ["config.yaml: was changed: the folder's name is that of another run"]
    with pytest.raises(ValueError, match=r"run python -m experiments.verify .* --repair"):
        complete_run(run)
    code, lines = problems(folder, "--repair")
    assert (code, lines[-2]) == (1, "config.yaml: is missing or damaged")
    complete_run(run)
    assert kept(folder) == before
    assert problems(folder)[0] == 0
