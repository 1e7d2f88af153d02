"""Comparing the field: in come the table of an experiment and the scores of its runs; out come the recipe that each
row was sampled with, charts of quality against cost, and the page that says who is on the frontier.
"""
