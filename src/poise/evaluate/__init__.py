"""Asking models questions, and saying what the answers show.

`generation`, `loading`, `sampling` and `scoring` make records; `records` and `runs` read them;
`metrics`, `statistics` and `summary` turn them into numbers; `plots` and `report` into a page.
What reads records never needs a model.
"""
