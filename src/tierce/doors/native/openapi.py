"""placeholder until the document is written below"""

from typing import Any


def document(version: str) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Tierce", "version": version}, "paths": {}}
