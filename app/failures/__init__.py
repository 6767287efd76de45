"""What follows from a failure: classification, retries, circuit breakers; one owner of retries."""
