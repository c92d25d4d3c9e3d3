"""Logical isomers: the same logic in the words of several domains."""
