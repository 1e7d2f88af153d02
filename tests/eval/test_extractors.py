"""Resizing against clean-fid and torch-fidelity, and each extractor against its library with random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_isc import isc_features_to_metric
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from eval.crops import WHOLE, Crops
from eval.extractors import Inception, ViT
from eval.resize import resize
from eval.score import score_alone
from tests.eval.helpers import smooth_images


def to_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_clean_resize_equals_cleanfid() -> None:
    resizer = build_resizer("clean")
    for height, width in ((512, 512), (640, 384), (128, 200), (299, 299)):
        images = smooth_images(2, height, width)
        found = resize(to_tensor(images), 299)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), [resizer(image) for image in images])
    with pytest.raises(ValueError, match="unknown resize 'sharp': choose from clean, legacy"):
        resize(to_tensor(images), 299, "sharp")


def test_legacy_resize_equals_torch_fidelity() -> None:
    images = smooth_images(2, 400, 320)
    expected = interpolate_bilinear_2d_like_tensorflow1x(to_tensor(images).float(), (299, 299), align_corners=False)
    torch.testing.assert_close(resize(to_tensor(images), 299, "legacy"), expected)
    assert not torch.allclose(resize(to_tensor(images), 299), expected, atol=1)


@pytest.fixture(scope="module")
def inception(inception_file: Path) -> Inception:
    return Inception(inception_file)


def test_inception_equals_torch_fidelity(inception: Inception, inception_file: Path) -> None:
    """Features, and the Inception score computed from them."""
    images = smooth_images(3, 299, 299)
    layers = ["2048", "logits_unbiased"]
    library = FeatureExtractorInceptionV3("inception", layers, feature_extractor_weights_path=inception_file)
    expected, logits = library(to_tensor(images))
    features = inception(images)
    assert features.shape == (3, 2048)
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert features.std() > 0
    np.testing.assert_allclose(inception.logits(features), logits.numpy(), rtol=1e-3, atol=1e-3)
    rows = np.concatenate([features * factor for factor in (0.5, 1, 2, 3)])[:11]
    logits = torch.from_numpy(inception.logits(rows))
    scores = score_alone(rows, inception, cropping=WHOLE, also=["inception_score"], texts=[])
    assert scores["inception_score"] == pytest.approx(isc_features_to_metric(logits)["inception_score_mean"], rel=1e-3)
    assert set(scores) == {f"inception_score{part}" for part in ("", "_se", "_std", "_jackknife")}
    with pytest.raises(ValueError, match="inception_score needs more than 10 images, not 10"):
        score_alone(rows[:10], inception, cropping=WHOLE, also=["inception_score"], texts=[])


def test_digest_depends_on_weights_and_resizing(inception: Inception, inception_file: Path, tmp_path: Path) -> None:
    state = torch.load(inception_file, weights_only=True)
    state["fc.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    legacy, retrained = Inception(inception_file, "legacy"), Inception(tmp_path / "other.pth")
    assert len({extractor.digest for extractor in (inception, legacy, retrained)}) == 3
    assert (inception.resizing, legacy.resizing) == ("clean, to 299x299", "legacy, to 299x299")
    images = smooth_images(1, 400, 400)
    assert not np.allclose(inception(images), legacy(images), rtol=1e-3)


def test_missing_and_wrong_inception_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at .*nowhere.*download https"):
        Inception(tmp_path / "nowhere.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong.pth does not hold the weights"):
        Inception(tmp_path / "wrong.pth")
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"damaged.pth does not hold the weights"):
        Inception(tmp_path / "damaged.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused = "http://127.0.0.1:9/inception.pth"
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3", refused)
    with pytest.raises(FileNotFoundError, match=f"weights-inception-.* cannot be fetched .*download {refused}"):
        Inception()


@pytest.fixture(scope="module")
def vit_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("vits")
    options = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**options)).save_pretrained(root / "dinov2")
    vision = options | {"intermediate_size": 16}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(root / "clip")
    for name in ("dinov2", "clip"):
        CLIPImageProcessor(crop_size=28, size=28).save_pretrained(root / name)
    return {name: root / name for name in ("dinov2", "clip")}


@pytest.mark.parametrize(("name", "dim"), [("dinov2", 16), ("clip", 8)])
def test_vits_equal_transformers(vit_folders: dict[str, Path], name: str, dim: int) -> None:
    """Images of the input size are not resized, so the library's processor and model must give the same features."""
    images = smooth_images(3, 28, 28)
    extractor = ViT(name, str(vit_folders[name]))
    assert extractor.dim == dim
    processor = CLIPImageProcessor.from_pretrained(vit_folders[name])
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        if name == "clip":
            model = CLIPModel.from_pretrained(vit_folders[name])
            expected = model.visual_projection(model.vision_model(pixels).pooler_output)
        else:
            expected = Dinov2Model.from_pretrained(vit_folders[name])(pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(extractor(images), expected.numpy(), rtol=1e-3, atol=1e-4)
    assert extractor(smooth_images(1, 60, 44)).shape == (1, dim)


@pytest.fixture
def clip_with_words(vit_folders: dict[str, Path], tmp_path: Path) -> Path:
    """The tiny CLIP with a tokenizer of single letters."""
    folder = Path(shutil.copytree(vit_folders["clip"], tmp_path / "clip"))
    letters = [chr(ord("a") + i) for i in range(26)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77).save_pretrained(folder)
    return folder


def test_clip_score_equals_transformers(clip_with_words: Path) -> None:
    """Against the similarity computed by the library's complete model."""
    images, texts = smooth_images(4, 28, 28), ["a cat", "two dogs", "b", "long " * 60]
    extractor = ViT("clip", str(clip_with_words))
    scores = score_alone(extractor(images), extractor, cropping=WHOLE, also=["clip_score"], texts=texts)
    model = CLIPModel.from_pretrained(clip_with_words)
    tokenizer = CLIPTokenizer.from_pretrained(clip_with_words)
    processor = CLIPImageProcessor.from_pretrained(clip_with_words)
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        similar = model(tokens.input_ids, pixels, tokens.attention_mask).logits_per_image / model.logit_scale.exp()
    assert scores["clip_score"] == pytest.approx(100 * similar.diagonal().clamp(min=0).mean().item(), abs=0.01)
    assert scores["clip_score_se"] > 0


def test_metrics_refuse_unsuitable_extractors_and_crops(vit_folders: dict[str, Path]) -> None:
    dinov2 = ViT("dinov2", str(vit_folders["dinov2"]))
    features = dinov2(smooth_images(12, 28, 28))
    for name, needed in (("inception_score", "inception"), ("clip_score", "clip")):
        with pytest.raises(ValueError, match=f"{name} needs whole images and {needed} features"):
            score_alone(features, dinov2, cropping=WHOLE, also=[name], texts=[])
    clip = ViT("clip", str(vit_folders["clip"]))
    with pytest.raises(ValueError, match="clip_score needs whole images"):
        score_alone(features, clip, cropping=Crops(8, 1), also=["clip_score"], texts=[])
    with pytest.raises(ValueError, match="dinov2 has no text features"):
        dinov2.embed_texts(["a"])


def test_missing_and_unknown_vits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="dinov2 features need the model .*nowhere"):
        ViT("dinov2", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="choose from dinov2, clip"):
        ViT("nope")
