"""Rendered scenes come in; a trained autoencoder, classifier, text encoder and U-Net go out.

`experiments.scenes.train` runs all stages.
"""
