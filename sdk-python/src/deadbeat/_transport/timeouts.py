"""How long the SDK waits for anything, in seconds, and how often it tries: one table for all rooms.

Readers name the module (`timeouts.ANSWER_SECONDS`), so that a change holds everywhere at once. Periods are
not here: how often something is read stands beside the code that reads it.
"""

from __future__ import annotations

# -- The server, for reports.

ANSWER_SECONDS = 2.0
# A schedule of thousands of entries takes the server seconds. Without an answer it would be sent again.
ANSWER_BYTES_PER_SECOND = 200_000
LONGEST_ANSWER_SECONDS = 10.0
# How long a report that is not urgent waits for others of its batch.
LINGER_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.5
# A worker is missed after 30 s: it must be back before that when the server is.
LONGEST_RETRY_SECONDS = 10.0
# A key that is refused is seldom mended soon.
REFUSED_KEY_SECONDS = 60.0
# When an event is sent again that the server rejected, because it did not know its entry yet.
SECOND_TRY_SECONDS = 2.0
# A batch the server keeps choking on must not keep Beat's liveness behind it for ever.
SERVER_ERROR_TRIES = 6

# -- The end of a process.

# For the last reports of all processes of a worker together. Its children end first, side by side, and then
# its main process does.
EXIT_FLUSH_SECONDS = 2.0
CHILD_EXIT_FLUSH_SECONDS = 1.0
EXIT_RETRY_SECONDS = 0.2
# Exit hooks closer together than this belong to the same exit.
EXIT_MEMORY_SECONDS = 10.0

# -- The broker, its workers and the result backend, for reports.

BROKER_ANSWER_SECONDS = 2.0
BACKEND_ANSWER_SECONDS = 2.0
# For the answers of all workers to one broadcast.
WORKERS_ANSWER_SECONDS = 1.0
# RabbitMQ says that an alarm is on after it has answered to what was published.
ALARM_SECONDS = 0.3

# -- The commands.

# For each answer of an audit: broker, workers and server.
AUDIT_ANSWER_SECONDS = 2.0
# For the search of a Redis database for queues.
SCAN_SECONDS = 0.5
DOCTOR_SERVER_SECONDS = 3.0
DOCTOR_BROKER_SECONDS = 3.0
# For a worker to start and to run one task.
DOCTOR_WORKER_SECONDS = 15.0
# For that worker to end.
DOCTOR_END_SECONDS = 3.0
