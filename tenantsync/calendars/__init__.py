"""Calendars: the provider port, one adapter per provider, and the runs that bring rows and provider together."""
