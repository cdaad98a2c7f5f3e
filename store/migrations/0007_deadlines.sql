-- What entries of a log are to lose, and when. Only messages with an expiry and tombstones have a row. The shard key is the conversation.
-- From here on entries.tombstone is also 2: the body is the SHA-256 of a message whose time was over.
-- +goose Up
CREATE TABLE deadlines (
  conversation BYTEA  NOT NULL,
  seq          BIGINT NOT NULL,
  due          BIGINT NOT NULL, -- ms
  step         BIGINT NOT NULL, -- 1: the message becomes a tombstone; 2: the tombstone forgets sender and dedup key
  PRIMARY KEY (conversation, seq)
);
CREATE INDEX deadlines_due ON deadlines (due, conversation, seq);

-- +goose Down
DROP TABLE deadlines;
