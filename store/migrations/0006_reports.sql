-- Share links and the counts that reports are made of. Shard keys: the link's own id, the partner. Nothing here says who sent or clicked.
-- +goose Up
CREATE TABLE links (
  link      BYTEA  NOT NULL PRIMARY KEY,
  partner   TEXT   NOT NULL,
  number    BIGINT NOT NULL, -- of the agreement
  base      TEXT   NOT NULL, -- of the partner's address
  interface TEXT   NOT NULL,
  surface   TEXT   NOT NULL,
  variant   TEXT   NOT NULL,
  recipient TEXT   NOT NULL
);

CREATE TABLE report_counts (
  partner   TEXT   NOT NULL,
  day       BIGINT NOT NULL, -- days since 1970
  number    BIGINT NOT NULL, -- of the agreement
  interface TEXT   NOT NULL,
  surface   TEXT   NOT NULL,
  variant   TEXT   NOT NULL,
  recipient TEXT   NOT NULL,
  sends     BIGINT NOT NULL,
  clicks    BIGINT NOT NULL,
  PRIMARY KEY (partner, day, number, interface, surface, variant, recipient)
);

-- The partner's own figures, as it handed them in.
CREATE TABLE report_figures (
  partner   TEXT   NOT NULL,
  day       BIGINT NOT NULL,
  interface TEXT   NOT NULL,
  surface   TEXT   NOT NULL,
  variant   TEXT   NOT NULL,
  recipient TEXT   NOT NULL,
  sends     BIGINT NOT NULL,
  clicks    BIGINT NOT NULL,
  PRIMARY KEY (partner, day, interface, surface, variant, recipient)
);

CREATE TABLE reports (
  partner TEXT   NOT NULL,
  start   BIGINT NOT NULL, -- ms: first moment of the fourteen days
  hash    BYTEA  NOT NULL, -- SHA-256 of the report
  report  BYTEA  NOT NULL,
  built   BIGINT NOT NULL,
  PRIMARY KEY (partner, start, hash)
);

-- +goose Down
DROP TABLE reports;
DROP TABLE report_figures;
DROP TABLE report_counts;
DROP TABLE links;
