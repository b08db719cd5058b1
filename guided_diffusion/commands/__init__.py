"""The implementation of each script."""
