"""Image files: which ones a folder holds, their pixels, and the hash of their bytes."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def list_images(folder: Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; FileNotFoundError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise FileNotFoundError(f"no images ({' '.join(sorted(SUFFIXES))}) in {folder}")
    return paths


def load_image(path: Path) -> np.ndarray:
    """Pixels of an image file as (H, W, 3) uint8; ValueError naming the file if it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise ValueError(f"cannot read image {path}: {error}; make it again or remove it") from error


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
