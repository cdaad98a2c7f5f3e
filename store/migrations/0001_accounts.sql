-- +goose Up
CREATE TABLE accounts (
  account_id BYTEA NOT NULL PRIMARY KEY,
  handle     TEXT   NOT NULL,
  created    BIGINT NOT NULL
);

-- +goose Down
DROP TABLE accounts;
