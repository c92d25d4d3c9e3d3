"""Logical isomers: the same logic, told in several domains."""
