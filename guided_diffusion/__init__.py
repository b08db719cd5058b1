"""Whole-body PET denoising with conditional 3D diffusion models."""
