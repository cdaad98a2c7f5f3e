-- What witnesses have cosigned. The row is there once the log has a witness policy; until then what ledger_state says is published.
-- +goose Up
CREATE TABLE ledger_published (
  origin     TEXT   NOT NULL PRIMARY KEY,
  size       BIGINT NOT NULL,
  root       BYTEA  NOT NULL,
  checkpoint BYTEA  NOT NULL -- with the cosignatures
);

-- The witness policies of the log, in order.
CREATE TABLE ledger_policies (
  n     BIGINT NOT NULL PRIMARY KEY, -- from 0
  leaf  BYTEA  NOT NULL,
  proof BYTEA  NOT NULL -- of its inclusion in the first published tree that holds it; empty: not published yet
);

-- +goose Down
DROP TABLE ledger_policies;
DROP TABLE ledger_published;
