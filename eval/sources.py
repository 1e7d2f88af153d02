"""Where sets of pictures come from: a folder, a finished run, or what img2dataset leaves (folders or tar shards)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from eval.images import FilePicture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def find_pictures(source: Path) -> list[FilePicture]:
    """The pictures of a set, in the order of their names.

    Args:
        source: a run folder (then those in its ``images/``), a tar file in webdataset's form, or a folder: the
            pictures in it and below it, or, if it holds tar files, those in the tar files.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a tar file that is damaged.
    """
    if source.is_file() and source.suffix == ".tar":
        pictures = tar_members(source)
    elif not source.is_dir():
        raise FileNotFoundError(f"no folder or tar file of images at {source}")
    elif (source / "manifest.jsonl").is_file():
        pictures = folder_files(source / "images")
    elif shards := sorted(source.glob("*.tar")):
        bar = tqdm(shards, desc=f"listing {source.name}", unit="shard", leave=False, disable=None)
        pictures = [picture for shard in bar for picture in tar_members(shard)]
    else:
        pictures = folder_files(source)
    if not pictures:
        raise FileNotFoundError(f"no images ({' '.join(sorted(SUFFIXES))}) in {source}")
    return pictures


def folder_files(folder: Path) -> list[FilePicture]:
    """Pictures in a folder and below, named by their path in it; hidden ones are none."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    names = [path.relative_to(folder) for path in paths]
    found = zip(paths, names, strict=True)
    kept = [
        FilePicture(path, name.with_suffix("").as_posix())
        for path, name in found
        if not any(part.startswith(".") for part in name.parts)
    ]
    return sorted(kept, key=lambda picture: picture.name)


def tar_members(archive: Path) -> list[FilePicture]:
    """Pictures in an uncompressed tar file; only its headers are read."""
    try:
        with tarfile.open(archive, "r:") as stream:
            members = [m for m in stream if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"cannot read {archive}: {error}; make it again (tar shards are uncompressed)") from error
    found = [FilePicture(archive, str(Path(m.name).with_suffix("")), m.name, m.offset_data, m.size) for m in members]
    return sorted(found, key=lambda picture: picture.name)


def captions(source: Path, pictures: Sequence[FilePicture]) -> list[str]:
    """The text of each picture of `find_pictures`: from a run's manifest, or from ``NAME.txt`` beside ``NAME.jpg``, in
    the tar file or on disk; ValueError if one has none.
    """
    manifest = source / "manifest.jsonl"
    if manifest.is_file():
        records = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        texts = {str(source / record["file"]): record["prompt"] for record in records}
    else:
        texts = {str(p.path): text for p in pictures if not p.member and (text := text_beside(p.path)) is not None}
        for archive in dict.fromkeys(picture.path for picture in pictures if picture.member):
            texts |= tar_texts(archive)
    lacking = [picture for picture in pictures if str(picture) not in texts]
    if lacking:
        raise ValueError(f"image {lacking[0]} has no caption, as {len(lacking)} have none: put a .txt file beside it")
    return [texts[str(picture)] for picture in pictures]


def text_beside(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    return beside.read_text(encoding="utf-8").strip() if beside.is_file() else None


def tar_texts(archive: Path) -> dict[str, str]:
    """Captions of the pictures in a tar file, by the picture as it names itself."""
    with tarfile.open(archive, "r:") as stream:
        members = {member.name: member for member in stream if member.isfile()}
        found = {}
        for name in members:
            text = members.get(str(Path(name).with_suffix(".txt")))
            if Path(name).suffix.lower() in SUFFIXES and text and (content := stream.extractfile(text)):
                found[f"{archive}:{name}"] = content.read().decode("utf-8").strip()
    return found
