-- The roles are owner, admin, member and viewer (docs/permissions.md). A manager could do what an admin can, so each manager becomes an admin.
-- The code of the last release writes only "owner" and reads no role, so both versions can run side by side.
ALTER TABLE member DROP CONSTRAINT member_role;
UPDATE member SET role = 'admin' WHERE role = 'manager';
ALTER TABLE member ADD CONSTRAINT member_role CHECK (role IN ('owner', 'admin', 'member', 'viewer'));
