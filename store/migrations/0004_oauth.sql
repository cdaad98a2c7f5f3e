-- Partner access. The shard key is the grant, but for clients (the client) and pushed requests (the request).
-- +goose Up
CREATE TABLE oauth_clients (
  client        TEXT   NOT NULL PRIMARY KEY, -- the partner's id
  jwks          BYTEA  NOT NULL,             -- RFC 7517, public keys
  redirect_uris TEXT   NOT NULL,             -- one a line
  created       BIGINT NOT NULL
);

CREATE TABLE oauth_requests (
  request_hash BYTEA  NOT NULL PRIMARY KEY, -- SHA-256 of the request id
  client       TEXT   NOT NULL,
  request      BYTEA  NOT NULL, -- spec/oauth.md
  expires      BIGINT NOT NULL,
  decided      BIGINT NOT NULL  -- 0: waits for its answer, 1: allowed, 2: refused
);

-- What one approved request became: the tokens of one grant. The permission itself is a row of grants.
CREATE TABLE oauth_authorizations (
  grant_id      BYTEA  NOT NULL PRIMARY KEY,
  client        TEXT   NOT NULL,
  version       BIGINT NOT NULL, -- counts every change, for compare-and-swap
  thumbprint    BYTEA  NOT NULL, -- of the agent's key; empty until it is known, then fixed
  ended         BIGINT NOT NULL, -- 1: no token of it is good any more
  expires       BIGINT NOT NULL,
  body          BYTEA  NOT NULL  -- spec/oauth.md
);

CREATE TABLE oauth_tokens (
  grant_id   BYTEA  NOT NULL,
  token_hash BYTEA  NOT NULL, -- SHA-256 of the token
  kind       BIGINT NOT NULL, -- 1 code, 2 access token, 3 refresh token
  expires    BIGINT NOT NULL,
  spent      BIGINT NOT NULL, -- 1: redeemed, rotated or revoked; kept so that reuse is seen
  PRIMARY KEY (grant_id, token_hash)
);

-- +goose Down
DROP TABLE oauth_tokens;
DROP TABLE oauth_authorizations;
DROP TABLE oauth_requests;
DROP TABLE oauth_clients;
