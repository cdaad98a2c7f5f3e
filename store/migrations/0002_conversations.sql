-- Conversations and their logs. The shard key is the conversation, but for account_conversations (the account) and mailboxes (the
-- owner: an account, or a grant for its agent).
-- +goose Up
CREATE TABLE conversations (
  conversation BYTEA  NOT NULL PRIMARY KEY,
  kind         BIGINT NOT NULL, -- 0 private, 1 shared
  partner      TEXT   NOT NULL, -- of a shared thread
  created      BIGINT NOT NULL,
  epoch        BIGINT NOT NULL,
  epoch_seq    BIGINT NOT NULL, -- of the commit that began the epoch; 0 in epoch 0
  waiting      BYTEA  NOT NULL, -- leaves whose proposed removal must be committed: 4 bytes each, big endian
  founding     BYTEA  NOT NULL, -- MLSMessage(GroupInfo) of epoch 0
  roster       BYTEA  NOT NULL  -- snapshot of the public group, proposals of the epoch included
);

-- One row is one entry. There is no counter apart: the last sequence number is the greatest key.
CREATE TABLE entries (
  conversation BYTEA  NOT NULL,
  seq          BIGINT NOT NULL,
  kind         BIGINT NOT NULL,
  epoch        BIGINT NOT NULL,
  at           BIGINT NOT NULL,
  account      BYTEA  NOT NULL, -- who sent it, or for whom an agent did; empty: the server
  device       BYTEA  NOT NULL, -- empty: not a device
  dedup        BYTEA,           -- NULL: the server's own
  tombstone    BIGINT NOT NULL, -- 1: body is the SHA-256 of what stood there
  body         BYTEA  NOT NULL,
  extra        BYTEA  NOT NULL,
  PRIMARY KEY (conversation, seq)
);
CREATE UNIQUE INDEX entries_dedup ON entries (conversation, dedup);

CREATE TABLE members (
  conversation BYTEA  NOT NULL,
  account      BYTEA  NOT NULL,
  left_at_seq  BIGINT NOT NULL, -- 0: is a member; else the commit that removed its last device
  PRIMARY KEY (conversation, account)
);

CREATE TABLE account_conversations (
  account      BYTEA NOT NULL,
  conversation BYTEA NOT NULL,
  PRIMARY KEY (account, conversation)
);

-- A Welcome is stored once; mailboxes point to it.
CREATE TABLE welcomes (
  conversation BYTEA  NOT NULL,
  seq          BIGINT NOT NULL, -- of the commit that made it
  unread       BIGINT NOT NULL, -- mailboxes that still point here
  welcome      BYTEA  NOT NULL,
  PRIMARY KEY (conversation, seq)
);

CREATE TABLE mailboxes (
  owner        BYTEA  NOT NULL, -- account, or grant
  device       BYTEA  NOT NULL, -- empty: an agent
  id           BYTEA  NOT NULL, -- SHA-256 of the Welcome
  conversation BYTEA  NOT NULL,
  seq          BIGINT NOT NULL,
  PRIMARY KEY (owner, device, id)
);

-- +goose Down
DROP TABLE mailboxes;
DROP TABLE welcomes;
DROP TABLE account_conversations;
DROP TABLE members;
DROP TABLE entries;
DROP TABLE conversations;
