-- One row: the epoch in which positions are given now.
CREATE TABLE change_epoch (
    id    INTEGER NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT;

INSERT INTO change_epoch (id, epoch) VALUES (1, abs(random() / 2));

-- Epochs that have ended, and the last change that the store held then.
CREATE TABLE change_epochs_ended (
    epoch    INTEGER NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL,
    ended_at INTEGER NOT NULL
) STRICT;
