# The few commands that people type. Each is a script in scripts/, which says more with -h.
.PHONY: run test check demo bench silent-failures silent-failures-random

run: ## install what is missing, build, serve on http://127.0.0.1:8000
	@scripts/run

test: ## install what is missing, run every test of server and SDK
	@scripts/test

check: ## format, lints, types, query data
	@scripts/check

demo: ## a real Celery, whose Beat is killed: watch the alert arrive
	@scripts/demo

bench: ## figures against a baseline on this machine (some minutes)
	@scripts/bench

silent-failures: ## every silent failure of Celery, for real (a quarter of an hour); the table is docs/silent-failures.md
	@scripts/silent-failures

silent-failures-random: ## a hundred seeds of faults and healthy events, for real (two hours)
	@scripts/silent-failures-random
