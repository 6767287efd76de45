"""Admits and advances runs, sends each level as a chord of lanes, and has the watchdog."""
