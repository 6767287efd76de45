"""The code that runs inside Celery worker processes."""
