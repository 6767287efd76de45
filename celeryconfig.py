"""Every Celery setting; docs/decisions/0003-celery-settings.md gives the reasons.

Messages of lanes carry only ids. Because leases recover lost work, workers acknowledge these
messages early. So the broker never has to deliver a message again, and a duplicated or lost message
costs only a little time.
"""

from typing import Any

from kombu import Queue

from app.bootstrap import celery_settings
from app.celery import ADVANCE, SCHEDULER_QUEUE
from app.configuration.service_urls import read_redis_url
from app.embedded.connected import redis_url
from app.storage.redis import celery_redis_url, tls_options

_settings = celery_settings()

_redis = read_redis_url(redis_url(_settings))
broker_url = celery_redis_url(redis_url(_settings))
result_backend = broker_url
broker_use_ssl = redis_backend_use_ssl = tls_options(_redis)
override_backends = dict.fromkeys(("redis", "rediss"), "app.storage.celery_redis:Backend")

# Queues and routes. The provider's name is the queue's name; lanes are routed when they are sent.
task_queues = [Queue(name, routing_key=name) for name in (SCHEDULER_QUEUE, *_settings.agent_queues)]
task_default_queue = SCHEDULER_QUEUE
task_create_missing_queues = False
task_routes = {ADVANCE: {"queue": SCHEDULER_QUEUE}}
# Redis serves lower numbers first and 0 is the default; every message states its priority.
task_default_priority = 5
task_queue_max_priority = 9

# Messages are acknowledged early; the module docstring gives the reason.
task_acks_late = False
task_reject_on_worker_lost = False
worker_disable_prefetch = True
worker_prefetch_multiplier = 1

# Messages are JSON and carry only ids.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]
event_serializer = "json"

# Results exist only for the chords' counters.
result_expires = 3600
task_store_errors_even_if_ignored = False

# One dropped connection must never end a worker or lose a message. redis-py's and
# kombu's own pool sizes (100 and 10) are too small for a saturated pool of threads.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_pool_limit = 10
redis_max_connections = 400
redis_socket_timeout = 10.0
redis_socket_connect_timeout = 5.0
redis_socket_keepalive = _redis.path is None  # a Unix socket refuses the option
redis_retry_on_timeout = True
broker_transport_options: dict[str, Any] = {
    "visibility_timeout": 900,
    "max_connections": 400,
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
    "queue_order_strategy": "round_robin",
}
result_backend_transport_options: dict[str, Any] = {"retry_policy": {"max_retries": 5}}

# The pool has threads: one asyncio loop per process runs all agents, and each thread only waits.
worker_pool = "threads"
worker_concurrency = _settings.engine.worker_threads
worker_hijack_root_logger = False
worker_redirect_stdouts = False
# Workers always send events for agents; Flower shows each agent as a task agent.<name>. With -E,
# workers also send events for lanes and advances.
worker_send_task_events = False
task_send_sent_event = False
worker_cancel_long_running_tasks_on_connection_loss = False

# Beat is for the user's own schedules; AgentChord itself does not need beat.
beat_schedule_filename = str(_settings.home / "beat-schedule")

timezone = "UTC"
enable_utc = True
imports = ("workers.tasks",)
