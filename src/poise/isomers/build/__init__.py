"""Isomer sets from own problems: a teacher rewrites them, checks keep what has the same logic."""
