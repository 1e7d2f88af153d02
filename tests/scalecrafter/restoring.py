"""What a pipeline consists of before and after, settings, and a layer that cannot be patched."""

import copy

import torch

from scalecrafter import Settings
from scalecrafter.settings import expand

TABLE = expand({"down_blocks.1+s": 2, "mid_block": 2, "up_blocks.1+s": 1.5})
ACTIVE = Settings(TABLE, tau=50)


def snapshot(pipe):
    """Everything that could change about each module: own attributes, hooks and parameters."""
    state = {}
    for name, module in pipe.unet.named_modules():
        own = {k: copy.copy(v) if isinstance(v, (dict, set, list)) else v for k, v in module.__dict__.items()}
        del own["_parameters"]
        state[name] = own, {n: p.clone() for n, p in module.named_parameters(recurse=False)}, module.forward.__func__
    return state


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or bool(a == b)


class Stubborn(torch.nn.Conv2d):
    """A convolution whose own forward cannot be replaced."""

    def __setattr__(self, name, value):
        if name == "_conv_forward":
            raise TypeError("this convolution cannot be patched")
        super().__setattr__(name, value)
