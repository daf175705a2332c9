-- Who has begun a send, and whether the provider was about to be called. A record that was begun and not called is
-- certainly not sent, whatever became of who began it. Records of earlier versions may have been called.
ALTER TABLE sends ADD COLUMN claim BLOB;
ALTER TABLE sends ADD COLUMN called INTEGER NOT NULL DEFAULT 1 CHECK (called IN (0, 1));
