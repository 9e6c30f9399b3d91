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
INDEX_MARGIN_BYTES = 4 * MIB
SPACE_CHECK_SECONDS = 1.0
SPACE_NEAR_BYTES = 4 * GIB

# The layout of large blobs on disk (docs/disk-format.md); never change these without a new version
CHUNK_BYTES = 256 * KIB

# Streaming: how much of a large blob is hashed, written or sent at a time
PIECE_BYTES = 1 * MIB
WRITEBACK_BYTES = 4 * MIB
DISK_THREADS = 8

# Group commit
BATCH_LIMIT_WRITES = 1024
BATCH_LIMIT_BYTES = 32 * MIB
LMDB_MAP_BYTES = 1 << 40
LMDB_READERS = 1024

# A store in the cloud
CLOUD_WHOLE_READ_BYTES = 1 * MIB
STORE_CACHE_BYTES = 1 * GIB
# What a small file takes on the disk.
STORE_CACHE_BLOCK_BYTES = 4 * KIB
# No entry is larger than this part of a process's share.
STORE_CACHE_ENTRY_PART = 4
STORE_CACHE_WAITING_BYTES = 16 * MIB
# The cache stays so far away from the reserve of the disk.
STORE_CACHE_MARGIN_BYTES = 64 * MIB
STORE_CACHE_TEND_SECONDS = 10.0
STORE_CACHE_TELL_SECONDS = 1.0
STORE_BACKGROUND_REQUESTS_PER_SECOND = 100.0
# Services for people's files allow few requests: Google Drive about 10 changes a second, OneDrive so
# many over five minutes; Dropbox does not say.
DRIVE_REQUESTS_PER_SECOND = 10.0
CLOUD_RANGE_BYTES = 4 * MIB
# What all readers of large blobs hold at once in a process; beyond that, each has a piece so small.
CLOUD_READING_BYTES = 256 * MIB
CLOUD_TIGHT_BYTES = 256 * KIB
CLOUD_WAIT_SECONDS = 5.0
CLOUD_POLL_SECONDS = 0.05
# How long an upload waits for another one of the same blob before both go on.
CLOUD_TURN_SECONDS = 30.0
# How long a reader waits for the store before other nodes are asked too, and who deletes for the object
# to go.
CLOUD_LATE_SECONDS = 2.0
# A request that was given up may be carried out for so long.
CLOUD_SETTLE_SECONDS = 60.0
CLOUD_DELETE_AT_ONCE = 8
CLOUD_TEND_SECONDS = 5.0
CLOUD_LEFT_PAGE = 256
CLOUD_LIST_PAGE = 1000
# So old is the part file of an upload that was broken off.
CLOUD_PART_SECONDS = 24 * 3600.0
CLOUD_OWNER_BYTES = 4096
# Nothing is deleted from a bucket unless it was seen so lately that it is still this node's.
CLOUD_OWNER_SECONDS = 60.0
CLOUD_COMPARE_SECONDS = 24 * 3600.0
# How long a service may take until its listing has what was put.
CLOUD_LISTED_SECONDS = 3600.0
# The scrub of a store in the cloud is paid for by the request, and often by the byte.
CLOUD_SCRUB_INTERVAL_SECONDS = 2.0
CLOUD_SCRUB_BYTES_PER_SECOND = 256 * KIB
# And where it reads all, the next pass begins so long after the last one.
CLOUD_SCRUB_REST_SECONDS = 7 * 24 * 3600.0
CLOUD_LIST_AT_ONCE = 8
CLOUD_EXAMINE_AT_ONCE = 8
# After so long an object is read whole again, though its tag has not changed.
CLOUD_REREAD_SECONDS = 180 * 24 * 3600.0
# After so long without a comparison with the listing, tags prove nothing.
CLOUD_VOUCHED_SECONDS = 3 * 24 * 3600.0

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

# Callers who send too many requests
RATE_BURST_SECONDS = 5.0
RATE_TABLE_PLACES = 65_536
RATE_TABLE_WAYS = 4

# Processes
DRAIN_TIMEOUT_SECONDS = 30.0
RESTART_BACKOFF_MIN_SECONDS = 0.2
RESTART_BACKOFF_MAX_SECONDS = 30.0
RESTART_FORGIVEN_AFTER_SECONDS = 60.0
WORKERS_MAX = 256
SWITCH_INTERVAL_SECONDS = 0.0001
GARBAGE_OBJECTS = 20_000

# The agent
SCRUB_INTERVAL_SECONDS = 0.05
SCRUB_PAGE_BLOBS = 256
SCRUB_REST_SECONDS = 600.0
SCRUB_BYTES_PER_SECOND = 20 * MIB
AGENT_ANSWER_SECONDS = 1.0
AGENT_ORDER_SECONDS = 15.0
VIEW_LOOK_SECONDS = 0.2
VIEW_WRITE_SECONDS = 0.05
VIEW_WAIT_SECONDS = 60.0

# The cluster: placement
REPLICATION_AUTO_MAX = 3
REPLICATION_MAX = 32
RING_POINTS = 128
ORDERS_REMEMBERED = 200_000
RING_POINTS_MAX = 4096
WEIGHT_MIN = 0.05
WEIGHT_MAX = 100.0

# The cluster: gossip
GOSSIP_PERIOD_SECONDS = 1.0
GOSSIP_PROBE_SECONDS = 0.5
GOSSIP_INDIRECT_PROBES = 3
GOSSIP_UPDATES_COUNT = 12
GOSSIP_SYNC_SECONDS = 30.0
GOSSIP_SYNC_SECONDS_PER_MEMBER = 0.5
GOSSIP_SUSPICION_PERIODS = 4.0
GOSSIP_MEMORY_SECONDS = 7 * 24 * 3600.0
GOSSIP_RETRANSMITS = 6
GOSSIP_PAUSE_PERIODS = 3.0
GOSSIP_FAREWELLS_COUNT = 5
GOSSIP_FAREWELL_SECONDS = 1.0
GOSSIP_REFUSAL_LOG_SECONDS = 60.0
JOIN_BACKOFF_MIN_SECONDS = 0.5
JOIN_BACKOFF_MAX_SECONDS = 30.0
DOWN_GRACE_SECONDS = 300.0

# The cluster: requests between nodes
SIGNATURE_WINDOW_SECONDS = 60.0
PEER_CONNECT_SECONDS = 2.0
PEER_ANSWER_SECONDS = 5.0
PEER_STALL_SECONDS = 10.0
PEER_PROOF_BYTES_PER_SECOND = 10 * MIB
PEER_MESSAGE_BYTES = 40 * MIB
PEER_BATCH_BYTES = 8 * MIB
PEER_BATCH_BLOBS = 512
PEER_BATCHES_IN_FLIGHT = 1
PEER_GATHER_SECONDS = 0.002
PEER_AVOIDED_SECONDS = 5.0
READ_HEDGE_SECONDS = 0.1
READ_TOTAL_SECONDS = 30.0
WRITE_HEDGE_SECONDS = 2.0

# The cluster: healing
HEAL_BYTES_PER_SECOND = 100 * MIB
SURVEY_PAGE_BLOBS = 1024
SURVEY_SECOND_LOOK_SECONDS = 1.0
SURVEY_BLOBS_PER_SECOND = 5_000
SURVEY_REST_SECONDS = 5.0
SURVEY_REST_FACTOR = 10.0
SURVEY_REST_MAX_SECONDS = 600.0
SURVEY_UNSETTLED_SECONDS = 2.0
SURVEY_UNSETTLED_FACTOR = 3.0
SURVEY_UNSETTLED_MAX_SECONDS = 30.0
WRITABLE_CHECK_SECONDS = 1.0
HEAL_QUEUE_BLOBS = 50_000
HINT_REST_SECONDS = 10.0
HEAL_SMALL_AT_ONCE = 256
HEAL_LARGE_AT_ONCE = 4
PROOF_BYTES = 256 * MIB
PROOF_SECONDS = 30.0
DELETED_MEMORY_SECONDS = 600.0
RECORD_COMES_SECONDS = 60.0

# Named objects: what clients may send and ask for
BUCKET_BYTES = 63
OBJECT_KEY_BYTES = 1024
METADATA_BYTES = 2048
# Each is a header of an answer, and many clients refuse one with more than 100 headers.
METADATA_ENTRIES_COUNT = 64
CONTENT_TYPE_BYTES = 1024
# Names and metadata may be long, so a page of objects is shorter than one of blobs may be.
OBJECTS_LIMIT_MAX = LIST_LIMIT_DEFAULT
CHANGES_POLL_SECONDS = 0.05
CHANGES_WAIT_MAX_SECONDS = 60.0
# How soon a request that waits for changes notices that its client is gone, or the node stops.
CHANGES_NOTICE_SECONDS = 0.25

# Named objects: the Python client
# Names and metadata may be long: so many entries stay within what an answer may have.
PAGE_OBJECTS = 500
# Well below the time after which a silent server is given up.
CHANGES_WAIT_SECONDS = 30

# Named objects: the index
INDEX_KEY_BYTES = 400
# In the year 2116. A clock that is at the end of its numbers could not go on.
TIMESTAMP_LIMIT_NANOSECONDS = 1 << 62
DAY_SECONDS = 24 * 3600
DAY_NANOSECONDS = DAY_SECONDS * 10**9
EPOCHS_COUNT = 1000
REFERENCES_COUNT = 100
# How many records are merged in one transaction: others who write wait for so long.
MERGE_CHUNK_RECORDS = 2000
# What a change of a record writes, about, for the limit of a batch.
RECORD_ABOUT_BYTES = 512
# How many records are read at first, where keys may fold: more than one is often read in vain.
FOLDED_PAGE_RECORDS = 16

# Named objects: deletion
TOMBSTONE_DAYS = 30.0
COLLECT_GRACE_SECONDS = 3600.0
COLLECT_INTERVAL_SECONDS = 10.0
COLLECT_PAGE_BLOBS = 512
PURGE_SECONDS = 3600.0

# Records between nodes: how often, and how fast
PUSH_POLL_SECONDS = 0.05
SYNC_SECONDS = 10.0
RANGE_CHECK_SECONDS = 600.0
SYNC_RECORDS_PER_SECOND = 20_000
CHECK_RECORDS_PER_SECOND = 5_000
# With more changes than this to read, a node compares ranges of names in place of reading them.
COMPARE_ABOVE_CHANGES = 5_000

# Records between nodes: what a message may hold. A record may have more in it than clients may send.
SYNC_MESSAGE_BYTES = 8 * MIB
PUSH_RECORDS = 4000
FIRST_PULL_RECORDS = 500
PULL_RECORDS = 2000
RANGE_RECORDS = 1000
RANGE_READ_RECORDS = 4000
RANGES_IN_MESSAGE = 8
READERS_COUNT = 10_000
NODE_ID_BYTES = 255
NAME_BYTES = 4096
METADATA_IN_RECORD_BYTES = 64 * KIB
DAMAGED_NOTED_COUNT = 10_000
NUMBER_MAX = (1 << 63) - 1

# The near-cache and its upstream
FULL_PATIENCE_SECONDS = 15.0
FULL_RETRY_SECONDS = 0.25
FILL_SECONDS = 900.0
COPY_AT_ONCE = 8
COPY_PAGE_RECORDS = 512
COPY_POLL_SECONDS = 0.2
COPY_RETRY_SECONDS = 5.0
FOLLOW_SAVE_SECONDS = 2.0
FOLLOW_HELD_SECONDS = 1.0
MEND_TRIES_COUNT = 4
# How many objects that another node has replaced are looked at in the upstream; more are left out.
OVERTAKEN_COUNT = 1000
LOOK_THROUGH_SECONDS = 600.0
LOOK_THROUGH_PAUSE_SECONDS = 0.05
UPLOAD_AT_ONCE = 4

# The near-cache: what it drops (docs/decisions/0012-eviction.md)
SMALL_QUEUE_PERCENT = 10
PROMOTED_HITS_COUNT = 2
GHOSTS_MIN_COUNT = 10_000
STALE_MIN_COUNT = 16

# The objstore door
SNIFFED_BYTES = 512
MESSAGE_KEPT_BYTES = 8 * KIB
SYNC_LIMIT_RECORDS = 100_000
SYNC_PAGE_RECORDS = 1000

# Looking into media files
MEDIA_SECONDS = 20.0
MEDIA_AT_ONCE = 2
MEDIA_READ_BYTES = 256 * MIB
MEDIA_OUTPUT_BYTES = 1 * MIB
MEDIA_KEPT_COUNT = 256

# The SOS doors
SOS_ID_CHARACTERS = 255
SOS_IDS_AT_ONCE = 500

# The dtfc door
DTFC_ANSWER_SECONDS = 10.0
DTFC_STALL_SECONDS = 20.0
DTFC_HEDGE_SECONDS = 0.3
DTFC_PEERS_COUNT = 100
DTFC_PEER_LIST_BYTES = 256 * KIB
DTFC_LOADS_AT_ONCE = 16
DTFC_SEARCHES_AT_ONCE = 100
DTFC_READERS_COUNT = 1000
DTFC_PROGRESS_SECONDS = 10.0
DTFC_DELETE_SECONDS = 3.0
DTFC_RETRY_MIN_SECONDS = 2.0
DTFC_RETRY_MAX_SECONDS = 300.0
DTFC_RETRY_AFTER_SECONDS = 120
