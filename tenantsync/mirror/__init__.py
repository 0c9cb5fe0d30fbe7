"""The mirror: what Postgres has, brought to Supabase. Versions decide who wins, so repeats and disorder do no harm."""
