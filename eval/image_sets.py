"""Sets of images and their captions: folders, finished runs, and what img2dataset writes (folders or tar shards)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from eval.images import ImageFile
from eval.shards import IMAGE_SUFFIXES, read_member, read_shard


def find_images(source: Path) -> list[ImageFile]:
    """The images of a set, sorted by name.

    Args:
        source: a run folder (the images in its ``images/``), a tar shard in webdataset form, or a folder: the images
            in it and below or, if it holds tar shards, the images in those.

    Raises:
        FileNotFoundError: no such source, or no images in it.
        ValueError: a damaged tar file.
    """
    if source.is_file() and source.suffix == ".tar":
        images = shard_images(source)
    elif not source.is_dir():
        raise FileNotFoundError(f"no folder or tar file of images at {source}")
    elif (source / "manifest.jsonl").is_file():
        images = folder_images(source / "images")
    elif shards := sorted(source.glob("*.tar")):
        bar = tqdm(shards, desc=f"listing {source.name}", unit="shard", leave=False, disable=None)
        images = [image for shard in bar for image in shard_images(shard)]
    else:
        images = folder_images(source)
    if not images:
        raise FileNotFoundError(f"no images ({' '.join(IMAGE_SUFFIXES)}) in {source}")
    return images


def folder_images(folder: Path) -> list[ImageFile]:
    """Images in a folder and below, named by their relative path; hidden files and folders are skipped."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    names = [path.relative_to(folder) for path in paths]
    images = [
        ImageFile(path, name.with_suffix("").as_posix())
        for path, name in zip(paths, names, strict=True)
        if not any(part.startswith(".") for part in name.parts)
    ]
    return sorted(images, key=lambda image: image.name)


def shard_images(shard: Path) -> list[ImageFile]:
    """Images in a tar shard, of which only the headers are read."""
    members = [member for sample in read_shard(shard) for member in sample.images]
    images = [ImageFile(shard, str(Path(m.name).with_suffix("")), m.name, m.offset, m.size) for m in members]
    return sorted(images, key=lambda image: image.name)


def captions(source: Path, images: Sequence[ImageFile]) -> list[str]:
    """The caption of each image of ``find_images(source)``: from a run's manifest, or from ``NAME.txt`` beside
    ``NAME.jpg`` in the shard or folder. ValueError naming the first image without one.
    """
    manifest = source / "manifest.jsonl"
    if manifest.is_file():
        texts = recorded_prompts(manifest)
    else:
        files = {image: image.path.with_suffix(".txt") for image in images if not image.member}
        texts = {str(image): path.read_text(encoding="utf-8") for image, path in files.items() if path.is_file()}
        for shard in dict.fromkeys(image.path for image in images if image.member):
            texts |= shard_captions(shard)
        texts = {image: text.strip() for image, text in texts.items()}
    missing = [image for image in images if str(image) not in texts]
    if missing:
        raise ValueError(f"image {missing[0]} has no caption ({len(missing)} have none): put a .txt file beside it")
    return [texts[str(image)] for image in images]


def recorded_prompts(manifest: Path) -> dict[str, str]:
    """Prompts of a run's images, by ``str(image)``; lines that are damaged count for none."""
    texts = {}
    for line in manifest.read_bytes().splitlines():
        try:
            record = json.loads(line)
            file, prompt = record["file"], record["prompt"]
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
        if isinstance(file, str) and isinstance(prompt, str):
            texts[str(manifest.parent / file)] = prompt
    return texts


def shard_captions(shard: Path) -> dict[str, str]:
    """Captions of the images in a tar shard, by ``str(image)``."""
    return {
        f"{shard}:{image.name}": read_member(shard, text).decode("utf-8")
        for sample in read_shard(shard)
        for image in sample.images
        if (text := sample.beside(image, ".txt"))
    }
