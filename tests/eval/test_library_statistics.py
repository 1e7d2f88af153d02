"""Statistics as clean-fid and torch-fidelity write them are references; others are refused by name or content."""

from pathlib import Path

import cleanfid
import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_input_id_to_statistics_cached
from torch_fidelity.utils import (
    cache_lookup_group_recompute_all_on_any_miss,
    cache_lookup_one_recompute_on_miss,
    create_feature_extractor,
)

from eval.extractors import INCEPTION_FILE, INCEPTION_SHA256, Inception
from eval.fid import Stats, features_to_fid
from eval.library_statistics import is_library_file, load_cleanfid_reference, load_library_reference
from eval.reference import Reference, require_comparable, save_reference
from eval.score import score_features
from tests.eval.helpers import encode_png, smooth_images


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


def features(n: int, seed: int) -> np.ndarray:
    """(n, 2048) float32 of few directions, so that FID is neither zero nor all trace."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 8)) @ np.random.default_rng(9).normal(size=(8, 2048)) + seed).astype(np.float32)


def test_cleanfid_files_are_read_by_path(tmp_path: Path) -> None:
    """Features if they are there, else mean and covariance, which give the FID of the features."""
    real, generated = features(12, 1), features(6, 2)
    moments = tmp_path / "coco_clean_test_256.npz"
    np.savez(moments, mu=np.mean(real, axis=0), sigma=np.cov(real, rowvar=False))
    alone = load_library_reference(moments)
    assert isinstance(alone.features, Stats)
    assert alone.protocol["n"] is None
    scores = score_features(generated, alone.features, "r")
    assert scores["fid_r"] == pytest.approx(features_to_fid(generated, real), rel=1e-4)
    assert "kid_r" not in scores
    np.savez(tmp_path / "coco_clean_test_256_kid.npz", feats=real)
    for path in (moments, tmp_path / "coco_clean_test_256_kid.npz"):
        both = load_library_reference(path)
        np.testing.assert_array_equal(both.features, real)
        assert (both.protocol["n"], both.protocol["resizing"]) == (12, "clean, to 299x299")


def test_moments_give_the_same_errors_as_features() -> None:
    """With more images than dimensions too."""
    rng = np.random.default_rng(0)
    generated, real = rng.normal(size=(300, 5)), rng.normal(size=(200, 5)) * 2
    stats = Stats(real.mean(axis=0), np.cov(real, rowvar=False), 6)
    found, expected = score_features(generated, stats, "r"), score_features(generated, real, "r")
    for key in ("fid_r", "fid_r_se"):
        assert found[key] == pytest.approx(expected[key], rel=1e-9)
    for name in ("precision_recall", "fid_infinity", "kid_subsets"):
        with pytest.raises(ValueError, match=f"{name} need the reference's features"):
            score_features(generated, stats, "r", also=[name])
    with pytest.raises(ValueError, match="generated features have 5 dimensions and the reference 3"):
        score_features(generated, Stats(np.zeros(3), np.eye(3), 4), "r")


def test_torch_fidelity_files_are_read_as_its_cache_writes_them(tmp_path: Path) -> None:
    real = features(12, 1)
    options = {"cache": True, "cache_root": str(tmp_path), "verbose": False}
    name = "my-set-inception-v3-compat"
    cache_lookup_group_recompute_all_on_any_miss(
        f"{name}-features-", ["2048"], lambda: {"2048": torch.from_numpy(real)}, **options
    )
    statistics = fid_features_to_statistics(torch.from_numpy(real))
    cache_lookup_one_recompute_on_miss(f"{name}-stat-fid-2048", lambda: statistics, **options)
    found = load_library_reference(tmp_path / f"{name}-features-2048.pt")
    np.testing.assert_array_equal(found.features, real)
    assert (found.protocol["n"], found.protocol["resizing"]) == (12, "legacy, to 299x299")
    alone = load_library_reference(tmp_path / f"{name}-stat-fid-2048.pt")
    assert isinstance(alone.features, Stats)
    np.testing.assert_array_equal(alone.features.mean, statistics["mu"])
    np.testing.assert_array_equal(alone.features.cov, statistics["sigma"])
    clean = {"extractor": "inception", "extractor_sha256": INCEPTION_SHA256, "resizing": "clean, to 299x299"}
    with pytest.raises(ValueError, match="its resizing is legacy, to 299x299, here it is clean"):
        require_comparable(found, clean | {"crops": "whole images"}, "my-set")


def test_torch_fidelitys_features_are_ours(inception_file: Path, tmp_path: Path) -> None:
    """The protocol that its files are given: torch-fidelity itself, on PNG files of another size than 299."""
    images = smooth_images(2, 60, 80)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        (tmp_path / f"images/{i}.png").write_bytes(encode_png(image))
    options = {
        "input1": str(tmp_path / "images"),
        "input1_cache_name": "mine",
        "cuda": False,
        "verbose": False,
        "save_cpu_ram": True,
        "cache_root": str(tmp_path),
        "feature_extractor_weights_path": str(inception_file),
    }
    theirs = create_feature_extractor("inception-v3-compat", ["2048"], **options)
    fid_input_id_to_statistics_cached(1, theirs, "2048", **options)  # as its calculate_metrics does, without the score
    found = load_library_reference(tmp_path / "mine-inception-v3-compat-features-2048.pt")
    np.testing.assert_allclose(found.features, Inception(inception_file, "legacy")(images), rtol=1e-4, atol=1e-5)
    alone = load_library_reference(tmp_path / "mine-inception-v3-compat-stat-fid-2048.pt")
    assert isinstance(alone.features, Stats)
    np.testing.assert_allclose(alone.features.mean, np.asarray(found.features).mean(axis=0), rtol=1e-5)


class Stowaway:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_is_no_known_statistics_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_legacy_pytorch_test_32.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez(tmp_path / "a_clean_clip_vit_b_32_test_32.npz", mu=np.zeros(512), sigma=np.eye(512))
    np.savez(tmp_path / "a_clean_test_32.npz", mu=np.zeros(4), sigma=np.eye(4))
    np.savez(tmp_path / "b_clean_test_32.npz", mu=np.full(2048, np.nan), sigma=np.eye(2048))
    (tmp_path / "c_clean_test_32.npz").write_bytes(b"x")
    torch.save({}, tmp_path / "a-dinov2-features-2048.pt")
    (tmp_path / "d-inception-v3-compat-features-2048.pt").write_bytes(b"x")
    torch.save(Stowaway(tmp_path / "boarded"), tmp_path / "e-inception-v3-compat-stat-fid-2048.pt")
    for name, message in {
        "a_legacy_pytorch_test_32.npz": "is of clean-fid's legacy_pytorch",
        "a_clean_clip_vit_b_32_test_32.npz": "is of clean-fid's clean_clip_vit_b_32",
        "a_clean_test_32.npz": r"holds \(4,\), \(4, 4\), not features",
        "b_clean_test_32.npz": "not finite",
        "c_clean_test_32.npz": "holds no features of clean-fid",
        "a-dinov2-features-2048.pt": "does not say how it was computed: known are clean-fid's",
        "d-inception-v3-compat-features-2048.pt": "holds no features of torch-fidelity",
        "e-inception-v3-compat-stat-fid-2048.pt": "holds no features of torch-fidelity",
    }.items():
        assert is_library_file(tmp_path / name)
        with pytest.raises(ValueError, match=message) as caught:
            load_library_reference(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "boarded").exists()
    assert not is_library_file(tmp_path / "mine.npz")
    with pytest.raises(FileNotFoundError, match="no reference at"):
        load_library_reference(tmp_path / "nowhere.pt")


def test_moments_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x has no features to save"):
        save_reference(Reference(Stats(np.zeros(2), np.eye(2), 3), {"source": "x"}), tmp_path / "r.npz")
