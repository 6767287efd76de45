"""Conditions of agents. Google's CEL compiles and evaluates them, within limits of time and size.

CEL is the Common Expression Language.
"""
