"""The whole stack on one machine: the processes, their supervision and their output."""
