"""In: a model, and what somebody wants to see of it. Out: pictures to look at, in a local web page (a command) and in
files; nothing here is scored or kept as a run.
"""
