"""In: run folders, or any two sets of images. Out: scores with standard errors and the protocol that made them, as
JSON.
"""
