"""Support for tests of several kinds, by subject."""
