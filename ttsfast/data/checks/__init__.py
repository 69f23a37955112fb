"""The cheap checks of a corpus and of a store, for ``prepare`` and the doctor."""
