-- Who has begun a send, and whether the provider was about to be called. A record that was begun and not called is
-- certainly not sent, whatever became of who began it. Records of earlier versions may have been called.
ALTER TABLE sends ADD COLUMN claim bytea;
ALTER TABLE sends ADD COLUMN called boolean NOT NULL DEFAULT true;
