"""What this machine has and a run may take of it: cores, GPUs and their precision, memory, limits of containers."""
