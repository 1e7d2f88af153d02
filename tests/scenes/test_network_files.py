"""Files of the scoring networks: small, in half precision, and named where they are missing or damaged."""

import pytest

from experiments.scenes import WEIGHTS
from experiments.scenes.networks import DETAIL_FILE, REPETITION_FILE, STRUCTURE_FILE, load_network, save_network
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import DetailFeatures, SceneFeatures
from experiments.scenes.training.counting import CounterNetwork
from experiments.scenes.training.detail import DetailNetwork
from experiments.scenes.training.structure import StructureNetwork

LOADERS = {STRUCTURE_FILE: SceneFeatures, DETAIL_FILE: DetailFeatures, REPETITION_FILE: SceneCounter}


@pytest.mark.parametrize("file", LOADERS)
def test_missing_or_damaged_network_raises(tmp_path, file):
    with pytest.raises(FileNotFoundError, match=rf"scenes network not found at .*{file}: restore it with git"):
        LOADERS[file](tmp_path)
    (tmp_path / file).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"scenes network at .*{file} is damaged: restore it with git"):
        LOADERS[file](tmp_path)


def test_another_networks_file_is_refused(tmp_path):
    save_network(CounterNetwork(), tmp_path / STRUCTURE_FILE)
    with pytest.raises(ValueError, match="is damaged"):
        SceneFeatures(tmp_path)


@pytest.mark.parametrize("network", [StructureNetwork, DetailNetwork, CounterNetwork])
def test_networks_are_small_and_stored_in_half_precision(tmp_path, network):
    saved, loaded = network(), network()
    save_network(saved, tmp_path / "a.safetensors")
    save_network(saved, tmp_path / "b.safetensors")
    assert load_network(loaded, tmp_path / "a.safetensors") == load_network(loaded, tmp_path / "b.safetensors")
    for name, value in saved.state_dict().items():
        assert (loaded.state_dict()[name] - value).abs().max() <= 1e-3 * value.abs().max()
    assert sum(parameter.numel() for parameter in saved.parameters()) < 0.6e6
    assert (tmp_path / "a.safetensors").stat().st_size < 1.3e6


def test_committed_files_are_small():
    assert sum((WEIGHTS / file).stat().st_size for file in LOADERS) < 4e6
