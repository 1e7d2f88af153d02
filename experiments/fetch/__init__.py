"""In: the configurations of runs. Out: the weight files that they need, fetched before the first of them starts."""
