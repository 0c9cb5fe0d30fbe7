"""`make chaos`: a seeded storm against the real stack, recorded by the database itself and judged from the record."""
