"""PET images and their physics. Nothing here depends on networks."""
