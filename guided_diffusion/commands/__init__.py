"""The work of each script: flags in, files out."""
