"""Kinds of agents that call no model: functions, remote agents, text and data, and plugins."""
