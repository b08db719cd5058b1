"""The methods that can be trained and run: a file each, found by the registry."""
