"""A Python client for a node's native door. It imports the core only.

``Client`` is the asynchronous one, ``BlockingClient`` the same for plain code. Both verify what
they fetch against its digest, resume what was interrupted, and try again what may work later.
"""

from tierce.client.answers import Entry, Page, Stored
from tierce.client.blocking import BlockingClient
from tierce.client.client import Client
from tierce.client.downloads import Progress
from tierce.client.object_answers import (
    ChangesPage,
    FetchedObject,
    ObjectChange,
    ObjectInfo,
    ObjectPage,
)
from tierce.client.retrying import Retry

__all__ = [
    "BlockingClient",
    "ChangesPage",
    "Client",
    "Entry",
    "FetchedObject",
    "ObjectChange",
    "ObjectInfo",
    "ObjectPage",
    "Page",
    "Progress",
    "Retry",
    "Stored",
]
