"""Throwing old data away."""
