"""What runs inside Celery worker processes."""
