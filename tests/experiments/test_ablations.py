"""The page of ablations holds what their files claim and what their tables say."""

import pytest

from experiments.results.ablations import ORDER, ablations
from experiments.results.reading import read_description, read_table
from experiments.setup.config import CONF


def test_every_ablation_has_a_place():
    assert {f"ablate_{name}" for name in ORDER} == {path.stem for path in (CONF / "experiment").glob("ablate_*.yaml")}


def test_the_page_holds_claims_and_scores_of_what_is_finished(finished):
    page = ablations(finished / "results")
    _, claim, found = read_description(CONF / "experiment/ablate_tau.yaml")
    for text in (claim, found, "## tau", "4 prompts a cell", "| resolution"):
        assert text in page
    for score, error in read_table(finished / "results/ablate_tau.csv")[["fid_r", "fid_r_se"]].to_numpy():
        assert f"{score:.2f} ± {error:.2f}" in page
    assert "## dilation" not in page


def test_without_any_it_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="run make ablations first"):
        ablations(tmp_path)
