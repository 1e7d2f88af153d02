"""In: a model, and what somebody chose to see of it. Out: images of any method at that size, and a local web page that
shows them beside direct inference. A command.
"""
