"""Sets of images come in; FID, KID and other metrics with standard errors go out (images -> features -> statistics ->
scores). Knows nothing of the methods that generated the images or of how experiments are configured.
"""
