"""How many requests a second each process of a node may send to its store, from the node's settings."""

from tierce.cloud.pacing import RequestPace
from tierce.core.limits import DRIVE_REQUESTS_PER_SECOND
from tierce.core.settings import Settings

_DRIVES = ("aliyun-drive", "dropbox", "gdrive", "koofr", "onedrive", "pcloud", "yandex-disk")
"""Services for people's files, which allow few requests."""


def pace_of(settings: Settings) -> RequestPace:
    """The pace of one process: each of the node's, the agent too, has its share.

    Background work is the agent's alone.
    """
    per_second = settings.store_requests_per_second
    if per_second is None:
        is_drive = settings.store.partition("://")[0] in _DRIVES
        per_second = DRIVE_REQUESTS_PER_SECOND if is_drive else 0.0
    processes = 1 if settings.workers == 1 else settings.workers + 1
    background = settings.store_background_requests_per_second
    return RequestPace(per_second / processes, background_per_second=background)
