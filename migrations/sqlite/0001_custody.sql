-- The present state of each OTP, folded from its events, and the event that won, byte for byte. Times are microseconds
-- since 1970; costs are exact decimals as text, without trailing zeros.
CREATE TABLE deliveries (
    id           TEXT NOT NULL PRIMARY KEY,
    -- Not known, like carrier and cost, where nothing but a caller's word has told of it.
    phone        TEXT,
    carrier      TEXT,
    status       TEXT NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    cost         TEXT,
    error_code   TEXT,
    created_at   INTEGER,
    completed_at INTEGER,
    received_at  INTEGER NOT NULL,
    -- Set when the id is first seen and never again: lists are sorted by it.
    listed_at    INTEGER NOT NULL,
    source       TEXT NOT NULL CHECK (source IN ('webhook', 'poll', 'send')),
    -- The rank of the event that won; the greater bytes win. The last 32 are the digest of its body.
    standing     BLOB NOT NULL,
    kind         TEXT NOT NULL,
    body         BLOB NOT NULL,
    -- None for what nobody signed.
    signature    BLOB,
    -- How many times that event came.
    times        INTEGER NOT NULL
) STRICT;

-- No index holds the id: the few deliveries of one time are put in order when they are read, and what is written for
-- each delivery is a third less.

-- Lists without a filter, by status and by time read this one, one range for each of the three statuses.
CREATE INDEX deliveries_by_status ON deliveries (status, listed_at);
-- Likewise lists by carrier, so that a carrier's rare status is found at once.
CREATE INDEX deliveries_by_carrier ON deliveries (carrier, status, listed_at);
CREATE INDEX deliveries_by_phone ON deliveries (phone, listed_at);
-- Most deliveries have no error code and cost nothing here.
CREATE INDEX deliveries_by_error_code ON deliveries (error_code, listed_at) WHERE error_code IS NOT NULL;

-- The events that did not win, likewise byte for byte. Most deliveries have none.
CREATE TABLE older_events (
    delivery_id TEXT NOT NULL,
    digest      BLOB NOT NULL,
    body        BLOB NOT NULL,
    signature   BLOB,
    kind        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    source      TEXT NOT NULL CHECK (source IN ('webhook', 'poll', 'send')),
    received_at INTEGER NOT NULL,
    times       INTEGER NOT NULL,
    PRIMARY KEY (delivery_id, digest)
) STRICT;

-- What was verified and not understood. Nothing is known of it but its bytes, so that their digest is the key.
CREATE TABLE quarantine (
    digest      BLOB NOT NULL PRIMARY KEY,
    body        BLOB NOT NULL,
    signature   BLOB NOT NULL,
    reason      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    times       INTEGER NOT NULL
) STRICT;

CREATE INDEX quarantine_by_time ON quarantine (received_at, digest);

-- The hours of `deliveries.listed_at` that statistics know of. Who changes what is counted of an hour that is long over
-- first sets it back here, in the same transaction, so that it is summed up anew.
CREATE TABLE hours (
    hour   INTEGER NOT NULL PRIMARY KEY,
    -- Who was the last to begin to sum it up, if nothing of it has changed since.
    claim  BLOB,
    -- Whether `hour_counts` has all of it.
    summed INTEGER NOT NULL CHECK (summed IN (0, 1))
) STRICT;

CREATE INDEX hours_to_sum_up ON hours (hour) WHERE NOT summed;

-- The deliveries of an hour, those counted together that are alike in all that statistics tell apart.
CREATE TABLE hour_counts (
    hour       INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    carrier    TEXT,
    status     TEXT NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    error_code TEXT,
    cost       TEXT,
    -- The whole seconds from `created_at` to `completed_at`, and the longest of these times; none for those under way.
    second     INTEGER,
    longest    INTEGER,
    count      INTEGER NOT NULL,
    PRIMARY KEY (hour, part)
) STRICT, WITHOUT ROWID;

-- Sends that went through here, each on record before the provider was called. Its outcome is null while it is under
-- way, and for ever if the service had an end in the middle of it.
CREATE TABLE sends (
    key         TEXT NOT NULL PRIMARY KEY,
    -- A keyed hash of the phone and the code, which is kept nowhere.
    fingerprint BLOB NOT NULL,
    phone       TEXT NOT NULL,
    began_at    INTEGER NOT NULL,
    outcome     TEXT CHECK (outcome IN ('accepted', 'refused', 'unclear')),
    -- The provider's answer, or the word of its refusal.
    answer      BLOB,
    deposit_url TEXT
) STRICT;

CREATE INDEX sends_to_forget ON sends (began_at) WHERE outcome IN ('accepted', 'refused');

-- Deliveries that the provider is to be asked for, unless a webhook comes first: each that was still on its way when it
-- was committed. The row goes when the delivery is found settled, or too old.
CREATE TABLE polls (
    delivery_id TEXT NOT NULL PRIMARY KEY,
    -- As the delivery's own.
    listed_at   INTEGER NOT NULL,
    -- When it is to be asked for again; null until it is for the first time.
    next_at     INTEGER,
    attempts    INTEGER NOT NULL
) STRICT;

CREATE INDEX polls_first ON polls (listed_at) WHERE next_at IS NULL;
CREATE INDEX polls_again ON polls (next_at) WHERE next_at IS NOT NULL;

-- One row: until when the replica that polls has its turn. So all replicas together keep one pace.
CREATE TABLE poll_turn (
    id      INTEGER NOT NULL PRIMARY KEY,
    free_at INTEGER NOT NULL
) STRICT;

INSERT INTO poll_turn (id, free_at) VALUES (1, 0);

-- What changed, a row for each transaction, for those who follow: the deliveries that are shown otherwise since.
CREATE TABLE changes (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    -- A JSON array.
    ids      TEXT NOT NULL,
    noted_at INTEGER NOT NULL
) STRICT;

-- One row: the last position whose changes have been deleted.
CREATE TABLE changes_forgotten (
    id       INTEGER NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT;

INSERT INTO changes_forgotten (id, position) VALUES (1, 0);
