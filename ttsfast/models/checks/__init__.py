"""Is a model right: what can be seen in seconds, on a copy and a small batch."""
