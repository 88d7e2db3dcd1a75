"""How long the SDK waits, in seconds, and how often it retries: one table for all rooms.

Readers name the module (`timeouts.ANSWER_SECONDS`), so that a change holds everywhere at once. Sampling
periods are not here: they stand beside the code that samples.
"""

from __future__ import annotations

# -- The server, for reports.

ANSWER_SECONDS = 2.0
# The server takes seconds for thousands of entries. Without an answer the SDK would send them again.
ANSWER_BYTES_PER_SECOND = 200_000
LONGEST_ANSWER_SECONDS = 10.0
# How long an ordinary report waits for others of its batch.
LINGER_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.5
# The server declares a worker lost after 30 s: after an outage the worker must report before that.
LONGEST_RETRY_SECONDS = 10.0
# A refused key is seldom corrected soon.
REFUSED_KEY_SECONDS = 60.0
# When to send an event again that the server rejected because it did not know the entry yet.
SECOND_TRY_SECONDS = 2.0
# A batch on which the server keeps failing must not block Beat's heartbeats forever.
SERVER_ERROR_TRIES = 6

# -- The end of a process.

# For the last reports of all processes of a worker together. Its children end first, side by side; then
# its main process ends.
EXIT_FLUSH_SECONDS = 2.0
CHILD_EXIT_FLUSH_SECONDS = 1.0
EXIT_RETRY_SECONDS = 0.2
# Exit hooks closer together than this belong to one exit.
EXIT_MEMORY_SECONDS = 10.0

# -- The broker, its workers and the result backend, for reports.

BROKER_ANSWER_SECONDS = 2.0
BACKEND_ANSWER_SECONDS = 2.0
# For the answers of all workers to one broadcast.
WORKERS_ANSWER_SECONDS = 1.0
# RabbitMQ announces an alarm after it has answered a publish.
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
