"""Every metric of the node, named once. docs/metrics.md explains them and a test keeps it whole.

Counters and histograms live in the process that counts. When a node runs several processes, the
environment variable PROMETHEUS_MULTIPROC_DIR is set before any of them starts, and the client
library keeps the values in files there, so that whichever worker is scraped answers for all.
Gauges are not kept here: they are read from the store when a scrape asks (see doors/native).
"""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("tierce_requests", "Requests answered.", ["door", "route", "method", "status"])
REQUEST_SECONDS = Histogram(
    "tierce_request_seconds",
    "Time from the request's headers to the end of its answer, in seconds.",
    ["door", "route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
RECEIVED_BYTES = Counter("tierce_received_bytes", "Bytes of blobs received.", ["door"])
SENT_BYTES = Counter("tierce_sent_bytes", "Bytes of blobs sent.", ["door"])
COMMITS = Counter("tierce_commits", "Transactions committed to the index, each with one sync.")
COMMIT_WRITES = Histogram(
    "tierce_commit_writes",
    "Writes that shared one commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
COMMIT_SECONDS = Histogram(
    "tierce_commit_seconds",
    "Time that one commit took, its sync included, in seconds.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
VERIFY_FAILURES = Counter(
    "tierce_verify_failures", "Copies found bad and moved to quarantine.", ["kind"]
)
DAMAGED_RECORDS = Counter(
    "tierce_damaged_records", "Damaged records of objects that a process came upon."
)
SLOW_CLIENTS = Counter(
    "tierce_slow_clients", "Connections ended for too little progress.", ["phase"]
)
WORKER_RESTARTS = Counter(
    "tierce_worker_restarts", "Processes of the node started again.", ["role"]
)
SCRUBBED_BLOBS = Counter("tierce_scrubbed_blobs", "Blobs verified in the background.")
SCRUBBED_BYTES = Counter("tierce_scrubbed_bytes", "Bytes verified in the background.")
HEALED_BLOBS = Counter("tierce_healed_blobs", "Copies given to other nodes and read back there.")
HEALED_BYTES = Counter("tierce_healed_bytes", "Bytes of copies given to other nodes.")
TRIMMED_BLOBS = Counter("tierce_trimmed_blobs", "Surplus copies removed from this node.")
EVICTED_BLOBS = Counter("tierce_evicted_blobs", "Blobs dropped from the near-cache for room.")
EVICTED_BYTES = Counter("tierce_evicted_bytes", "Bytes of blobs dropped from the near-cache.")
LOADED_FILES = Counter("tierce_loaded_files", "Files that were loaded from peers of dtfc.")
LOADED_BYTES = Counter("tierce_loaded_bytes", "Bytes of files that were loaded from peers of dtfc.")
STORE_REQUESTS = Counter(
    "tierce_store_requests",
    "Requests to the store's service, and how they ended.",
    ["kind", "result"],
)
STORE_READ_BYTES = Counter("tierce_store_read_bytes", "Bytes of blobs read from the store.")
STORE_WRITTEN_BYTES = Counter("tierce_store_written_bytes", "Bytes of blobs put into the store.")
STORE_CACHE_HITS = Counter(
    "tierce_store_cache_hits", "Reads of small blobs and of pieces that the store's cache answered."
)
STORE_CACHE_MISSES = Counter(
    "tierce_store_cache_misses", "Reads of small blobs and of pieces that the store's cache lacked."
)
SLOW_DOWNS = Counter("tierce_slow_downs", "Answers that a service is asked too much.", ["service"])
CIRCUIT_OPENED = Counter(
    "tierce_circuit_opened",
    "Times that a process left a service alone, after failures in a row.",
    ["service"],
)
REFUSED_REQUESTS = Counter(
    "tierce_refused_requests", "Requests of other nodes refused for their signature.", ["reason"]
)
