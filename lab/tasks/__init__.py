"""Laboratories: models of about a million parameters, trained from scratch, and their tasks."""
