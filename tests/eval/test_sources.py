"""Sets of pictures: folders, runs, what img2dataset writes; their captions."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.sources import captions, find_pictures
from tests.eval.helpers import smooth_images


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_folder_sorted_and_nothing_else(tmp_path: Path) -> None:
    for name in ["b.png", "a.JPG", "notes.txt", ".c.png", "inner/c.webp", ".hidden/d.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [picture.name for picture in find_pictures(tmp_path)] == ["a", "b", "inner/c"]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder or tar file of images at .*nowhere"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images"):
        find_pictures(tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match="cannot read .*bad.tar"):
        find_pictures(tmp_path / "bad.tar")


def test_img2dataset_shards_and_folders_hold_the_same(tmp_path: Path) -> None:
    images = smooth_images(4, 20, 30)
    files = {}
    for i, image in enumerate(images):
        key = f"{i // 2:05d}{i % 2:04d}"
        files[key] = {f"{key}.png": encoded(image), f"{key}.txt": f"picture {i}".encode(), f"{key}.json": b"{}"}
    for shard in ("00000", "00001"):
        members = {n: c for key, parts in files.items() if key.startswith(shard) for n, c in parts.items()}
        (tmp_path / "tars").mkdir(exist_ok=True)
        write_shard(tmp_path / "tars" / f"{shard}.tar", members)
        (tmp_path / "files" / shard).mkdir(parents=True)
        for name, content in members.items():
            (tmp_path / "files" / shard / name).write_bytes(content)
    for source in (tmp_path / "tars", tmp_path / "files"):
        pictures = find_pictures(source)
        assert [Path(picture.name).name for picture in pictures] == sorted(files)
        for picture, image in zip(pictures, images, strict=True):
            np.testing.assert_array_equal(picture.pixels(), image)
        assert captions(source, pictures) == [f"picture {i}" for i in range(4)]
    assert len(find_pictures(tmp_path / "tars" / "00001.tar")) == 2


def test_a_run_gives_its_images_and_prompts(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("images/000000.png", "images/000001.png", "elsewhere/x.png"):
        (tmp_path / name).write_bytes(encoded(smooth_images(1, 8, 8)[0]))
    lines = [{"id": f"{i:06d}", "prompt": f"prompt {i}", "file": f"images/{i:06d}.png"} for i in range(2)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pictures = find_pictures(tmp_path)
    assert [picture.name for picture in pictures] == ["000000", "000001"]
    assert captions(tmp_path, pictures) == ["prompt 0", "prompt 1"]


def test_a_picture_without_caption_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(smooth_images(1, 8, 8)[0]))
    with pytest.raises(ValueError, match="a.png has no caption"):
        captions(tmp_path, find_pictures(tmp_path))
