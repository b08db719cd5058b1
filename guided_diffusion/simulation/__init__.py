"""Virtual patients on virtual scanners: phantom, counts, reconstruction, and the trial written to disk."""
