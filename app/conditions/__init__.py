"""Conditions of agents: compiled and evaluated by Google's CEL, within bounds."""
