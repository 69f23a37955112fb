"""From recordings and texts to padded batches.

The rooms in the order of the work, each of which imports only those before it (``prepare`` and ``loading``
nothing of each other):

corpus        what a folder lists: recordings, texts, the split
features      what is computed from a recording, and the corpus's statistics
store         features on the disk: written, checked, read
checks        what is wrong with a corpus or a store
prepare       from a corpus to a store, and more of it later
loading       from a store to batches, in the order of a plan
inspection    what is inside a store, for a person
"""
