"""Methods that sample once, at the target size, with layers of the U-Net changed in some or all steps.

In come a diffusers pipeline and a `baselines.method.Request`; out come images, as from any method.
"""
