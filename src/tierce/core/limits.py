"""Every bound of the system, each with its unit in its name.

Those that an operator may want to change are defaults of a setting of the same name in lower case.
"""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# Blobs and the disk
BLOB_LIMIT_BYTES = 5 * GIB
PACK_LIMIT_BYTES = 64 * KIB
PACK_LIMIT_MAX_BYTES = 16 * MIB
RESERVE_BYTES = 1 * GIB
RESERVE_PERCENT = 5
SPACE_CHECK_SECONDS = 1.0

# The layout of large blobs on disk (docs/disk-format.md); never change these without a new version
CHUNK_BYTES = 256 * KIB

# Streaming: how much of a large blob is hashed, written or sent at a time
PIECE_BYTES = 1 * MIB
DISK_THREADS = 8

# Group commit
BATCH_LIMIT_WRITES = 1024
BATCH_LIMIT_BYTES = 32 * MIB
LMDB_MAP_BYTES = 1 << 40
LMDB_READERS = 1024

# Requests
HEADER_LINE_BYTES = 8190
HEADERS_COUNT = 100
RANGES_COUNT = 32
LIST_LIMIT_DEFAULT = 1000
LIST_LIMIT_MAX = 10_000
FORM_LIMIT_BYTES = 64 * KIB
MULTIPART_PREAMBLE_BYTES = 64 * KIB

# Slow and idle clients
MIN_PROGRESS_BYTES_PER_SECOND = 1024
PROGRESS_WINDOW_SECONDS = 20.0
HEADER_TIMEOUT_SECONDS = 20.0
IDLE_TIMEOUT_SECONDS = 75.0

# Processes
DRAIN_TIMEOUT_SECONDS = 30.0
RESTART_BACKOFF_MIN_SECONDS = 0.2
RESTART_BACKOFF_MAX_SECONDS = 30.0
RESTART_FORGIVEN_AFTER_SECONDS = 60.0
WORKERS_MAX = 256

# The agent
SCRUB_PAGE_BLOBS = 256
SCRUB_BYTES_PER_SECOND = 20 * MIB
AGENT_ANSWER_SECONDS = 1.0
