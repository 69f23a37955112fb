"""Recordings by the names that listings have for them, in the folders that the user named and nowhere else.

A name is found whatever the case of its suffix (``.WAV``) and in either Unicode spelling of its letters (NFC
as most listings have it, NFD as macOS has file names); an id, which has no suffix, by any that is read.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ttsfast.data.corpus.parquet import split_address
from ttsfast.data.corpus.rows import Fault
from ttsfast.data.corpus.suffixes import AUDIO_SUFFIXES, FOLDERS, OTHER_SUFFIXES, split_suffix
from ttsfast.errors import InputError

MISSING = "missing audio"
_UNREAD = "unread format"
_Files = dict[str, list[str]]
"""Names of files by their stem in NFC."""


class RecordingFinder:
    """Finds recordings of one corpus; each folder is read once."""

    def __init__(self, root: Path, allow_roots: Sequence[Path | str] = ()) -> None:
        """``allow_roots``: folders beside ``root`` that recordings may be in.

        Raises InputError for one that is not there.
        """
        self._root = str(root.absolute())
        for folder in allow_roots:
            if not os.path.isdir(folder):
                raise InputError(f"--allow-root {folder}: no such folder; give one that holds recordings")
        self._allowed = [os.path.realpath(folder) for folder in (root, *allow_roots)]
        self._allowed += self._linked_folders()
        self._folders: dict[str, tuple[str, _Files]] = {}

    def find(self, name: str, folders: Sequence[str]) -> str:
        """The path of the recording ``name``, an absolute path or one below the first of ``folders`` (below
        the root) that has it.

        Raises Fault when none has it, with what else there is; and when it is outside of all allowed folders.
        """
        place = self.relative(name)
        if os.path.normpath(place).startswith(".."):
            # It is from the listing that it climbs: wavs/../a.wav is not what ../a.wav says.
            folders = [folder for folder in folders if os.path.basename(folder) not in FOLDERS]
        places = [place] if os.path.isabs(place) else [os.path.join(folder, place) for folder in folders]
        faults = []
        for place in places:
            try:
                return self._find(os.path.join(self._root, os.path.normpath(place)))
            except Fault as fault:
                faults.append(fault)
            except (OSError, ValueError):
                # A name too long or with a NUL, or links in a circle: nothing can be there.
                continue
        told = [fault for fault in faults if fault.args[0] != MISSING]
        if told:
            raise told[0]
        hints = [fault.args[1] for fault in faults if fault.args[1]]
        detail = hints[0] if hints else f"there is no recording {places[0]!r}; add it, or remove the line"
        if "\\" in name and not hints:
            detail = f"there is no recording {places[0]!r}; write / for \\ in its path"
        raise Fault(MISSING, detail)

    def relative(self, name: str) -> str:
        """A path as it is from the root, where it is an absolute one of the corpus; else as it is."""
        if not os.path.isabs(name):
            return name
        place = os.path.normpath(name)
        for base in (self._root, self._allowed[0]):
            place = place.removeprefix(base + os.sep)
        return place

    def again(self, name: str, what: str) -> str:
        """The path of a recording that was found before, by what :meth:`relative` gave of it.

        ``what`` names the file and entry that it comes from. Raises InputError when it is outside.
        """
        path = os.path.join(self._root, os.path.normpath(name))
        real = os.path.realpath(split_address(path)[0])
        if not self._is_allowed(real):
            raise InputError(
                f"{what}: the path {name!r} leaves {self._root}; put a link to its folder into that folder"
            )
        return path

    def _find(self, path: str) -> str:
        path, cell = split_address(path)
        folder, name = os.path.split(path)
        folder, files = self._files(folder)
        # Two files may differ in their spelling only.
        name_as_listed, name = name, unicodedata.normalize("NFC", name)
        stem, suffix = split_suffix(name)
        by_name = sorted(file for file in files.get(stem, []) if split_suffix(file)[1] == suffix)
        by_id = [file for file in files.get(name, []) if split_suffix(file)[1] in AUDIO_SUFFIXES]
        if suffix and by_name:
            found = name_as_listed if name_as_listed in by_name else by_name[0]
        elif by_id:
            found = min(by_id, key=lambda file: (AUDIO_SUFFIXES.index(split_suffix(file)[1]), file))
        elif by_name:
            found = by_name[0]
        else:
            raise Fault(MISSING, self._hint(folder, path, files.get(stem, [])))
        place = os.path.join(folder, found)
        if split_suffix(found)[1] in OTHER_SUFFIXES:
            raise Fault(_UNREAD, self._unread(folder, found))
        if os.path.islink(place):
            real = os.path.realpath(place)
            self._check(real, place, os.path.dirname(real))
        return place + cell

    def _linked_folders(self) -> list[str]:
        """Where links to folders lead that lie in the root itself, as ``wavs`` of a corpus whose recordings
        are on another disk: who made the link has named that folder. Deeper ones, those of files, and those
        to a folder that the root lies in say too little.
        """
        with os.scandir(self._root) as entries:
            links = [entry.path for entry in entries if entry.is_symlink() and entry.is_dir()]
        found = [os.path.realpath(link) for link in links]
        return [
            real
            for real in found
            if not f"{self._allowed[0]}{os.sep}".startswith(real.rstrip(os.sep) + os.sep)
        ]

    def _files(self, folder: str) -> tuple[str, _Files]:
        """The folder as it is spelt on disk, and its files; none for one that is not there."""
        if folder not in self._folders:
            spelt = self._spelt(folder)
            real = os.path.realpath(spelt)
            self._check(real, folder, real)
            files: _Files = {}
            if os.path.isdir(real):
                with os.scandir(real) as entries:
                    for entry in entries:
                        if entry.is_file():
                            stem = split_suffix(unicodedata.normalize("NFC", entry.name))[0]
                            files.setdefault(stem, []).append(entry.name)
            self._folders[folder] = spelt, files
        return self._folders[folder]

    def _spelt(self, folder: str) -> str:
        """A folder as it is spelt on disk, where it lies below the root."""
        if os.path.isdir(folder) or not folder.startswith(self._root + os.sep):
            return folder
        parent, name = os.path.split(folder)
        parent = self._spelt(parent)
        if not (self._is_allowed(os.path.realpath(parent)) and os.path.isdir(parent)):
            return folder
        wanted = unicodedata.normalize("NFC", name)
        same = (other for other in os.listdir(parent) if unicodedata.normalize("NFC", other) == wanted)
        return os.path.join(parent, next(same, name))

    def _is_allowed(self, real: str) -> bool:
        return any(f"{real}{os.sep}".startswith(folder.rstrip(os.sep) + os.sep) for folder in self._allowed)

    def _check(self, real: str, path: str, folder: str) -> None:
        if not self._is_allowed(real):
            shown = path.removeprefix(self._root + os.sep)
            raise Fault(
                "path outside the corpus",
                f"{shown!r} leads to {real!r}, outside the corpus folder; use a path inside it, or allow the "
                f"other folder: --allow-root {folder}",
            )

    def _hint(self, folder: str, path: str, beside: list[str]) -> str:
        if not beside:
            return ""
        found = sorted(beside)[0]
        if split_suffix(found)[1] in OTHER_SUFFIXES:
            return self._unread(folder, found)
        return (
            f"there is no recording {os.path.relpath(path, self._root)!r}, but {found!r} is there; correct "
            "the listing"
        )

    def _unread(self, folder: str, name: str) -> str:
        place = os.path.relpath(os.path.join(folder, name), self._root)
        stem = split_suffix(name)[0]
        return f"{place!r} is of a format that is not read; convert it: ffmpeg -i {name} {stem}.wav"
