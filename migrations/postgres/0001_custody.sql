-- Every text that is compared or indexed has the collation "C": an upgrade of the system's locales can't break it,
-- and it sorts as bytes, as the program does.

-- The present state of each OTP, folded from its events, and the event that won, byte for byte.
CREATE TABLE deliveries (
    -- The provider's, if it is a UUID as UUIDs are written; else one made of its text's digest, and the text beside. A
    -- large store's index of texts would be twice as large, and be written whole pages at a time.
    id           uuid NOT NULL PRIMARY KEY,
    text_id      text COLLATE "C",
    -- Not known, like carrier and cost, where nothing but a caller's word has told of it.
    phone        text COLLATE "C",
    carrier      text COLLATE "C",
    status       text COLLATE "C" NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    cost         numeric,
    error_code   text COLLATE "C",
    created_at   timestamptz,
    completed_at timestamptz,
    received_at  timestamptz NOT NULL,
    -- Set when the id is first seen and never again: lists are sorted by it.
    listed_at    timestamptz NOT NULL,
    source       text COLLATE "C" NOT NULL CHECK (source IN ('webhook', 'poll', 'send')),
    -- The rank of the event that won; the greater bytes win. The last 32 are the digest of its body.
    standing     bytea NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    body         bytea NOT NULL,
    -- None for what nobody signed.
    signature    bytea,
    -- How many times that event came.
    times        bigint NOT NULL
);

-- No index holds the id: the few deliveries of one time are put in order when they are read, and what is written for
-- each delivery is a third less.

-- Lists without a filter, by status and by time read this one, one range for each of the three statuses.
CREATE INDEX deliveries_by_status ON deliveries (status, listed_at);
-- Likewise lists by carrier, so that a carrier's rare status is found at once.
CREATE INDEX deliveries_by_carrier ON deliveries (carrier, status, listed_at);
-- Phones are many and come in no order, as ids do. Deliveries of one phone and month share a key, which makes the index
-- less than half as large; those of a month are put in order when they are read.
CREATE INDEX deliveries_by_phone ON deliveries (phone, date_trunc('month', listed_at AT TIME ZONE 'UTC'));
-- Most deliveries have no error code and cost nothing here.
CREATE INDEX deliveries_by_error_code ON deliveries (error_code, listed_at) WHERE error_code IS NOT NULL;

-- The events that did not win, likewise byte for byte. Most deliveries have none.
CREATE TABLE older_events (
    delivery_id uuid NOT NULL,
    digest      bytea NOT NULL,
    body        bytea NOT NULL,
    signature   bytea,
    kind        text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    source      text COLLATE "C" NOT NULL CHECK (source IN ('webhook', 'poll', 'send')),
    received_at timestamptz NOT NULL,
    times       bigint NOT NULL,
    PRIMARY KEY (delivery_id, digest)
);

-- What was verified and not understood. Nothing is known of it but its bytes, so that their digest is the key.
CREATE TABLE quarantine (
    digest      bytea NOT NULL PRIMARY KEY,
    body        bytea NOT NULL,
    signature   bytea NOT NULL,
    reason      text COLLATE "C" NOT NULL,
    detail      text NOT NULL,
    received_at timestamptz NOT NULL,
    times       bigint NOT NULL
);

CREATE INDEX quarantine_by_time ON quarantine (received_at, digest);

-- The hours of `deliveries.listed_at` that statistics know of. Who changes what is counted of an hour that is long over
-- first sets it back here, in the same transaction, so that it is summed up anew.
CREATE TABLE hours (
    hour   timestamptz NOT NULL PRIMARY KEY,
    -- Who was the last to begin to sum it up, if nothing of it has changed since.
    claim  bytea,
    -- Whether `hour_counts` has all of it.
    summed boolean NOT NULL
);

CREATE INDEX hours_to_sum_up ON hours (hour) WHERE NOT summed;

-- The deliveries of an hour, those counted together that are alike in all that statistics tell apart.
CREATE TABLE hour_counts (
    hour       timestamptz NOT NULL,
    part       bigint NOT NULL,
    carrier    text COLLATE "C",
    status     text COLLATE "C" NOT NULL CHECK (status IN ('sent', 'delivered', 'failed')),
    error_code text COLLATE "C",
    cost       numeric,
    -- The whole seconds from `created_at` to `completed_at`, and the longest of these times; none for those under way.
    second     bigint,
    longest    interval,
    count      bigint NOT NULL,
    PRIMARY KEY (hour, part)
);

-- Sends that went through here, each on record before the provider was called. Its outcome is null while it is under
-- way, and for ever if the service had an end in the middle of it.
CREATE TABLE sends (
    key         text COLLATE "C" NOT NULL PRIMARY KEY,
    -- A keyed hash of the phone and the code, which is kept nowhere.
    fingerprint bytea NOT NULL,
    phone       text COLLATE "C" NOT NULL,
    began_at    timestamptz NOT NULL,
    outcome     text COLLATE "C" CHECK (outcome IN ('accepted', 'refused', 'unclear')),
    -- The provider's answer, or the word of its refusal.
    answer      bytea,
    deposit_url text COLLATE "C"
);

CREATE INDEX sends_to_forget ON sends (began_at) WHERE outcome IN ('accepted', 'refused');

-- Deliveries that the provider is to be asked for, unless a webhook comes first: each that was still on its way when it
-- was committed. The row goes when the delivery is found settled, or too old.
CREATE TABLE polls (
    delivery_id uuid NOT NULL PRIMARY KEY,
    -- As the delivery's own.
    listed_at   timestamptz NOT NULL,
    -- When it is to be asked for again; null until it is for the first time.
    next_at     timestamptz,
    attempts    integer NOT NULL
);

CREATE INDEX polls_first ON polls (listed_at) WHERE next_at IS NULL;
CREATE INDEX polls_again ON polls (next_at) WHERE next_at IS NOT NULL;

-- One row: until when the replica that polls has its turn. So all replicas together keep one pace.
CREATE TABLE poll_turn (
    id      integer NOT NULL PRIMARY KEY,
    free_at timestamptz NOT NULL
);

INSERT INTO poll_turn (id, free_at) VALUES (1, now());

-- What changed, a row for each transaction, for those who follow: the deliveries that are shown otherwise since.
CREATE TABLE changes (
    -- The transaction's own number. Those below every one that is still under way are in order, and none comes between.
    position bigint NOT NULL PRIMARY KEY,
    ids      uuid[] NOT NULL,
    noted_at timestamptz NOT NULL
);

-- Ids hardly compress, and nobody asks for a part of a row.
ALTER TABLE changes ALTER COLUMN ids SET STORAGE EXTERNAL;

-- One row: the last position whose changes have been deleted.
CREATE TABLE changes_forgotten (
    id       integer NOT NULL PRIMARY KEY,
    position bigint NOT NULL
);

INSERT INTO changes_forgotten (id, position) VALUES (1, 0);
