"""In: scores and images of finished runs. Out: tables, charts, galleries, one HTML page, and a mirror in W&B; no model
is needed.
"""
