-- +goose Up

-- Hosts that a joiner may have in its HTTP certificate besides its own addresses, and the epoch of the key that signed the
-- token (NULL: signed before this step).
ALTER TABLE join_tokens ADD COLUMN hosts     TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(hosts));
ALTER TABLE join_tokens ADD COLUMN key_epoch INTEGER;

-- No two live members share an address or a name: each join and each move looks for others that have them.
CREATE INDEX members_by_api_address ON members (api_address);
CREATE INDEX members_by_name ON members (name);
