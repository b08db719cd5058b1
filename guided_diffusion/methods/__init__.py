"""The methods that can be trained and run: one file each, found by the registry."""
