-- A worker without the SDK, or without its key, takes Beat's runs, and they were told as lost, or as unknown, one incident a monitor. Now the workers that
-- answer and do not report are noted at the broker of their application, and a run that vanishes into one is an incident of its queue,
-- WORKER_WITHOUT_SDK.
--
-- The code of the last release neither reads nor writes these columns. It cannot read the new cause: while both versions run, its page of
-- incidents and its look at that queue fail once such an incident is open.
ALTER TABLE broker
    -- Workers that answer and do not report, a bounded list of objects: worker, queues, since, seen_at.
    ADD COLUMN strangers jsonb NOT NULL DEFAULT '[]';
ALTER TABLE queue
    -- Since when runs are missed that such a worker has taken; NULL: none is.
    ADD COLUMN vanished_at timestamptz;
