-- What Beat last said of when an entry is next due. Until now it was dropped while an earlier slot was still owed, so that a schedule
-- which only Beat can compute (rrule, clocked, a class of the user's own) had no next due after its report.
-- Old code sees a column that it does not write; it computes the due on its own, as before.
ALTER TABLE monitor ADD COLUMN hinted_due_at timestamptz;
