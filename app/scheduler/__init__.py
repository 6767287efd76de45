"""Turns a run into chords of lanes, level by level, and finds runs whose messages were lost."""
