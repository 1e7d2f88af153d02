"""Changing the batch of nested arguments."""

import torch

from scalecrafter.batch import map_batch


def test_only_tensors_of_the_batch_change():
    pair, other = torch.arange(4).view(4, 1), torch.zeros(3, 4)
    nested = {"a": [pair, other], "b": (pair, None), "c": torch.tensor(4), "d": "x"}
    cut = map_batch(nested, 4, lambda tensor: tensor[:2])
    assert torch.equal(cut["a"][0], pair[:2])
    assert cut["a"][1] is other
    assert torch.equal(cut["b"][0], pair[:2])
    assert (cut["b"][1], cut["c"].item(), cut["d"]) == (None, 4, "x")
    assert torch.equal(nested["a"][0], pair)
