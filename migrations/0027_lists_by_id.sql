-- Workers, queues, brokers and Beats are listed page by page, newest first, as all other lists are (ids are v7: they sort by time).
--
-- Old code lists them by name, without pages, and uses none of these indexes.

CREATE INDEX worker_project ON worker (project_id, id);
CREATE INDEX queue_project ON queue (project_id, id);
CREATE INDEX broker_project ON broker (project_id, id);
CREATE INDEX beat_project ON beat (project_id, id);
