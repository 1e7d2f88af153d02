"""Attention scaling against an explicit softmax, with every attention implementation."""

import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor

from baselines.attention_scaling import AttentionScaling, scaling_factor
from baselines.direct import Direct
from tests.tiny import generate


def test_published_factors():
    published = {(16384, 4): 1.080, (4096, 4): 1.095, (1024, 4): 1.118, (256, 4): 1.155}
    published |= {(65536, 16): 1.155, (16384, 16): 1.183}
    for (tokens, ratio), factor in published.items():
        assert scaling_factor(tokens, ratio) == pytest.approx(factor, abs=6e-4)


def test_factors_at_the_edges():
    assert scaling_factor(4096, 1) == 1
    assert scaling_factor(1, 4) == 1
    assert scaling_factor(4, 4) == math.sqrt(2)  # one token in training counts as two


def slow_attention(attention, x, context, factor):
    """softmax(factor q k / sqrt(d)) v, one head at a time, in double precision."""
    attention = attention.double()
    x, context = x.double(), context.double()
    q, k, v = attention.to_q(x), attention.to_k(context), attention.to_v(context)
    width = q.shape[-1] // attention.heads
    heads = []
    for h in range(attention.heads):
        part = slice(h * width, (h + 1) * width)
        logits = factor * q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        heads.append(logits.softmax(-1) @ v[..., part])
    y = attention.to_out[0](torch.cat(heads, -1))
    attention.float()
    return y


@pytest.mark.parametrize("processor", [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(1)])
@torch.no_grad()
def test_attention_is_the_scaled_softmax_with_every_processor(pipe, processor):
    block = pipe.unet.down_blocks[2].attentions[0].transformer_blocks[0]
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 256, 16, generator=generator) * 3, torch.randn(2, 5, 16, generator=generator)
    block.attn1.set_processor(processor)
    expected = slow_attention(block.attn1, x, x, scaling_factor(256, 4)).float()
    plain, cross = block.attn1(x), block.attn2(x, encoder_hidden_states=text)
    with AttentionScaling().enable(pipe, height=64, width=64):
        torch.testing.assert_close(block.attn1(x), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(block.attn2(x, encoder_hidden_states=text), cross)
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert torch.equal(block.attn1(x), plain)


def test_all_self_attentions_are_scaled_and_restored(pipe):
    attentions = [m for n, m in pipe.unet.named_modules() if n.endswith("attn1")]
    with AttentionScaling().enable(pipe, height=64, width=64):
        assert all(len(m.to_q._forward_hooks) == 1 for m in attentions)
    assert len(attentions) == 2 + 1 + 3
    assert not any(m._forward_hooks for m in pipe.unet.modules())


def test_at_the_training_size_it_equals_direct(pipe):
    images = [generate(method, pipe, size=(32, 32)) for method in (AttentionScaling(), Direct())]
    assert np.array_equal(*images)


def test_unsupported_attention_raises(pipe):
    attention = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.fused_projections = True
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        AttentionScaling().describe(pipe, 64, 64)
    attention.fused_projections, attention.norm_q = False, torch.nn.LayerNorm(8)
    with pytest.raises(ValueError, match="normalises its queries"):
        AttentionScaling().describe(pipe, 64, 64)
