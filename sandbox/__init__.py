"""The world that the demo and the tests run in: stand-ins for outside systems, seeded data, faults."""
