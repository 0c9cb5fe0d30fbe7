"""The worker database: tables, sessions and every query. Knows nothing of Celery or of providers."""
