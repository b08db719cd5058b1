"""What can be trained and run: a file per method, found by the registry."""
