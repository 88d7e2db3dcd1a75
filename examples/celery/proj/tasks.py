"""What the example does all day. Nothing here knows of Deadbeat."""

from proj.app import app


@app.task
def send_greetings() -> str:
    """A task that ends well."""
    return "hello"


@app.task(bind=True, max_retries=3)
def count_stock(self) -> int:
    """A task that needs a second try each time: a retry belongs to the run and is no failure."""
    if self.request.retries == 0:
        raise self.retry(countdown=0.1, exc=RuntimeError("the shelf is locked"))
    return 42
