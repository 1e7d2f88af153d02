"""Every module here is a command (`python -m experiments.NAME --help`); the folders hold the stations that they
connect.
"""
