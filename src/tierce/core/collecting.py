"""How often the interpreter looks for garbage in cycles."""

import gc

from tierce.core.limits import GARBAGE_OBJECTS


def collect_seldom() -> None:
    """Look seldom, in this process.

    A program that starts loads a hundred thousand objects, and all stay: looking through them as often
    as is usual took a tenth of the start. Requests leave little to collect, and looking for it in
    between made the slowest hundredth of them wait half as long again.
    """
    gc.set_threshold(GARBAGE_OBJECTS, 20, 50)
