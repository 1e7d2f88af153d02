"""In: a run that was not started, or methods to compare. Out: what they cost: U-Net evaluations, FLOPs, memory, disk
and seconds.
"""
