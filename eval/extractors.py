"""Feature spaces of the literature, all `eval.features.FeatureExtractor`: Inception (FID, KID), DINOv2 and CLIP."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn

from eval.images import file_sha256
from eval.resize import resize

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)
TEXTS = 64  # at a time
VITS = {"dinov2": "facebook/dinov2-large", "clip": "openai/clip-vit-large-patch14"}


def to_pixels(images: np.ndarray, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) uint8 on the device."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)


def automatic_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def inception_weights(path: Path | None) -> Path:
    """The given file, or torch-fidelity's, fetched once into torch's cache; FileNotFoundError if neither is there."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"no Inception weights at {path}: fetch {URL_INCEPTION_V3} and name it there")
        return path
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(cached), hash_prefix="6726825d")
        except (URLError, OSError) as error:
            raise FileNotFoundError(
                f"Inception weights are not at {cached} and cannot be fetched ({error}): "
                f"put {URL_INCEPTION_V3} there, or name a local copy"
            ) from error
    return cached


def load_inception(path: Path) -> nn.Module:
    """torch-fidelity's InceptionV3; ValueError if the file holds something else."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The library unpickles what it is given without weights_only: it gets our own copy of checked tensors.
        copy = io.BytesIO()
        torch.save(state, copy)
        copy.seek(0)
        model: nn.Module = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} does not hold the weights of torch-fidelity's InceptionV3 ({reason}): "
            f"fetch {INCEPTION_FILE} again"
        ) from error
    return model.requires_grad_(False).eval()


class Inception:
    """InceptionV3 of the FID and KID papers, 2048-d.

    Args:
        weights: local file, None for torch-fidelity's, fetched once.
        how: resizing to 299x299, "clean" or "legacy"; see `eval.resize`.
    """

    name = "inception"
    dim = 2048
    side = 299

    def __init__(self, weights: Path | None = None, how: str = "clean", device: torch.device | None = None) -> None:
        path = inception_weights(weights)
        self.device = device or automatic_device()
        self.how, self.resizing = how, f"{how}, to {self.side}x{self.side}"
        self.sha256 = file_sha256(path)
        self.digest = hashlib.sha256(f"{self.sha256} {how}".encode()).hexdigest()
        model = load_inception(path)
        self.classes = model.fc.weight.numpy()  # type: ignore[operator, union-attr]
        self.model = nn.Sequential(*(getattr(model, name) for name in INCEPTION_LAYERS), nn.Flatten()).to(self.device)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, 1008) class scores without bias, for the Inception score, from (N, 2048) features."""
        return features @ self.classes.T

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = resize(to_pixels(images, self.device), self.side, self.how)
        features: Tensor = self.model((pixels - 128) / 128)
        return features.cpu().numpy()


class ViT:
    """DINOv2's or CLIP's image embedding of the whole picture, resized without keeping its aspect ratio.

    Args:
        name: "dinov2" or "clip".
        model: local folder or hub id; None is DINOv2-large or CLIP ViT-L/14.
    """

    def __init__(
        self, name: str, model: str | None = None, how: str = "clean", device: torch.device | None = None
    ) -> None:
        from transformers import AutoImageProcessor, AutoModel

        if name not in VITS:
            raise ValueError(f"no features {name!r}: choose from {', '.join(VITS)}")
        source = self.source = model or VITS[name]
        self.name, self.how, self.device = name, how, device or automatic_device()
        try:
            self.model: Any = AutoModel.from_pretrained(source, use_safetensors=True).to(self.device).eval()
            processor: Any = AutoImageProcessor.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name} features need the model {source}, which is neither a local folder nor to be fetched: "
                f"{str(error).splitlines()[0]}"
            ) from error
        vision = getattr(self.model.config, "vision_config", self.model.config)
        self.side = int(vision.image_size if name == "clip" else processor.crop_size["height"])
        self.mean = torch.tensor(processor.image_mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(processor.image_std, device=self.device).view(1, 3, 1, 1)
        self.resizing = f"{how}, to {self.side}x{self.side}"
        self.dim = int(self.model.config.projection_dim if name == "clip" else self.model.config.hidden_size)
        state = hashlib.sha256(f"{name} {how} {self.side}".encode())
        for key, value in sorted(self.model.state_dict().items()):
            state.update(key.encode())
            state.update(value.detach().cpu().float().numpy().tobytes())
        self.digest = self.sha256 = state.hexdigest()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, dim) float32 features of texts, which CLIP alone has; cut to its 77 tokens. ValueError for others."""
        if self.name != "clip":
            raise ValueError(f"{self.name} has no features of texts: use clip")
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self.source)
        length = self.model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        rows = []
        for ids, mask in zip(tokens.input_ids.split(TEXTS), tokens.attention_mask.split(TEXTS), strict=True):
            pooled = self.model.text_model(ids.to(self.device), mask.to(self.device)).pooler_output
            rows.append(self.model.text_projection(pooled).float().cpu().numpy())
        return np.concatenate(rows)

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = (resize(to_pixels(images, self.device), self.side, self.how) / 255 - self.mean) / self.std
        if self.name == "clip":
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            features: Tensor = self.model.visual_projection(pooled)
        else:
            features = self.model(pixel_values=pixels).pooler_output
        return features.float().cpu().numpy()
