"""Methods that sample at the training size and add detail at larger sizes, stage by stage.

In come a diffusers text-to-image pipeline and a `Request`; out come (N, height, width, 3) uint8 images. `engine` is
the loop with its slots, `sampling` what a slot is given, `parts` the steps of a stage, `sizes` the sizes, `images` the
way from one size to the next; every other module is a method.
"""
