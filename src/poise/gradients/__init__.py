"""Gradients per domain: how they are obtained from one backward pass."""
