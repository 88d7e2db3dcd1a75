"""Each silent failure of Celery, with real processes: one alert must come, in time, with cause and repair."""
