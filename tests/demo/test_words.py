"""Prompts that a model knows."""

import pytest
from transformers import CLIPTokenizer

from experiments.demo.words import examples, vocabulary, warnings
from experiments.scenes import WEIGHTS
from experiments.scenes.renderer.scene import sample_scenes


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")


def test_captions_of_scenes_are_known(tokenizer):
    for scene in sample_scenes(200, seed=3):
        assert warnings(scene.caption, "scenes", tokenizer) == []
    assert warnings("Close up of A RED car, on a beach!", "scenes", tokenizer) == []


def test_the_vocabulary_is_the_tokenizers(tokenizer):
    """Each word of the captions is one token of the model, between its two marks; other words are several."""
    assert {len(tokenizer(word).input_ids) for word in vocabulary()} == {3}
    assert len(tokenizer("giraffe").input_ids) > 3


def test_unknown_words_are_named_with_those_that_are_known(tokenizer):
    (line,) = warnings("a red giraffe riding a giraffe", "scenes", tokenizer)
    assert line.endswith("It does not know: giraffe, riding.")
    for word in ("mushroom", "purple", "desert"):
        assert word in line


def test_other_models_know_all_words(tokenizer):
    assert warnings("a giraffe", "sd15", tokenizer) == []


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_a_warning(tokenizer, prompt):
    (line,) = warnings(prompt, "sd15", tokenizer)
    assert "empty" in line


def test_a_long_prompt_is_cut(tokenizer):
    limit = tokenizer.model_max_length - 2
    assert warnings("red " * limit, "scenes", tokenizer) == []
    (line,) = warnings("red " * (limit + 1), "scenes", tokenizer)
    assert f"its first {limit} tokens" in line


def test_examples_are_known(tokenizer):
    assert len(set(examples("scenes"))) == len(examples("sd15")) == 6
    assert [warnings(prompt, "scenes", tokenizer) for prompt in examples("scenes")] == [[]] * 6
