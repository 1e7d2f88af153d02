"""What enabled layers compute: their window, factors and dispersed kernels."""

import itertools

import pytest
import torch

import scalecrafter
from scalecrafter import Settings
from tests.scalecrafter.restoring import TABLE
from tests.tiny import predict


def test_factor_one_everywhere_equals_direct_exactly(pipe):
    output = predict(pipe)
    ones = Settings(dict.fromkeys(TABLE, 1), tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=ones):
        assert torch.equal(predict(pipe), output)


@pytest.mark.parametrize("timestep", [float, torch.tensor, lambda t: torch.tensor([t, t])])
def test_window_follows_the_timestep(pipe, timestep):
    """tau = 20 is reached between t = 601 and t = 600, in whatever order the timesteps come."""
    with scalecrafter.enable(pipe, height=64, width=64, settings=Settings(TABLE, tau=20)):
        dilated = {t: predict(pipe, timestep(t)) for t in (600, 601, 1, 999, 300)}
    changed = {t for t, output in dilated.items() if not torch.equal(output, predict(pipe, timestep(t)))}
    assert changed == {601, 999}


@torch.no_grad()
def inside(pipe, timestep, function):
    """What ``function()`` returns within a call of the U-Net."""
    returned = []
    with pipe.unet.conv_out.register_forward_pre_hook(lambda module, args: returned.append(function())):
        predict(pipe, timestep)
    return returned[0]


def positions(response):
    """Where the (N, C, H, W) response to an impulse is not zero."""
    return {tuple(position) for position in response[0, 0].abs().gt(1e-6).nonzero().tolist()}


@pytest.mark.parametrize(("d", "rows", "columns"), [(3, (1, 4, 7), (1, 4, 7)), ((3, 2), (1, 4, 7), (2, 4, 6))])
def test_only_named_layers_are_dilated_by_their_factors(pipe, d, rows, columns):
    """An impulse through the named convolution spreads by its factors; its neighbour is unchanged."""
    first, second = pipe.unet.mid_block.resnets[0].conv1, pipe.unet.mid_block.resnets[0].conv2
    x = torch.zeros(1, 16, 9, 9)
    x[:, :, 4, 4] = 1
    settings = Settings({"mid_block.resnets.0.conv1": d}, tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        responses = inside(pipe, 500, lambda: [conv(x) - conv.bias.view(1, -1, 1, 1) for conv in (first, second)])
    assert positions(responses[0]) == set(itertools.product(rows, columns))
    assert positions(responses[1]) == set(itertools.product((3, 4, 5), (3, 4, 5)))


@pytest.mark.parametrize(("d", "step", "radius", "taps"), [(4, 0, 4, 5), (2, 0, 2, 5), (3, 0, 4, None), (4, 30, 4, 3)])
def test_dispersed_layer_spans_what_its_dilation_spanned(pipe, d, step, radius, taps):
    """5x5 taps d / 2 apart; 3 leaves 1.5, which interpolates and spans slightly more. From dispersed_tau = 20 on it is
    the 3x3 kernel with factor d.
    """
    name = "mid_block.resnets.0.conv1"
    conv = pipe.unet.get_submodule(name)
    x = torch.zeros(1, 16, 17, 17)
    x[:, :, 8, 8] = 1
    settings = Settings({name: d}, tau=50, dispersed=(name,), dispersed_tau=20)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        response = inside(pipe, 999 - 20 * step, lambda: conv(x) - conv.bias.view(1, -1, 1, 1))
    rows = response[0, 0].abs().gt(1e-6).any(1).nonzero().flatten().tolist()
    assert (min(rows), max(rows)) == (8 - radius, 8 + radius)
    assert taps is None or len(rows) == taps


def test_dispersed_layer_convolves_with_the_dispersed_kernel(pipe):
    name = "down_blocks.1.downsamplers.0.conv"  # stride 2
    conv = pipe.unet.get_submodule(name)
    x = torch.randn(1, 16, 11, 10, generator=torch.Generator().manual_seed(0))
    settings = Settings({name: 4}, tau=50, dispersed=(name,), dispersed_tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        actual = inside(pipe, 500, lambda: conv(x))
    kernel = scalecrafter.disperse_kernel(conv.weight, scalecrafter.dispersion_transform())
    expected = torch.nn.functional.conv2d(x, kernel, conv.bias, stride=2, padding=4, dilation=2)
    torch.testing.assert_close(actual, expected)
