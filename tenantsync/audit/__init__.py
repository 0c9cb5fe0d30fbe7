"""The judge: compares provider, Postgres and Supabase by another way than they are kept equal."""
