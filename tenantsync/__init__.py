"""The product. Imports no Celery: tasks/ calls in here, never the other way round."""
