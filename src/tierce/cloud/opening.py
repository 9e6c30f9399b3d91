"""From an address to an operator of OpenDAL, without asking the service anything yet."""

import os

import opendal

from tierce.cloud.address import Address
from tierce.cloud.failures import OPENDAL_ERRORS, translate
from tierce.cloud.leaving import leave_in_peace
from tierce.core.errors import BadRequest


def open_operator(address: Address, what: str, hint: str) -> opendal.AsyncOperator:
    """Raises BadRequest, with ``hint``, for options that it does not take. ``what``: see failures.py."""
    if address.service == "fs" and not os.path.isdir(root := address.options.get("root", "")):
        raise BadRequest(
            f"the {what}'s directory {root!a} is not there",
            hint="Make it, or mount what it is on. It is never made here: a disk that is not mounted "
            f"would look like an empty {what}.",
        )
    leave_in_peace()
    try:
        return opendal.AsyncOperator(address.service, **address.options)
    except OPENDAL_ERRORS as error:
        raise BadRequest(translate(error, "its URL was read", what).message, hint=hint) from None
