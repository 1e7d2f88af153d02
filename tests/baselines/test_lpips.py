"""LPIPS with VGG16 is that of torchmetrics; a damaged file of its weights is named, and nothing in it is executed."""

from pathlib import Path

import pytest
import torch
import torchvision

from baselines.lpips import lpips_vgg, vgg_weights

pytestmark = pytest.mark.usefixtures("onednn")


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
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda linear: None)  # nine tenths of VGG16, unused
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


@pytest.fixture
def random_vgg(monkeypatch):
    """torchvision loads random VGG16 weights instead of the published ones."""
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda linear: None)  # nine tenths of VGG16, unused
    torch.manual_seed(0)
    weights = torchvision.models.vgg16(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: weights)
    lpips_vgg.cache_clear()
    yield
    lpips_vgg.cache_clear()


def test_lpips_equals_torchmetrics_for_each_sample(random_vgg):
    """Values and gradients; values slightly outside [-1, 1], as decoded predictions have, are accepted."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # seconds, which no other test needs

    reference = LearnedPerceptualImagePatchSimilarity(net_type="vgg")
    distance = lpips_vgg(torch.device("cpu"))
    images, others = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images.requires_grad_()
    distances = distance(images, others)
    assert distances.shape == (3,)
    (gradient,) = torch.autograd.grad(distances.sum(), images)
    for i in range(3):
        one = images[i : i + 1].detach().requires_grad_()
        expected = reference(one, others[i : i + 1])
        torch.testing.assert_close(distances[i], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(gradient[i : i + 1], *torch.autograd.grad(expected, one), atol=1e-6, rtol=1e-4)
    assert gradient.abs().max() > 1e-4
    assert distance(images[:1] * 1.1, others[:1]).shape == (1,)
