"""Components of the scenes pipeline: diffusers and transformers classes with the topology and module names of
SD 1.5, at a small size.

The third level and the middle have attention: at 16x the base area, attention at the outer levels would cost more than
all convolutions together. The autoencoder has none, so that it treats all sizes alike.
"""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene

BASE_PX = 128
VAE_FACTOR = 4
LATENT_CHANNELS = 12
LATENT_SIZE = BASE_PX // VAE_FACTOR
MAX_TOKENS = 16
TEXT_WIDTH = 64


def build_autoencoder(latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    """AutoencoderKL with a downsampling factor of 4 and twelve latent channels; eight did not reach 29 dB."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=BASE_PX,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """U-Net with four levels and two layers per block, so that every convolution is named as in SD 1.5."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=2,
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIPTokenizer with one token for each word of the captions, loaded from ``folder`` or trained into it.

    Training the tokenizer is not deterministic, and a resumed training needs the same token ids, so an existing
    tokenizer is kept.
    """
    if (folder / "merges.txt").exists():
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)
    captions = [
        Scene(o, c, b, seed=0, zoom=zoom).caption
        for o in OBJECTS
        for c in COLOURS
        for b in BACKGROUNDS
        for zoom in (1, 2)
    ]
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        show_progress=False,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
    )
    bpe.train_from_iterator(captions, trainer)
    learned = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = dict(learned["vocab"])
    for letter in alphabet:
        vocabulary.setdefault(letter + "</w>", len(vocabulary))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in learned["merges"]) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def build_scheduler() -> DDIMScheduler:
    """DDIM with the noise schedule of Stable Diffusion, and v-prediction as SD 2.1 has at 768x768.

    With epsilon prediction skies had wrong colours: at high noise an error in the mean of an image hardly changes the
    predicted noise.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def assemble(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
