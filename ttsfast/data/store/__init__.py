"""The feature store: how it lies on the disk, how it is read, how it is checked."""
