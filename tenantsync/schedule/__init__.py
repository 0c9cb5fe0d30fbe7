"""Occurrences of periodic jobs: which are owed, who does them, and what became of each."""
