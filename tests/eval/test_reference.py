"""Reference features on disk: they load, and only under the protocol they were made for."""

from pathlib import Path

import cleanfid
import numpy as np
import pytest

from eval import reference
from eval.extractors import INCEPTION_FILE, INCEPTION_SHA256
from eval.reference import Reference, load_cleanfid_reference, load_reference, require_comparable, save_reference

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


@pytest.fixture
def stats_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the one that clean-fid keeps statistics in."""
    monkeypatch.setattr(cleanfid, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "stats").mkdir()
    return tmp_path / "stats"


def test_cleanfid_custom_statistics_are_a_reference(stats_folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Statistics as clean-fid's own function writes them, with its network replaced by random features."""
    from cleanfid import fid

    features = np.random.default_rng(0).normal(size=(3, 2048)).astype(np.float32)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda mode, device: None)
    monkeypatch.setattr(fid, "get_folder_features", lambda *args, **kwargs: features)
    fid.make_custom_stats("My-Set", str(tmp_path), mode="clean", device="cpu")
    found = load_cleanfid_reference("My-Set")
    np.testing.assert_array_equal(found.features, features)
    assert found.features.dtype == np.float32
    about = {"source": "cleanfid:My-Set", "n": 3, "left_out": 0}
    assert {key: found.protocol[key] for key in about} == about

    protocol = {"extractor": "inception", "extractor_sha256": INCEPTION_SHA256}
    protocol |= {"resizing": "clean, to 299x299", "crops": "whole images"}
    require_comparable(found, protocol, "cleanfid:My-Set")
    with pytest.raises(ValueError, match="cleanfid:My-Set cannot be compared: its extractor_sha256 is 6726825d"):
        require_comparable(found, protocol | {"extractor_sha256": "other"}, "cleanfid:My-Set")
    assert INCEPTION_SHA256[:8] in INCEPTION_FILE


def test_cleanfid_statistics_without_features_are_refused(stats_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="clean-fid has no statistics 'a'.*make_custom_stats"):
        load_cleanfid_reference("a")
    np.savez(stats_folder / "a_clean_custom_na.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(ValueError, match="only mean and covariance .*run cleanfid.fid.make_custom_stats") as caught:
        load_cleanfid_reference("a")
    assert "\n" not in str(caught.value)
    for content, message in (({"mu": np.zeros(4)}, "holds no features"), ({"feats": np.zeros((9, 4))}, r"\(9, 4\)")):
        np.savez(stats_folder / "a_clean_custom_na_kid.npz", **content)
        with pytest.raises(ValueError, match=message):
            load_cleanfid_reference("a")
