"""Kill a program of this folder in the middle, start it again, and count what was paid again.

python docs/compare/kill.py 60 python with_langgraph.py some-thread

The program gets the simulator as its OpenAI. After 60 requests it is killed and started again.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

from app.simulator import SimulatorProcess, run_in_process

CALLS = 130  # of a run in which nothing is repeated


def start(simulator: SimulatorProcess, command: list[str]) -> "subprocess.Popen[bytes]":
    address = {"OPENAI_BASE_URL": simulator.openai_base_url, "OPENAI_API_KEY": "any"}
    return subprocess.Popen(command, env={**os.environ, **address}, start_new_session=True)


def main(after: int, command: list[str]) -> None:
    with run_in_process("--latency", "0.5") as simulator:
        program = start(simulator, command)
        while simulator.summary()["requests"] < after:
            if program.poll() is not None:
                raise SystemExit("the program ended before it could be killed")
            time.sleep(0.01)
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        status = start(simulator, command).wait()
        summary = simulator.summary()
        answered = Counter(
            (record["prompt_hash"], record["input_tokens"])
            for record in simulator.ledger()
            if record["status"] == 200
        )
    print(f"exit code {status}, {summary['requests'] - CALLS} requests more than {CALLS}:")
    print(f"{summary['disconnected']} were in flight when the program was killed")
    print(f"{sum(answered.values()) - len(answered)} had been answered, and were answered again")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
