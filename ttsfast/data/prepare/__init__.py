"""From a corpus to a store, in steps that each can be interrupted and taken up again."""
