-- What the peers keep: one row for each OTP. No index beside the key: fewer are faster, and that is theirs to have.
CREATE TABLE deliveries (
    id           text PRIMARY KEY,
    phone        text NOT NULL,
    carrier      text NOT NULL,
    status       text NOT NULL,
    cost         numeric NOT NULL,
    error_code   text,
    created_at   timestamptz NOT NULL,
    completed_at timestamptz,
    raw          bytea NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now()
);
