"""Admits and advances runs, turns a level into a chord of lanes; the watchdog."""
