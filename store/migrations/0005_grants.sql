-- Partners, agreements, grants, and what agents did with them. Shard keys: the partner (few, small), the account (grants, friends),
-- the grant's own id (its index), the conversation (posts, access periods, opens).
-- +goose Up
CREATE TABLE partners (
  partner        TEXT   NOT NULL PRIMARY KEY,
  number         BIGINT NOT NULL, -- of the newest agreement
  stopped        BIGINT NOT NULL, -- ms; 0: active
  stopped_number BIGINT NOT NULL  -- of the agreement that the operator's last stop ended; 0: none
);

CREATE TABLE agreements (
  partner   TEXT   NOT NULL,
  number    BIGINT NOT NULL,
  agreement BYTEA  NOT NULL, -- countersigned
  hash      BYTEA  NOT NULL, -- by which grants name it
  leaf_hash BYTEA  NOT NULL, -- of its leaf in the ledger
  accepted  BIGINT NOT NULL,
  ended     BIGINT NOT NULL, -- ms; 0: in force
  PRIMARY KEY (partner, number)
);

CREATE TABLE grants (
  account      BYTEA  NOT NULL,
  grant_id     BYTEA  NOT NULL,
  handle       TEXT   NOT NULL,
  device       BYTEA  NOT NULL, -- that signed it
  partner      TEXT   NOT NULL,
  conversation BYTEA  NOT NULL,
  agreement    BYTEA  NOT NULL, -- hash
  hash         BYTEA  NOT NULL, -- of signed
  signed       BYTEA  NOT NULL,
  request      TEXT   NOT NULL, -- the consent request that it answers
  agent_key    BYTEA  NOT NULL,
  actions      BIGINT NOT NULL, -- left after narrowing
  expiry       BIGINT NOT NULL,
  counter      BIGINT NOT NULL, -- its place in the control chain
  state        TEXT   NOT NULL, -- pending, live, ended, void
  reason       TEXT   NOT NULL, -- why it ended
  created      BIGINT NOT NULL,
  changed      BIGINT NOT NULL, -- into its state
  leaf         BIGINT NOT NULL, -- 0 none, 1 its agent is a leaf of the thread, 2 and has to go
  joined_seq   BIGINT NOT NULL, -- of the commit that added the leaf; 0: never
  posted       BIGINT NOT NULL, -- counter of the last post; -1: none
  posts_until  BIGINT NOT NULL, -- us: the time that the posts so far have used up (rate limit)
  links_until  BIGINT NOT NULL, -- us: the same for share links
  PRIMARY KEY (account, grant_id)
);
CREATE INDEX grants_partner ON grants (partner, state, agreement);
CREATE INDEX grants_conversation ON grants (conversation);
CREATE INDEX grants_due ON grants (state, expiry);
CREATE INDEX grants_leaf ON grants (leaf, grant_id);

CREATE TABLE grant_index (
  grant_id BYTEA NOT NULL PRIMARY KEY, -- taken for good
  account  BYTEA NOT NULL
);

CREATE TABLE posts (
  conversation BYTEA  NOT NULL,
  message      BYTEA  NOT NULL,
  grant_id     BYTEA  NOT NULL,
  account      BYTEA  NOT NULL, -- for whom
  partner      TEXT   NOT NULL,
  seq          BIGINT NOT NULL,
  epoch        BIGINT NOT NULL,
  at           BIGINT NOT NULL,
  taken_back   BIGINT NOT NULL, -- seq of the take-back; 0: stands
  PRIMARY KEY (conversation, message)
);

-- What a reading agent was served in an hour: the entries first_seq to last_seq, all of them.
CREATE TABLE access_periods (
  conversation BYTEA  NOT NULL,
  grant_id     BYTEA  NOT NULL,
  period       BIGINT NOT NULL,
  epoch        BIGINT NOT NULL, -- of the last entry served
  first_seq    BIGINT NOT NULL,
  last_seq     BIGINT NOT NULL,
  closed       BIGINT NOT NULL, -- 0 not yet, 1 by the server's word, 2 countersigned by the agent
  close_by     BIGINT NOT NULL, -- ms: when the server closes it by its word; 0: the grant reads still
  receipt      BYTEA  NOT NULL, -- the agent's; empty: none
  PRIMARY KEY (conversation, grant_id, period)
);
CREATE INDEX access_periods_due ON access_periods (closed, close_by);

-- The open records of a period: one for each person in the thread, with what the agent gets of it.
CREATE TABLE access_opens (
  conversation BYTEA  NOT NULL,
  grant_id     BYTEA  NOT NULL,
  period       BIGINT NOT NULL,
  account      BYTEA  NOT NULL,
  n            BIGINT NOT NULL, -- order within the period, from 1
  disclosure   BYTEA  NOT NULL,
  promise      BYTEA  NOT NULL,
  PRIMARY KEY (conversation, grant_id, period, account)
);

CREATE TABLE friend_handles (
  account BYTEA NOT NULL,
  partner TEXT  NOT NULL,
  friend  BYTEA NOT NULL,
  handle  BYTEA NOT NULL, -- 16 random bytes: what the partner knows the friend by
  PRIMARY KEY (account, partner, friend)
);

-- +goose Down
DROP TABLE friend_handles;
DROP TABLE access_opens;
DROP TABLE access_periods;
DROP TABLE posts;
DROP TABLE grant_index;
DROP TABLE grants;
DROP TABLE agreements;
DROP TABLE partners;
