"""Download the four files of a data set with TFDS: `python -m cnnjax.data.tfds_download NAME DIRECTORY`.

This runs in a process of its own, which can be killed: TFDS's downloader has no time limit, retries for
minutes, and its threads outlive the call. TFDS's checksums are enforced.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urljoin, urlparse

from cnnjax.data.idx import FILES
from cnnjax.errors import one_line

FIRST_ANSWER_SECONDS = 8


def _give_up(reason: str) -> NoReturn:
    print(reason, flush=True)
    os._exit(1)  # do not wait for the downloader's threads


def _watch(directory: Path, host: str) -> None:
    # TFDS creates a file when the first response arrives.
    time.sleep(FIRST_ANSWER_SECONDS)
    if not any(path.is_file() for path in directory.rglob("*")):
        _give_up(f"no answer from {host} in {FIRST_ANSWER_SECONDS} s")


def download(name: str, directory: Path) -> None:
    """Download the four .gz files of a data set; if that fails, print why and exit the process."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = 1
    builder: Any = tfds.builder_cls(name)
    host = urlparse(builder.URL).netloc
    threading.Thread(target=_watch, args=(directory, host), daemon=True).start()
    manager = tfds.download.DownloadManager(
        download_dir=directory, url_infos=builder.url_infos, force_checksums_validation=True
    )
    try:
        paths = manager.download({file: urljoin(builder.URL, f"{file}.gz") for file in FILES})
    except requests.RequestException as error:
        _give_up(f"cannot reach {host} ({type(error).__name__})")
    except Exception as error:
        _give_up(f"{type(error).__name__}: {one_line(error)}")
    for file, path in paths.items():
        os.replace(path, directory / f"{file}.gz")


if __name__ == "__main__":
    download(sys.argv[1], Path(sys.argv[2]))
