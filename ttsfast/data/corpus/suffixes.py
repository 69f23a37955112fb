"""Names of recordings, and of the folders that they lie in."""

from __future__ import annotations

FOLDERS = ("wavs", "wav", "clips", "audio")
"""Where they lie beside a listing that has their names only."""
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""Of recordings that are read, in the order in which they are preferred."""
OTHER_SUFFIXES = (
    *(".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *(".sph", ".raw", ".pcm", ".mka", ".3gp"),
)
"""Of recordings that are to be converted first."""


def split_suffix(name: str) -> tuple[str, str]:
    """A name, and the suffix of a recording in small letters, which it may lack: ``("a", ".wav")``."""
    stem, dot, suffix = name.rpartition(".")
    suffix = f".{suffix.lower()}"
    return (stem, suffix) if dot and suffix in AUDIO_SUFFIXES + OTHER_SUFFIXES else (name, "")


def without_suffix(name: str) -> str:
    """A name without the suffix of a recording."""
    return split_suffix(name)[0]
