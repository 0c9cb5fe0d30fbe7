"""Watching: what is waiting, how fresh tenants are, what the workers are doing."""
