"""Toy tasks, and models of about a million parameters, trained from scratch for them."""
