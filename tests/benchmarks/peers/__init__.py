"""Other ways to do the same work, each in its documented best form; each runs without `app`."""
