-- One row: the epoch in which positions are given now.
CREATE TABLE change_epoch (
    id          integer NOT NULL PRIMARY KEY,
    epoch       bigint NOT NULL,
    -- When the server was started that it began on, and which of its databases it is: another one is another epoch.
    started_at  timestamptz NOT NULL,
    database_id bigint NOT NULL,
    -- A position is a transaction's number and this. It grows where a restored store meets lower numbers than those that
    -- it holds, so that positions never go back.
    shift       bigint NOT NULL
);

-- No server was ever started then: the first writer begins an epoch.
INSERT INTO change_epoch (id, epoch, started_at, database_id, shift)
VALUES (1, (random() * 9000000000000000000)::bigint, '-infinity', 0, 0);

-- Epochs that have ended, and the last change that the store held then.
CREATE TABLE change_epochs_ended (
    epoch    bigint NOT NULL PRIMARY KEY,
    position bigint NOT NULL,
    ended_at timestamptz NOT NULL
);
