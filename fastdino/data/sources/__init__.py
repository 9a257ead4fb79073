"""Where pictures come from."""

from fastdino.data.sources.folder import FolderSource
from fastdino.data.sources.opening import open_source
from fastdino.data.sources.protocol import EXTENSIONS, FileTable, Source, file_table
from fastdino.data.sources.subset import Subset

__all__ = ["EXTENSIONS", "FileTable", "FolderSource", "Source", "Subset", "file_table", "open_source"]
