-- What the operator decides about people: who is blocked, and who may come in. The shard key is the account; of an invitation, its code.
-- +goose Up
CREATE TABLE blocked_accounts (
  account BYTEA  NOT NULL PRIMARY KEY,
  since   BIGINT NOT NULL,
  reason  TEXT   NOT NULL -- the person reads it
);

CREATE TABLE invites (
  code_hash BYTEA  NOT NULL PRIMARY KEY, -- SHA-256 of the code
  created   BIGINT NOT NULL,
  expires   BIGINT NOT NULL,
  uses      BIGINT NOT NULL, -- how many people it lets in
  used      BIGINT NOT NULL  -- how many came
);

-- +goose Down
DROP TABLE invites;
DROP TABLE blocked_accounts;
