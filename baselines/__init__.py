"""ScaleCrafter and the methods it is compared with, behind the contract of `baselines.method`.

In come a diffusers pipeline and a `Request` (prompts, seeds, size, sampler); out come (N, height, width, 3) uint8
images, and plain values that identify the method.
"""
