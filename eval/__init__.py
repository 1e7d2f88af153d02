"""Images to features to statistics to scores. Knows nothing of the methods that made the images."""
