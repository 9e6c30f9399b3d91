"""The SOS doors: upload, download and blob server of Simple Object Storage."""
