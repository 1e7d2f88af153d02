"""In: a command line. Out: plain values, checked before anything is sampled: the rows of a grid, runs with their
identity, and models as far as they are known without loading weights.
"""
