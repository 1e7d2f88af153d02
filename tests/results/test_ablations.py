"""The page of ablations holds the claims of their files and the scores of their tables."""

import pytest

from eval.score import as_estimate
from eval.uncertainty import interval_of
from experiments.results.ablations import ORDER, Contrast, ablations_page, contrast_table, contrasts
from experiments.results.reading import read_description, read_scores, read_table, score_files
from experiments.setup.schema import CONF


def test_every_ablation_has_a_place():
    assert {f"ablate_{name}" for name in ORDER} == {path.stem for path in (CONF / "experiment").glob("ablate_*.yaml")}


def test_the_page_holds_claims_scores_and_computed_differences(finished):
    page = ablations_page(finished / "results", finished / "runs")
    description = read_description(CONF / "experiment/ablate_tau.yaml")
    assert description.claim
    for text in (description.claim, description.text, "## tau", "4 prompts per run", "| resolution"):
        assert text in page
    for score, error in read_table(finished / "results/ablate_tau.csv")[["fid_r", "fid_r_se"]].to_numpy():
        assert f"{score:.2f} ± {error:.2f}" in page
    assert "## dilation" not in page


def test_differences_to_the_expected_variant_are_paired(finished):
    table = read_table(finished / "results/ablate_tau.csv")
    found = contrasts(table, {"x4": "tau 50"}, finished / "runs")
    assert [(each.variant, each.expected, each.score) for each in found] == [
        ("tau 0", "tau 50", "kid_r"),
        ("tau 0", "tau 50", "pkid_r"),
        ("tau 0", "tau 50", "repetition"),
    ]
    one, best = (read_scores(path) for path in score_files(table, finished / "runs"))
    value, error = as_estimate(one, "kid_r").minus(as_estimate(best, "kid_r"))
    assert found[0].difference == pytest.approx(value)
    assert found[0].interval == pytest.approx(interval_of(value, error, 4))
    assert contrasts(table, {"x4": "tau 7"}, finished / "runs") == []
    shown = contrast_table(found)
    assert list(shown["minus tau 50"]) == ["tau 0"]


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.1, 0.3), "supports"), ((-0.3, -0.1), "contradicts"), ((-0.1, 0.1), "no power")]
)
def test_a_claim_is_supported_contradicted_or_left_open(interval, verdict):
    assert Contrast("x4", "a", "b", "kid_r", 0.0, interval, 0.25).verdict.startswith(verdict)
    if verdict == "no power":
        assert "detects 0.25" in Contrast("x4", "a", "b", "kid_r", 0.0, interval, 0.25).verdict


def test_without_finished_ablations_the_command_is_named(tmp_path):
    with pytest.raises(ValueError, match="run make ablations first"):
        ablations_page(tmp_path, tmp_path)
