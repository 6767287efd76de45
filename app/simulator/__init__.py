"""Simulated OpenAI and Anthropic APIs over HTTP, for development, tests and load tests.

The simulator implements both protocols, and both request forms of OpenAI, well enough for the SDKs
of both providers. The simulator's answers are deterministic. The simulator enforces rate limits,
fails on demand, and keeps a ledger of the requests that were served.
"""

from app.simulator.config import SimulatorConfig, config_with, options_in
from app.simulator.faults import Fault, FaultRule
from app.simulator.ledger import Record
from app.simulator.limits import RateLimit
from app.simulator.process import SimulatorProcess, run_in_process, serve, start_process
from app.simulator.server import Simulator

__all__ = [
    "Fault",
    "FaultRule",
    "RateLimit",
    "Record",
    "Simulator",
    "SimulatorConfig",
    "SimulatorProcess",
    "config_with",
    "options_in",
    "run_in_process",
    "serve",
    "start_process",
]
