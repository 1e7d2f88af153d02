"""Reference features on disk: they load, and only under the protocol they were made for."""

from pathlib import Path

import numpy as np
import pytest

from eval import reference
from eval.reference import Reference, load_reference, save_reference

PROTOCOL = {"extractor": "a", "extractor_sha256": "1", "resizing": "clean", "crops": "whole", "n": 7, "source": "x"}


def test_saved_reference_loads_unchanged(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    save_reference(Reference(features, PROTOCOL), tmp_path / "deep" / "r.npz")
    found = load_reference(tmp_path / "deep" / "r.npz", PROTOCOL)
    np.testing.assert_array_equal(found.features, features)
    assert found.protocol == PROTOCOL
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.npz"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_features_are_mapped_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order) -> None:
    monkeypatch.setattr(reference, "IN_MEMORY", 100)
    features = np.asarray(np.random.default_rng(0).normal(size=(70, 3)), np.float32, order)
    save_reference(Reference(features, PROTOCOL), tmp_path / "r.npz")
    found = load_reference(tmp_path / "r.npz", PROTOCOL).features
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, features)
    content = bytearray((tmp_path / "r.npz").read_bytes())
    content[400] ^= 1
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(ValueError, match="holds no reference features"):
        load_reference(tmp_path / "r.npz", PROTOCOL)


def test_different_protocol_is_refused_by_key(tmp_path: Path) -> None:
    save_reference(Reference(np.zeros((7, 3), np.float32), PROTOCOL), tmp_path / "r.npz")
    for key in ("extractor", "extractor_sha256", "resizing", "crops"):
        message = f"r.npz cannot be compared: its {key} is {PROTOCOL[key]}, here it is other"
        with pytest.raises(ValueError, match=message):
            load_reference(tmp_path / "r.npz", PROTOCOL | {key: "other"})
    older = {"cut" if key == "crops" else key: value for key, value in PROTOCOL.items()}
    save_reference(Reference(np.zeros((7, 3), np.float32), older), tmp_path / "older.npz")
    with pytest.raises(ValueError, match="older.npz cannot be compared: its crops is None, here it is whole"):
        load_reference(tmp_path / "older.npz", PROTOCOL)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no reference at .*r.npz"):
        load_reference(tmp_path / "r.npz", PROTOCOL)
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))  # pytorch-fid's
    (tmp_path / "broken.npz").write_bytes(b"x")
    for name in ("theirs", "broken"):
        with pytest.raises(ValueError, match=f"{name}.npz holds no reference features with their protocol"):
            load_reference(tmp_path / f"{name}.npz", PROTOCOL)
