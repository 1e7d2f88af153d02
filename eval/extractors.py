"""Feature extractors of the literature (`eval.features.FeatureExtractor`): Inception for FID and KID, DINOv2, CLIP."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eval.download import RemoteFile
from eval.files import sha256_of_file
from eval.resize import resize

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # of torch-fidelity
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)
TEXT_BATCH = 64
VITS = {"dinov2": "facebook/dinov2-large", "clip": "openai/clip-vit-large-patch14"}


def resize_batch(images: np.ndarray, side: int, how: str, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, side, side) float32 with values in [0, 255], on the device; see `eval.resize`."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    if how == "clean":  # resized on the CPU in any case
        return resize(pixels, side, how).to(device)
    return resize(pixels.to(device), side, how)


def automatic_device() -> torch.device:
    """A CUDA GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def published_inception() -> RemoteFile:
    """torch-fidelity's weights, in the cache of torch.hub."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return RemoteFile(URL_INCEPTION_V3, Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE, INCEPTION_SHA256)


def inception_weights(path: Path | None) -> Path:
    """Path of the weights: the given file, or torch-fidelity's, downloaded once.

    Raises:
        FileNotFoundError: the given file does not exist, or the download failed.
    """
    published = published_inception()
    if path is None:
        return published.path if published.is_here() else published.fetch()
    if not path.is_file():
        raise FileNotFoundError(f"no Inception weights at {path}: download {published.url} to there")
    return path


def load_inception(path: Path) -> nn.Module:
    """torch-fidelity's InceptionV3 with the weights in ``path``; ValueError if the file holds something else."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # torch-fidelity loads without weights_only, so it gets a copy of the tensors that were loaded safely.
        copy = io.BytesIO()
        torch.save(state, copy)
        copy.seek(0)
        model: nn.Module = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} does not hold the weights of torch-fidelity's InceptionV3 ({reason}): "
            f"download {INCEPTION_FILE} again"
        ) from error
    return model.requires_grad_(False).eval()


class Inception:
    """Pooled 2048-d features of the InceptionV3 that FID and KID are defined on.

    Args:
        weights: local file; None for torch-fidelity's, downloaded once.
        how: resizing to 299x299, "clean" or "legacy"; see `eval.resize`.
        device: None for the GPU if there is one.

    Raises:
        FileNotFoundError: no weights, and they cannot be downloaded.
        ValueError: the file holds other weights.
    """

    name = "inception"
    dim = 2048
    side = 299

    def __init__(self, weights: Path | None = None, how: str = "clean", device: torch.device | None = None) -> None:
        path = inception_weights(weights)
        self.device = device or automatic_device()
        self.how, self.resizing = how, f"{how}, to {self.side}x{self.side}"
        self.sha256 = sha256_of_file(path)
        self.digest = hashlib.sha256(f"{self.sha256} {self.resizing}".encode()).hexdigest()
        model = load_inception(path)
        self.classes = model.fc.weight.numpy()  # type: ignore[operator, union-attr]
        self.model = nn.Sequential(*(getattr(model, name) for name in INCEPTION_LAYERS), nn.Flatten()).to(self.device)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, 2048) features -> (N, 1008) class logits without bias, for the Inception score."""
        return features @ self.classes.T

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = resize_batch(images, self.side, self.how, self.device)
        features: Tensor = self.model((pixels - 128) / 128)
        return features.cpu().numpy()


class ViT:
    """Image embedding of DINOv2 or CLIP. Images are resized to a square without keeping the aspect ratio.

    Args:
        name: "dinov2" or "clip".
        model: local folder or Hub id; None for DINOv2-large or CLIP ViT-L/14.
        how: resizing to the model's input, "clean" or "legacy"; see `eval.resize`.
        device: None for the GPU if there is one.

    Raises:
        FileNotFoundError: the model is neither a local folder nor can it be downloaded.
        ValueError: unknown name.
    """

    def __init__(
        self, name: str, model: str | None = None, how: str = "clean", device: torch.device | None = None
    ) -> None:
        from transformers import AutoImageProcessor, AutoModel

        if name not in VITS:
            raise ValueError(f"unknown features {name!r}: choose from {', '.join(VITS)}")
        source = self.source = model or VITS[name]
        self.name, self.how, self.device = name, how, device or automatic_device()
        try:
            self.model: Any = AutoModel.from_pretrained(source, use_safetensors=True).to(self.device).eval()
            processor: Any = AutoImageProcessor.from_pretrained(source)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name} features need the model {source}, which is not a local folder and cannot be downloaded: "
                f"{str(error).splitlines()[0]}"
            ) from error
        vision = getattr(self.model.config, "vision_config", self.model.config)
        self.side = int(vision.image_size if name == "clip" else processor.crop_size["height"])
        self.mean = torch.tensor(processor.image_mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(processor.image_std, device=self.device).view(1, 3, 1, 1)
        self.resizing = f"{how}, to {self.side}x{self.side}"
        self.dim = int(self.model.config.projection_dim if name == "clip" else self.model.config.hidden_size)
        state = hashlib.sha256(f"{name} {self.resizing}".encode())
        for key, value in sorted(self.model.state_dict().items()):
            state.update(key.encode())
            state.update(value.detach().cpu().float().numpy().tobytes())
        self.digest = self.sha256 = state.hexdigest()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(N, dim) float32 CLIP features of texts, truncated to 77 tokens; ValueError for other models."""
        if self.name != "clip":
            raise ValueError(f"{self.name} has no text features: use clip")
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self.source)
        length = self.model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        rows = []
        for ids, mask in zip(tokens.input_ids.split(TEXT_BATCH), tokens.attention_mask.split(TEXT_BATCH), strict=True):
            pooled = self.model.text_model(ids.to(self.device), mask.to(self.device)).pooler_output
            rows.append(self.model.text_projection(pooled).float().cpu().numpy())
        return np.concatenate(rows)

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        pixels = resize_batch(images, self.side, self.how, self.device)
        pixels = (pixels / 255 - self.mean) / self.std
        if self.name == "clip":
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            features: Tensor = self.model.visual_projection(pooled)
        else:
            features = self.model(pixel_values=pixels).pooler_output
        return features.float().cpu().numpy()
