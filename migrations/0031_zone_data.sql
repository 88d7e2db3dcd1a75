-- With which release of the IANA time zone database the stored due times were computed.
--
-- A due time is computed when a report comes. A monitor that reports once a month would keep an hour of last year's clock until its
-- next report, and be called missing. So a process whose data are newer than `release` computes all due times anew, in batches.
--
-- Old code neither reads nor writes the table: while it runs beside the new code, its own dues follow the data that it was built with.

CREATE TABLE zone_data (
    -- One row.
    id        boolean PRIMARY KEY DEFAULT true CONSTRAINT zone_data_one CHECK (id),
    -- All due times are of this release or of a newer one.
    release   text    NOT NULL,
    -- The release that the due times are being moved to; NULL: none.
    moving_to text,
    -- Monitors up to this id are done.
    done_upto uuid,
    CONSTRAINT zone_data_moving CHECK (moving_to IS NOT NULL OR done_upto IS NULL)
);

-- The release that was built in when the table was made.
INSERT INTO zone_data (release) VALUES ('2026e');
