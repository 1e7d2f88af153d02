"""Patches restore exactly what the instance had, with and without accelerate's hooks."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

from scalecrafter.patching import replaced_attribute, replaced_forward


class Greeter:
    def greet(self):
        return "class"


def test_own_attribute_is_restored_and_missing_one_removed_even_after_errors():
    plain, patched = Greeter(), Greeter()
    patched.greet = own = lambda: "own"
    for greeter in (plain, patched):
        with replaced_attribute(greeter, "greet", lambda: "new"):
            assert greeter.greet() == "new"
        with pytest.raises(ZeroDivisionError), replaced_attribute(greeter, "greet", lambda: "new"):
            1 / 0  # noqa: B018
    assert vars(plain) == {}
    assert vars(patched) == {"greet": own}


def test_attribute_that_is_none_is_restored():
    target = SimpleNamespace(value=None)
    with replaced_attribute(target, "value", 1):
        assert target.value == 1
    assert vars(target) == {"value": None}


class Doubling(ModelHook):
    """Doubles the input before the module runs."""

    def pre_forward(self, module, *args, **kwargs):
        return (args[0] * 2, *args[1:]), kwargs


@pytest.mark.parametrize("hooked", [False, True])
def test_innermost_forward_is_replaced_and_hooks_keep_running(hooked):
    module = nn.Identity()
    if hooked:
        add_hook_to_module(module, Doubling())
    own = dict(vars(module))
    with replaced_forward(module, lambda plain: lambda x: plain(x) + 100):
        assert module(torch.tensor(1)) == (102 if hooked else 101)
    assert vars(module) == own
    assert module(torch.tensor(1)) == (2 if hooked else 1)
