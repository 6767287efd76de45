"""Kinds of agents that ask no model: functions, remote agents, and what plugins bring."""
