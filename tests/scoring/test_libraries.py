"""The same folders scored by torch-fidelity, torchmetrics, clean-fid and this project."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eval.extractors import INCEPTION_FILE
from experiments import compare_libraries
from experiments.scoring import libraries
from experiments.scoring.libraries import Comparison, inception_at_hand
from tests.eval.helpers import encode_png, smooth_images, write_shard


def write_images(folder: Path, n: int, seed: int) -> Path:
    folder.mkdir()
    for i, image in enumerate(smooth_images(n, 96, 80, seed=seed)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Arguments of the command: four images against five."""
    images, reference = write_images(tmp_path / "images", 4, 1), write_images(tmp_path / "reference", 5, 2)
    return ["--images", str(images), "--reference", str(reference)]


@pytest.fixture
def scorers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """scorers(ours, theirs): what this project and every library find, without any network."""

    def replace(ours: dict[str, float], theirs: dict[str, float]) -> None:
        monkeypatch.setattr(libraries, "our_scores", lambda *args: ours)
        monkeypatch.setattr(libraries, "SCORERS", dict.fromkeys(libraries.LIBRARIES, lambda *args: theirs))

    return replace


@pytest.mark.slow
def test_libraries_agree_with_this_project(folders: list[str], inception_file: Path, capsys) -> None:
    compare_libraries.main([*folders, "--weights", str(inception_file)])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [(line[0].strip("| "), line[1]) for line in lines] == [
        (library, metric) for library in libraries.LIBRARIES for metric in ("FID", "KID")
    ]
    assert float(lines[0][2]) != pytest.approx(float(lines[4][2]), rel=1e-2)  # the two resizings differ


def test_differences_above_the_tolerance_are_an_error(
    folders: list[str], inception_file: Path, scorers, capsys
) -> None:
    arguments = [*folders, "--weights", str(inception_file)]
    scorers({"FID": 2.002, "KID": 0.1}, {"FID": 2.0, "KID": 0.1})
    with pytest.raises(
        ValueError, match=r"above 0.0005: FID of torch-fidelity, FID of torchmetrics, FID of clean-fid"
    ):
        compare_libraries.main([*arguments, "--tolerance", "5e-4"])
    assert "| clean-fid | FID | 2 | 2.002 | 1.0e-03 |" in capsys.readouterr().out
    compare_libraries.main([*arguments, "--tolerance", "1e-2"])
    scorers({"FID": float("nan"), "KID": 0.1}, {"FID": 2.0, "KID": 0.1})
    with pytest.raises(ValueError, match="FID of torch-fidelity"):
        compare_libraries.main(arguments)


def test_small_kids_are_compared_on_a_fixed_scale() -> None:
    assert Comparison("clean-fid", "KID", 1e-5, 2e-5).difference == pytest.approx(0.01)
    assert Comparison("clean-fid", "KID", -0.1, -0.2).difference == pytest.approx(1.0)
    assert Comparison("clean-fid", "FID", 1e-5, 2e-5).difference == pytest.approx(1.0)


def test_libraries_see_equally_many_images_in_order(
    tmp_path: Path, folders: list[str], monkeypatch, inception_file
) -> None:
    def scores(seen: list[Path], *args: object) -> dict[str, float]:
        sides = [sorted(folder.iterdir()) for folder in seen]
        assert [[path.name for path in side] for side in sides] == [[f"{i:06d}.png" for i in range(4)]] * 2
        assert [path.resolve().name for path in sides[1]] == [f"{i}.png" for i in range(4)]
        return {"FID": 1.0, "KID": 1.0}

    monkeypatch.setattr(libraries, "our_scores", scores)
    monkeypatch.setattr(libraries, "SCORERS", dict.fromkeys(libraries.LIBRARIES, scores))
    compare_libraries.main([*folders, "--weights", str(inception_file)])
    write_shard(tmp_path / "images.tar", {f"{i}.png": encode_png(smooth_images(1, 8, 8)[0]) for i in range(3)})
    with pytest.raises(ValueError, match="lies in a tar file"):
        compare_libraries.main(
            ["--images", str(tmp_path / "images.tar"), *folders[2:], "--weights", str(inception_file)]
        )
    with pytest.raises(ValueError, match="at least 2 images on each side, not 1"):
        compare_libraries.main([*folders[:2], "--reference", str(write_images(tmp_path / "one", 1, 3))])


def test_random_weights_have_the_true_format_and_never_change(inception_file: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = libraries.random_inception(tmp_path / "again.pth")
    assert torch.equal(state, torch.get_rng_state())
    first, second = (torch.load(path, weights_only=True) for path in (inception_file, again))
    assert all(torch.equal(first[name], value) for name, value in second.items())
    FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(again))  # strict loading


def test_weights_come_from_the_command_the_cache_or_chance(tmp_path: Path, inception_file: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with inception_at_hand(None) as (path, description):
        assert path.is_file()
        assert description == f"random weights (no {INCEPTION_FILE} at hand)"
    assert not path.exists()
    cached = tmp_path / "hub/checkpoints" / INCEPTION_FILE
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"")
    with inception_at_hand(None) as (path, _):
        assert path == cached
    with inception_at_hand(inception_file) as (path, _):
        assert path == inception_file
