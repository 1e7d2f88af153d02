"""Digests of weight files: they follow the contents, and a file is hashed once."""

import hashlib
import os
import shutil

import pytest

from experiments.setup import weights
from experiments.setup.weights import file_digest, folder_digest, weights_digest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights._hash.cache_clear()
    return tmp_path / "cache/scalecrafter/digests.json"


def test_a_file_is_hashed_once_and_again_when_it_changed(cache, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert cache.is_file()
    weights._hash.cache_clear()  # as in another process
    monkeypatch.setattr(weights, "sha256_of_file", None)
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest()
    monkeypatch.undo()
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()


def test_a_damaged_or_unwritable_cache_only_costs_time(cache, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b"a")
    cache.parent.mkdir(parents=True)
    cache.write_text("[")
    assert file_digest(path) == hashlib.sha256(b"a").hexdigest()
    weights._hash.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert file_digest(path) == hashlib.sha256(b"a").hexdigest()


def test_the_digest_of_a_folder_covers_names_and_contents(cache, tmp_path, save_pipeline):
    folder = save_pipeline("sd15")
    total = hashlib.sha256()
    for path in [*sorted(folder.glob("*/*")), folder / "model_index.json"]:
        if path.suffix in (".json", ".safetensors", ".txt"):
            total.update(path.relative_to(folder).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    assert folder_digest(folder) == weights_digest(folder) == total.hexdigest()
    assert weights_digest(folder, folder / "vae") != total.hexdigest()


def test_the_digest_of_a_folder_covers_what_is_loaded_alone(cache, tmp_path, save_pipeline):
    """Other programs put more files into the hub's cache: another precision, the safety checker."""
    folder = shutil.copytree(save_pipeline("sd15"), tmp_path / "sd15")
    before = folder_digest(folder)
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    (folder / "safety_checker").mkdir()
    for path in (half, half.with_name("diffusion_pytorch_model.non_ema.safetensors")):
        path.write_bytes(b"others")
    for name in ("config.json", "model.safetensors"):
        (folder / "safety_checker" / name).write_bytes(b"{}")
    (folder / "vae" / "vae.safetensors").write_bytes(b"in another format")
    assert folder_digest(folder) == before
    of_half = folder_digest(folder, "fp16")
    assert of_half != before
    half.with_name("diffusion_pytorch_model.safetensors").write_bytes(b"other single precision")
    assert folder_digest(folder, "fp16") == of_half
    half.write_bytes(b"other half precision")
    assert folder_digest(folder, "fp16") != of_half


def test_a_folder_without_the_variant_has_the_digest_of_what_is_loaded_instead(cache, save_pipeline):
    folder = save_pipeline("sd15")
    assert weights_digest(folder, variant="fp16") == weights_digest(folder)
