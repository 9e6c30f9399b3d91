"""The native door: Tierce's own HTTP API, under ``/v1``. docs/native-api.md describes it."""
