-- +goose Up

-- The head of each chain of records: where the next one goes.
CREATE TABLE ledger_heads (
  account_id BYTEA  NOT NULL,
  partner    TEXT   NOT NULL,
  chain      BIGINT NOT NULL,
  n          BIGINT NOT NULL, -- of the last record
  leaf_hash  BYTEA  NOT NULL, -- of the last record
  at         BIGINT NOT NULL, -- never goes back along a chain
  PRIMARY KEY (account_id, partner, chain)
);

CREATE TABLE ledger_records (
  account_id BYTEA  NOT NULL,
  partner    TEXT   NOT NULL,
  chain      BIGINT NOT NULL,
  n          BIGINT NOT NULL,
  payload    BYTEA  NOT NULL, -- empty: erased
  salt       BYTEA  NOT NULL, -- empty: erased
  leaf       BYTEA  NOT NULL,
  leaf_hash  BYTEA  NOT NULL,
  vrf_proof  BYTEA  NOT NULL,
  PRIMARY KEY (account_id, partner, chain, n)
);

-- Leaves that wait for the log, written with their deed. shard is the account id, or the deed itself for public leaves.
CREATE TABLE ledger_outbox (
  shard BYTEA  NOT NULL,
  deed  BYTEA  NOT NULL, -- the label of a personal leaf, the leaf hash of a public one
  n     BIGINT NOT NULL, -- along the chain; 0 for public leaves
  leaf  BYTEA  NOT NULL,
  at    BIGINT NOT NULL,
  PRIMARY KEY (shard, deed)
);
CREATE INDEX ledger_outbox_order ON ledger_outbox (at, shard, n, deed);

-- The log: its leaves, its tiles of hashes (height 8; the last one of a level may be partial), its checkpoint.
CREATE TABLE ledger_leaves (
  idx       BIGINT NOT NULL PRIMARY KEY,
  leaf      BYTEA  NOT NULL,
  leaf_hash BYTEA  NOT NULL UNIQUE,
  deed      BYTEA  NOT NULL UNIQUE
);

CREATE TABLE ledger_tiles (
  level BIGINT NOT NULL,
  n     BIGINT NOT NULL,
  data  BYTEA  NOT NULL,
  PRIMARY KEY (level, n)
);

CREATE TABLE ledger_state (
  origin     TEXT   NOT NULL PRIMARY KEY,
  size       BIGINT NOT NULL,
  root       BYTEA  NOT NULL,
  checkpoint BYTEA  NOT NULL
);

-- Who may append: a lease that runs out, and a token that only grows.
CREATE TABLE ledger_leases (
  origin TEXT   NOT NULL PRIMARY KEY,
  owner  BYTEA  NOT NULL,
  token  BIGINT NOT NULL,
  until  BIGINT NOT NULL
);

-- +goose Down
DROP TABLE ledger_leases;
DROP TABLE ledger_state;
DROP TABLE ledger_tiles;
DROP TABLE ledger_leaves;
DROP TABLE ledger_outbox;
DROP TABLE ledger_records;
DROP TABLE ledger_heads;
