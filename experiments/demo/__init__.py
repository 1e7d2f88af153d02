"""A configuration comes in; pictures to look at go out. Nothing here is scored or kept as a run."""
