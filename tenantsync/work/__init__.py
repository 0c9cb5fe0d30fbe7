"""Tasks taken in from Supabase: handlers, intake, execution."""
