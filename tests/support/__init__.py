"""What tests of several kinds share, by subject."""
