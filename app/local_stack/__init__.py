"""The whole stack on one machine: its processes, their supervision and their output."""
