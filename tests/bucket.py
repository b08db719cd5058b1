"""A stand-in for remote storage."""

import os
import shutil
from pathlib import Path

import blobfile


class Bucket:
    """Stands for blobfile with a bucket at gs://bucket that lies in a local folder."""

    Error = blobfile.Error
    basename, join = staticmethod(blobfile.basename), staticmethod(blobfile.join)

    def __init__(self, folder):
        self.folder = folder

    def configure(self, **_options):
        pass

    def local(self, url):
        return self.folder / url.removeprefix("gs://bucket/")

    def isdir(self, url):
        return self.local(url).is_dir()

    def exists(self, url):
        return self.local(url).exists()

    def copy(self, url, target):
        shutil.copy(self.local(url), target)

    def walk(self, url):
        for parent, folders, names in os.walk(self.local(url)):
            yield "gs://bucket/" + str(Path(parent).relative_to(self.folder)), folders, names
