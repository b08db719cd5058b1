"""Training: from pairs of volumes to checkpoints, on one rank or many."""
