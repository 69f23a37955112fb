"""A voice as a small service over HTTP."""
