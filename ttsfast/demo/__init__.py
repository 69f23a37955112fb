"""The main job end to end, on a corpus that the demo speaks itself."""
