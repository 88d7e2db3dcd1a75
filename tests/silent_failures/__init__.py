"""Each way in which Celery fails silently, for real: is there one alert, in time, with cause and repair?"""
