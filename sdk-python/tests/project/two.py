"""Two applications in one process, each with its own broker."""

from __future__ import annotations

import os

from celery import Celery

import deadbeat

billing = Celery("billing", broker=os.environ["BILLING_BROKER_URL"], set_as_current=False)
mail = Celery("mail", broker=os.environ["MAIL_BROKER_URL"], set_as_current=False)
for app in (billing, mail):
    app.conf.worker_hijack_root_logger = False
    app.conf.beat_schedule = {f"{app.main} entry": {"task": f"{app.main}.work", "schedule": 1.0}}
deadbeat.init(billing)
deadbeat.init(mail)
deadbeat.init(billing)


@billing.task(name="billing.work")
def bill() -> None:
    """Do nothing."""


@mail.task(name="mail.work")
def send() -> None:
    """Send a task of the other application."""
    if os.environ.get("SEND_ACROSS"):
        bill.delay()
