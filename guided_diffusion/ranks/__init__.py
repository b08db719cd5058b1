"""Processes that are one run: who started them, how they speak, and how they end together when one fails or stalls."""
