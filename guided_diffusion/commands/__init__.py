"""What each script does: flags in, files out."""
