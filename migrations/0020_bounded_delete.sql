-- Deleting a monitor removes one row, and not its runs and memberships: with many of them, the monitor's lock was held until all were gone,
-- and signals of others waited in the same batch. As with pings (0008), the monitor's id stays in `purge`, and the retention removes the
-- rest in small steps. Rows of a monitor that is gone are read by nobody: every question goes through the monitor.
--
-- Old code that deletes a monitor leaves its id in `purge` as well. Old code that runs the retention removes the id with the pings; the runs
-- then go by their age, and the memberships with their incident.
ALTER TABLE run DROP CONSTRAINT run_monitor_id_fkey;
ALTER TABLE incident_member DROP CONSTRAINT incident_member_monitor_id_fkey;

-- Names the snapshot of the schedule that a Beat's monitors are being made to follow. The monitors follow in several transactions; one
-- that finds another name here ends, because a newer snapshot has begun. Old code writes none, and follows in one transaction.
ALTER TABLE beat ADD COLUMN sync_id uuid;
