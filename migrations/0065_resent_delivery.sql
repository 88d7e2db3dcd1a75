-- When a person had a delivery sent again that was given up or cancelled: its day of attempts begins anew.
--
-- Old code sees a pending delivery, and gives it up at its next attempt if it is older than a day.

ALTER TABLE delivery ADD COLUMN resent_at timestamptz;
