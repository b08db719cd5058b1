"""Virtual patients on virtual scanners: phantom, counts, reconstruction, and the trial that they make on disk."""
