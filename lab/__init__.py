"""Experiments: a grid of runs in a YAML file, their results as JSON lines, tables and figures."""
