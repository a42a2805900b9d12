-- +goose Up

-- Where a member stands: members of one zone may be lost together. Empty: it has not said so.
ALTER TABLE members ADD COLUMN zone TEXT NOT NULL DEFAULT '';
ALTER TABLE members ADD CONSTRAINT size_members_zone CHECK (length(CAST(zone AS BLOB)) <= 63);
