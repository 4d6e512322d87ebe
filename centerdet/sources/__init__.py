"""Folders, globs, videos, webcams, URLs and standard input as one stream of images."""

from .paths import VIDEO_SUFFIXES, list_files
from .streams import Found, Sources, is_live, is_url, open_sources

__all__ = ["VIDEO_SUFFIXES", "Found", "Sources", "is_live", "is_url", "list_files", "open_sources"]
