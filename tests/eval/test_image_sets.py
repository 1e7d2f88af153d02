"""Sets of images and captions: folders, runs, and what img2dataset writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval.image_sets import captions, find_images
from tests.eval.helpers import encode_png, smooth_images, write_shard


def test_folder_is_sorted_and_skips_other_and_hidden_files(tmp_path: Path) -> None:
    for name in ["b.png", "a.JPG", "notes.txt", ".c.png", "inner/c.webp", ".hidden/d.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [image.name for image in find_images(tmp_path)] == ["a", "b", "inner/c"]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder or tar file of images at .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images"):
        find_images(tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match="cannot read .*bad.tar"):
        find_images(tmp_path / "bad.tar")


def test_img2dataset_shards_and_folders_give_the_same_images(tmp_path: Path) -> None:
    images = smooth_images(4, 20, 30)
    files = {}
    for i, image in enumerate(images):
        key = f"{i // 2:05d}{i % 2:04d}"
        files[key] = {f"{key}.png": encode_png(image), f"{key}.txt": f"image {i}\n".encode(), f"{key}.json": b"{}"}
    for shard in ("00000", "00001"):
        members = {n: c for key, parts in files.items() if key.startswith(shard) for n, c in parts.items()}
        (tmp_path / "tars").mkdir(exist_ok=True)
        write_shard(tmp_path / "tars" / f"{shard}.tar", members)
        (tmp_path / "files" / shard).mkdir(parents=True)
        for name, content in members.items():
            (tmp_path / "files" / shard / name).write_bytes(content)
    for source in (tmp_path / "tars", tmp_path / "files"):
        found = find_images(source)
        assert [Path(image.name).name for image in found] == sorted(files)
        for image, pixels in zip(found, images, strict=True):
            np.testing.assert_array_equal(image.pixels(), pixels)
        assert captions(source, found) == [f"image {i}" for i in range(4)]
    assert len(find_images(tmp_path / "tars" / "00001.tar")) == 2


def test_run_gives_its_images_and_prompts(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("images/000000.png", "images/000001.png", "elsewhere/x.png"):
        (tmp_path / name).write_bytes(b"")
    lines = [{"id": f"{i:06d}", "prompt": f"prompt {i}", "file": f"images/{i:06d}.png"} for i in range(2)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = find_images(tmp_path)
    assert [image.name for image in images] == ["000000", "000001"]
    assert captions(tmp_path, images) == ["prompt 0", "prompt 1"]


def test_image_without_caption_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    write_shard(tmp_path / "set.tar", {"b.png": b"", "b.txt": b"b", "c.png": b""})
    for source, name in ((tmp_path / "set.tar", "set.tar:c.png"), (tmp_path, "set.tar:c.png")):
        with pytest.raises(ValueError, match=f"{name} has no caption"):
            captions(source, find_images(source))
    (tmp_path / "set.tar").unlink()
    with pytest.raises(ValueError, match="a.png has no caption"):
        captions(tmp_path, find_images(tmp_path))
