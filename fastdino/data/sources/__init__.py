"""Where pictures come from."""

from fastdino.data.sources.folder import FolderSource
from fastdino.data.sources.iterable import IterableSource
from fastdino.data.sources.joined import Joined
from fastdino.data.sources.opening import open_source
from fastdino.data.sources.protocol import EXTENSIONS, FileTable, Source, announcing, file_table
from fastdino.data.sources.subset import Subset
from fastdino.data.sources.tar import TarSource

__all__ = [
    "EXTENSIONS",
    "FileTable",
    "FolderSource",
    "IterableSource",
    "Joined",
    "Source",
    "Subset",
    "TarSource",
    "announcing",
    "file_table",
    "open_source",
]
