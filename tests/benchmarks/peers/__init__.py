"""Other systems for the same work, each in its documented best form; none imports `app`."""
