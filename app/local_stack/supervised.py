"""A supervised worker: a Celery worker that reports its start and ends with its supervisor.

The supervisor runs ``python -m app.local_stack.supervised FD GRACE_S ARGUMENTS...``. FD is one end
of a socket. Only the supervisor has the other end. ARGUMENTS are the arguments of the ``celery``
command.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery.__main__ import main
from celery.bin.base import CLIContext
from celery.bin.worker import worker
from celery.signals import worker_ready
from click import Group

from app.celery import app
from app.local_stack.command_lines import WORKER

READY = b"ready\n"


def run(supervisor: socket.socket, grace_s: float, arguments: Sequence[str]) -> None:
    """Run Celery.

    Args:
        supervisor: The socket.
        grace_s: Seconds between SIGTERM and SIGKILL after the end of the supervisor.
        arguments: The command line of ``celery``.
    """

    def say_ready(**_: Any) -> None:
        supervisor.send(READY)

    worker_ready.connect(say_ready, weak=False)
    threading.Thread(target=_end_with, args=(supervisor, grace_s), daemon=True).start()
    sys.argv = ["celery", *arguments]
    if tuple(arguments[: len(WORKER)]) == WORKER:
        _work(arguments[len(WORKER) :])
    else:
        main()


def _work(arguments: Sequence[str]) -> None:
    """Run ``celery worker`` without Celery's other commands and plugins.

    The other commands import a shell, Flower and a web server, which take 10 MB.
    """
    context = CLIContext(app=app, no_color=False, workdir=None, quiet=True)
    celery = Group("celery", commands={"worker": worker})
    celery.main(["worker", *arguments], obj=context, auto_envvar_prefix="CELERY")


def _end_with(supervisor: socket.socket, grace_s: float) -> None:
    """End this process after the supervisor has closed the supervisor's end of the socket.

    The supervisor never writes to the socket, so ``recv`` returns only when the supervisor's end is
    closed.
    """
    while supervisor.recv(16):
        pass
    # The logs went to the supervisor, which does not read that pipe any more.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), sys.argv[3:])
