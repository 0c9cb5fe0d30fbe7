"""The servers that the demo and the tests run on: real ones, from wheels and npm, without Docker."""
