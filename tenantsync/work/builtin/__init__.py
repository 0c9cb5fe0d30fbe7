"""Handlers that every installation has."""
