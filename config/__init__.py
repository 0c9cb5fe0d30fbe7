"""Settings, queues and Celery's configuration: what the rest is told, and nothing of ours imported."""
