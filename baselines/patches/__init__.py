"""In: a pipeline and a request. Out: images of methods that sample in phases of growing size, each phase from crops of
the training size and from dilated views of the whole latent (DemoFusion, AccDiffusion).
"""
