"""Conditions of agents, compiled and evaluated by Google's CEL, with limits on time and size.

CEL is the Common Expression Language.
"""
