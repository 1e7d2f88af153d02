"""Rendered scenes come in; a trained autoencoder, text encoder, U-Net and three scoring networks go out.

`experiments.scenes.train` runs all stages.
"""
