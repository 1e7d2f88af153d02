"""Changing the batch of nested arguments."""

import torch

from scalecrafter.batch import batch_sizes, map_batch


def test_only_tensors_of_the_batch_change():
    pair, other = torch.arange(4).view(4, 1), torch.zeros(3, 4)
    nested = {"a": [pair, other], "b": (pair, None), "c": torch.tensor(4), "d": "x"}
    halved = map_batch(nested, (4,), lambda tensor: tensor[:2])
    assert torch.equal(halved["a"][0], pair[:2])
    assert halved["a"][1] is other
    assert torch.equal(halved["b"][0], pair[:2])
    assert (halved["b"][1], halved["c"].item(), halved["d"]) == (None, 4, "x")
    assert torch.equal(nested["a"][0], pair)


def test_prompts_of_a_video_may_have_a_row_for_each_frame():
    assert batch_sizes(torch.zeros(2, 4, 8, 8)) == (2,)
    assert batch_sizes(torch.zeros(2, 4, 5, 8, 8)) == (2, 10)
