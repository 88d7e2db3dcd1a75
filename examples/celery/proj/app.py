"""Two periodic tasks, and the two lines that put them under watch."""

import os

from celery import Celery

import deadbeat

broker = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
app = Celery("proj", broker=broker, include=["proj.tasks"])

# Both tasks every DEMO_SECONDS, for those in a hurry; otherwise every 10 and every 15 seconds.
hurry = os.environ.get("DEMO_SECONDS")
app.conf.beat_schedule = {
    "send-greetings": {"task": "proj.tasks.send_greetings", "schedule": float(hurry or 10)},
    "count-stock": {"task": "proj.tasks.count_stock", "schedule": float(hurry or 15)},
}

# Address and key come from DEADBEAT_URL and DEADBEAT_KEY, everything else from defaults.
deadbeat.init(app)
