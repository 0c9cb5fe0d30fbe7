"""Real parts for tests: the product in this process against embedded servers."""
