"""The routes of the Cask door."""

from tierce.core.listen import Listen
from tierce.core.settings import Settings
from tierce.doors.native.errors import render_error
from tierce.doors.shared.door import Door
from tierce.doors.shared.router import Router
from tierce.service.access import Access
from tierce.service.blobs import Blobs
from tierce.service.status import StatusReporter


def cask_door(
    settings: Settings, listen: Listen, blobs: Blobs, access: Access, reporter: StatusReporter
) -> Door:
    return Door("cask", Router([]), render_error, log_requests=settings.access_log)
