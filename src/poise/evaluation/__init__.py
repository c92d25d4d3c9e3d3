"""Asking models questions, and saying what the answers show.

`decoding`, `loading`, `scoring` and `sampling` make records; `records` and `runs` read them;
`metrics`, `statistics` and `summary` turn them into numbers; `plots` and `report` into a page.
What reads records never needs a model.
"""
