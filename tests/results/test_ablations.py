"""The page of ablations holds the claims of their files and the scores of their tables."""

import pytest

from experiments.results.ablations import ORDER, ablations_page
from experiments.results.reading import read_description, read_table
from experiments.setup.schema import CONF


def test_every_ablation_has_a_place():
    assert {f"ablate_{name}" for name in ORDER} == {path.stem for path in (CONF / "experiment").glob("ablate_*.yaml")}


def test_the_page_holds_claims_and_scores_of_finished_ablations(finished):
    page = ablations_page(finished / "results")
    _, claim, found = read_description(CONF / "experiment/ablate_tau.yaml")
    assert claim
    for text in (claim, found, "## tau", "4 prompts per run", "| resolution"):
        assert text in page
    for score, error in read_table(finished / "results/ablate_tau.csv")[["fid_r", "fid_r_se"]].to_numpy():
        assert f"{score:.2f} ± {error:.2f}" in page
    assert "## dilation" not in page


def test_without_finished_ablations_the_command_is_named(tmp_path):
    with pytest.raises(ValueError, match="run make ablations first"):
        ablations_page(tmp_path)
