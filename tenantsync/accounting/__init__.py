"""The double entry of units and periodic jobs: reckoning what was expected, naming what is missing, saying why."""
