"""Deciding which units run next, and handing them out."""
