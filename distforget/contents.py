"""Identifies contents that share a name: digests of files, versions of packages."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from distforget.errors import UsageError


def digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: str, field: str) -> str:
    """sha256 of the file that a study names.

    Raises:
        UsageError: it is not there; names the field.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise UsageError(f"{field}: no file {place}")
    return digest(place)


def package_version(package: str, field: str) -> str:
    """Version of an installed package that a study needs.

    Raises:
        UsageError: it is not installed; says how to install it.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"{field} needs the package {package}; install it with: pip install --no-deps {package}"
        ) from error


def path_digests(path: str, field: str) -> object:
    """sha256 of a file, or of each file in a folder by its relative name.

    Hidden files are skipped.

    Raises:
        UsageError: there is neither; names the field.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        return file_digest(path, field)
    files = [p for p in sorted(place.rglob("*")) if p.is_file()]
    names = {p: p.relative_to(place) for p in files}
    return {
        name.as_posix(): digest(p)
        for p, name in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }
