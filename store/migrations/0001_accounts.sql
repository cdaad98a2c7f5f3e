-- People: accounts, their key chains, sessions, key packages and friends. The shard key is the account, but for handles (the handle).
-- +goose Up
CREATE TABLE accounts (
  account BYTEA  NOT NULL PRIMARY KEY,
  handle  TEXT   NOT NULL,
  created BIGINT NOT NULL,
  version BIGINT NOT NULL, -- n of the newest key-chain entry
  head    BYTEA  NOT NULL  -- SHA-256 of that entry
);

-- A handle is never reassigned: no row of this table is ever changed or deleted.
CREATE TABLE handles (
  handle  TEXT  NOT NULL PRIMARY KEY,
  account BYTEA NOT NULL
);

CREATE TABLE chain_entries (
  account BYTEA  NOT NULL,
  n       BIGINT NOT NULL,
  entry   BYTEA  NOT NULL,
  PRIMARY KEY (account, n)
);

CREATE TABLE sessions (
  account    BYTEA  NOT NULL,
  token_hash BYTEA  NOT NULL, -- SHA-256 of the token
  device     BYTEA  NOT NULL,
  thumbprint BYTEA  NOT NULL, -- of the device's key, to which the token is bound
  expires    BIGINT NOT NULL,
  PRIMARY KEY (account, token_hash)
);

CREATE TABLE key_packages (
  account     BYTEA  NOT NULL,
  device      BYTEA  NOT NULL,
  ref         BYTEA  NOT NULL, -- KeyPackageRef (RFC 9420 section 5.2)
  last_resort BIGINT NOT NULL, -- 1: stays when it is claimed
  not_after   BIGINT NOT NULL,
  key_package BYTEA  NOT NULL,
  PRIMARY KEY (account, device, ref)
);

-- Each friendship is two rows, one in the shard of either.
CREATE TABLE friends (
  account BYTEA  NOT NULL,
  friend  BYTEA  NOT NULL,
  state   BIGINT NOT NULL, -- 1 the account asked, 2 the friend asked, 3 friends
  since   BIGINT NOT NULL,
  PRIMARY KEY (account, friend)
);

-- +goose Down
DROP TABLE friends;
DROP TABLE key_packages;
DROP TABLE sessions;
DROP TABLE chain_entries;
DROP TABLE handles;
DROP TABLE accounts;
