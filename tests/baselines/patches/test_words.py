"""Words of a prompt, where they are in the image, and which crops show them."""

import pytest
import torch

from baselines.patches.words import Word, crop_prompts, foreground, locate_words, opened, word_tokens
from experiments.scenes.model import build_tokenizer
from tests.tiny import tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    """Of single letters, for 12 tokens."""
    return tiny_tokenizer(tmp_path)


def square(side, top, left, height, width):
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_words_and_the_positions_of_their_tokens(tokenizer):
    """The start of the text is at 0; a sign that the tokenizer does not know takes a place but is no word."""
    assert word_tokens(tokenizer, "ab c") == [("ab", [1, 2]), ("c", [3])]
    assert word_tokens(tokenizer, "a, Bc") == [("a", [1]), ("bc", [3, 4])]
    assert word_tokens(tokenizer, "") == []


def test_words_beyond_the_embedding_are_left_out(tokenizer):
    """Ten letters fit between start and end."""
    assert word_tokens(tokenizer, "abcd efgh ijkl") == [("abcd", [1, 2, 3, 4]), ("efgh", [5, 6, 7, 8])]


def test_whole_words_of_the_scenes_tokenizer(tmp_path):
    found = word_tokens(build_tokenizer(tmp_path), "a red mushroom in a meadow")
    assert found == [(word, [i]) for i, word in enumerate(["a", "red", "mushroom", "in", "a", "meadow"], 1)]


@pytest.mark.parametrize(
    ("block", "survives"),
    [
        ((10, 10, 4, 4), False),
        ((10, 10, 5, 5), True),
        ((10, 10, 6, 6), True),
        ((0, 0, 3, 3), True),
        ((0, 0, 2, 2), False),
        ((0, 10, 3, 5), True),
        ((29, 10, 3, 5), True),
    ],
)
def test_two_openings_of_a_map_of_32(block, survives):
    """What is outside neither erodes nor dilates, so corners and edges keep smaller blocks."""
    mask = square(32, *block)
    assert torch.equal(opened(mask, 2), mask if survives else torch.zeros_like(mask))


def test_opening_is_the_union_of_squares_inside():
    """Brute force: a pixel stays if some 3x3 square around a neighbour, cut at the border, lies in the mask."""
    mask = torch.rand(9, 12, generator=torch.Generator().manual_seed(3)) > 0.3
    expected = torch.zeros_like(mask)
    for i in range(9):
        for j in range(12):
            place = (slice(max(0, i - 1), i + 2), slice(max(0, j - 1), j + 2))
            if mask[place].all():
                expected[place] = True
    assert torch.equal(opened(mask, 1), expected)
    assert torch.equal(opened(mask, 0), mask)


def test_foreground_is_above_the_mean():
    assert foreground(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), 0).tolist() == [[False, False], [False, True]]
    assert not foreground(torch.full((4, 4), 0.3), 0).any()


def test_map_of_a_word_is_the_mean_of_its_tokens(tokenizer):
    attention = torch.zeros(12, 4, 4)
    attention[1, 0, 0], attention[2, 0, 0], attention[2, 3, 3] = 1.0, 1.0, 0.2
    (word,) = locate_words(tokenizer, "ab", attention, None)
    assert word.text == "ab"
    assert word.mask.nonzero().tolist() == [[0, 0], [3, 3]]  # 1 and .1, with a mean of .069


def test_opening_by_default_once_for_16_rows_of_the_shorter_side(tokenizer):
    attention = torch.zeros(12, 20, 40)
    attention[1, 4:6, 4:6] = attention[1, 10:13, 10:13] = 1.0
    (word,) = locate_words(tokenizer, "a", attention, None)
    assert word.mask.sum() == 9
    (word,) = locate_words(tokenizer, "a", attention, 0)
    assert word.mask.sum() == 13


@pytest.mark.parametrize(
    ("scale", "side", "share"), [(2, 8, 0.25), (2, 9, 0.316), (3, 5, 0.22), (3, 6, 0.316), (4, 5, 0.391)]
)
def test_share_of_an_object_inside_a_crop(scale, side, share):
    """Of 32 of a map's cells at ``scale``; kept from a share of .3 on."""
    word = Word("tree", square(32, 0, 0, side, side))
    latent = (128 * scale, 128 * scale)
    for coverage in (share - 0.001, share + 0.001):
        (found,) = crop_prompts([word], [(0, 0)], (128, 128), latent, coverage)
        assert found == ("tree" if coverage < share else "")


def test_prompts_of_crops_keep_the_order_of_words():
    words = [
        Word("a", square(4, 0, 0, 4, 4)),
        Word("tree", square(4, 0, 0, 4, 2)),
        Word("house", square(4, 0, 2, 4, 2)),
    ]
    corners = [(0, 0), (0, 4), (0, 2), (4, 8)]
    found = crop_prompts(words, corners, (8, 8), (16, 16), 0.5)
    assert found == ["a tree", "a tree house", "a tree", "a house"]


def test_what_lies_outside_is_not_covered():
    word = Word("sky", square(4, 0, 0, 4, 4))
    found = crop_prompts([word], [(0, 0), (-1, 0), (9, 9)], (8, 8), (16, 16), 0.88)
    assert found == ["sky", "", ""]
    assert crop_prompts([], [(0, 0)], (8, 8), (16, 16), 0.3) == [""]


def test_maps_and_latents_of_any_aspect():
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[:, 2:] = True
    found = crop_prompts([Word("sea", mask)], [(0, 0), (0, 8), (0, 16)], (8, 8), (12, 24), 0.5)
    assert found == ["", "sea", "sea"]
