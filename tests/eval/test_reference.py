"""Reference features on disk: they come back, and only for what they were made for."""

from pathlib import Path

import numpy as np
import pytest

from eval.reference import Reference, load_reference, save_reference

PROTOCOL = {"extractor": "a", "extractor_sha256": "1", "resizing": "clean", "cut": "whole", "n": 7, "source": "x"}


def test_they_come_back(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    save_reference(Reference(features, PROTOCOL), tmp_path / "deep" / "r.npz")
    found = load_reference(tmp_path / "deep" / "r.npz", PROTOCOL)
    np.testing.assert_array_equal(found.features, features)
    assert found.protocol == PROTOCOL
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.npz"]


@pytest.mark.parametrize("key", ["extractor", "extractor_sha256", "resizing", "cut"])
def test_another_protocol_is_refused_by_name(tmp_path: Path, key: str) -> None:
    save_reference(Reference(np.zeros((7, 3), np.float32), PROTOCOL), tmp_path / "r.npz")
    with pytest.raises(ValueError, match=f"r.npz cannot be compared: its {key} is {PROTOCOL[key]}, here it is other"):
        load_reference(tmp_path / "r.npz", PROTOCOL | {key: "other"})


def test_what_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no reference at .*r.npz"):
        load_reference(tmp_path / "r.npz", PROTOCOL)
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))  # pytorch-fid's
    (tmp_path / "broken.npz").write_bytes(b"x")
    for name in ("theirs", "broken"):
        with pytest.raises(ValueError, match=f"{name}.npz holds no reference features with their protocol"):
            load_reference(tmp_path / f"{name}.npz", PROTOCOL)
