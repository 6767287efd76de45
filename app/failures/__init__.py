"""What follows from a failure: pure decisions, one owner of retries."""
