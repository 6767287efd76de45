"""Turns a run into chords of lanes, level by level, and sees to it that none is forgotten."""
