"""Voices as files that speak without PyTorch."""
