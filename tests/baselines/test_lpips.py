"""The file of VGG16's weights: damaged ones are named, and nothing in them is executed."""

from pathlib import Path

import pytest
import torch

from baselines.lpips import lpips_vgg, vgg_weights


class Stowaway:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the weights belong, with nothing there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lpips_vgg.cache_clear()
    _, path = vgg_weights()
    assert tmp_path in path.parents
    path.parent.mkdir(parents=True)
    yield path
    lpips_vgg.cache_clear()


def test_a_pickle_in_place_of_the_weights_is_not_executed(place, tmp_path):
    torch.save(Stowaway(tmp_path / "boarded"), place)
    with pytest.raises(ValueError, match=r"vgg16-\w+.pth does not hold VGG16's weights .*remove it and fetch https"):
        lpips_vgg(torch.device("cpu"))
    assert not (tmp_path / "boarded").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 1000, "truncated", "other"])
def test_damaged_weights_are_named_in_one_line(place, content):
    if isinstance(content, bytes):
        place.write_bytes(content)
    else:
        torch.save({"features.0.weight": torch.zeros(3)}, place)
        if content == "truncated":
            place.write_bytes(place.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"vgg16-\w+.pth does not hold VGG16's weights") as caught:
        lpips_vgg(torch.device("cpu"))
    assert "\n" not in str(caught.value)
