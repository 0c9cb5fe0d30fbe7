"""Tasks: taken in from Supabase, run by a handler of their kind, and returned."""
