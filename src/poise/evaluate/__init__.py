"""Asking models questions, and saying what the answers show.

`load`, `ask` and `represent` make records, by the rewards of `scoring`; `records` and `runs` read
them; `measures`, `isomers` and `statistics` turn them into numbers; `plots` and `report` into a
page. What reads records never needs a model.
"""
