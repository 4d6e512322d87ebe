"""Folders, globs, videos, webcams and URLs as one stream of images."""

from .streams import VIDEO_SUFFIXES, Found, Sources, is_live, is_url, list_files, open_sources

__all__ = ["VIDEO_SUFFIXES", "Found", "Sources", "is_live", "is_url", "list_files", "open_sources"]
