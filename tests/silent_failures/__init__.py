"""Each way in which Celery fails silently, done for real: is it told in time, once, with cause and repair?"""
